"""Bones of the face, the nose and its sinuses, the jaws and their teeth."""

import numpy as np

from transmodal.simulation.canvas import Canvas
from transmodal.simulation.noise import Noise
from transmodal.simulation.parameters import HeadConfig
from transmodal.simulation.shapes import Distance, Number, arch, box, capsule, chain, ellipsoid, smooth_intersection, smooth_union
from transmodal.simulation.tissues import Tissue

# The rows of teeth seen from above, on the right half, from the middle to the last molar; and a tooth's width.
_DENTAL_ARCH = [(0.0, 78.0), (10.0, 76.0), (20.0, 68.0), (26.0, 54.0), (29.0, 40.0), (31.0, 26.0)]
_TOOTH_PITCH = 8.6
_BITE = -108.0


def paint_face(canvas: Canvas, config: HeadConfig, noise: Noise) -> None:
    """Paint facial bones, nose, sinuses, mouth, jaw and teeth."""
    block = canvas.crop((-85, -15, -160), (85, 112, 0))
    _paint_upper_bones(block, config)
    _paint_jaw(block, config)
    _paint_teeth(block, config)
    _paint_nose(block, config)
    _paint_sinuses(block, config, noise)


def _paint_bone(block: Canvas, bone: Distance, cortex_mm: float) -> None:
    inside = ~block.is_any(Tissue.BACKGROUND, Tissue.SKIN)
    block.paint((bone < 0) & inside, Tissue.CORTICAL_BONE)
    block.paint((bone < -cortex_mm * block.unit) & inside, Tissue.DIPLOE)


def _paint_upper_bones(block: Canvas, config: HeadConfig) -> None:
    """Maxilla, palate, cheek bones and arches, nasal bones, the rims of the orbits and the bone of the frontal sinus."""
    points, folded = block.points, block.mirrored
    width = config.face_width
    maxilla = ellipsoid(folded, (22, 51, -74), (23, 25, 22), exponent=2.6)
    alveolar = _arch_band(block, 7.0, -88, -101)
    palate = box(points, (0, 50, -91), (24, 27, 2.2), 1.5)
    cheek = ellipsoid(folded, (47 * width, 52, -58), (11, 13, 13))
    zygoma = chain(folded, [(52 * width, 50, -58), (66 * width, 24, -56), (69 * width, -6, -52)], [5, 3, 4])
    nasal = np.maximum(np.abs(capsule(points, (0, 75, -34), (0, 80, -58), 7, 9)) - np.float32(1.2), 76 - block.y)
    process = capsule(folded, (14, 74, -38), (16, 74, -76), 4, 5)
    lateral_rim = capsule(folded, (50 * width, 60, -28), (52 * width, 52, -56), 4, 5)
    brow = capsule(folded, (4, 77, -24), (46, 64, -24), 7, 5)
    pterygoid = capsule(folded, (13, 20, -52), (16, 18, -90), 4, 3)
    bone = smooth_union(maxilla, alveolar, 4)
    for part in (palate, cheek, zygoma, nasal, process, lateral_rim, brow, pterygoid):
        bone = smooth_union(bone, part, 3)
    _paint_bone(block, bone, 1.6)


def _arch_band(block: Canvas, half_width: Number, top: Number, bottom: Number) -> Distance:
    distance, _ = arch(*block.mirrored[:2], _DENTAL_ARCH)
    middle, half = (top + bottom) / 2, (top - bottom) / 2
    return smooth_intersection(distance - np.float32(half_width), np.abs(block.z - np.float32(middle)) - np.float32(half), 4)


def _paint_jaw(block: Canvas, config: HeadConfig) -> None:
    folded, size = block.mirrored, config.jaw_size
    squeezed = (folded[0], folded[1], folded[2] * np.float32(0.5))
    nodes = [(0, 70 * size, -66.5), (16, 65 * size, -66.5), (30, 46, -65.5), (42, 20, -63.5), (47, 6, -60)]
    body = chain(squeezed, nodes, [6.5, 6, 5.5, 5.5, 5.5])
    ramus_points = (folded[0], folded[1] * np.float32(0.45), folded[2])
    ramus = chain(ramus_points, [(47, 3, -122), (50, 1.5, -90), (53, 0.5, -76)], [5, 4, 3.5])
    condyle = capsule(folded, (53, -5, -80), (54, -8, -62), 4, 6)
    coronoid = capsule(folded, (51, 14, -84), (52, 18, -68), 3.5, 2.5)
    alveolar = _arch_band(block, 6.5, -114, -130)
    bone = smooth_union(smooth_union(body, ramus, 5), smooth_union(alveolar, np.minimum(condyle, coronoid), 3), 4)
    _paint_bone(block, bone, 2.2)


def _paint_teeth(block: Canvas, config: HeadConfig) -> None:
    """Rows of tapering teeth on both arches, with gaps between them and a slit of air and saliva between the rows."""
    if config.tooth_mm == 0:
        return
    distance, arc = arch(*block.mirrored[:2], _DENTAL_ARCH)
    crown = config.tooth_mm * block.unit
    height = np.abs(block.z - np.float32(_BITE))
    root = np.clip((height - crown) / np.float32(13), 0, 1)
    half_width = (3.3 + 0.025 * arc) * (1 - 0.7 * root)
    along = np.abs(np.mod(arc, np.float32(_TOOTH_PITCH)) - np.float32(_TOOTH_PITCH / 2))
    tooth = np.maximum(distance - half_width, along - np.float32(_TOOTH_PITCH / 2 - 0.4) * (1 - 0.6 * root))
    tooth = np.maximum(tooth, height - np.float32(crown + 12))
    last = (arc < _TOOTH_PITCH * 7.99) & (distance < 8) & ~block.is_any(Tissue.BACKGROUND, Tissue.SKIN)
    block.paint((tooth < 0) & (height > 0.7) & last, Tissue.TOOTH)
    # The oral cavity: a film of mucosa around the crowns, above the tongue.
    film = (height < 1.2) & (distance < 6) & last
    block.paint(film & ~block.is_any(Tissue.TOOTH), Tissue.MUCOSA)


def _paint_nose(block: Canvas, config: HeadConfig) -> None:
    """Nasal cavity with septum and turbinates, opening at the nostrils and into the throat."""
    points, folded = block.points, block.mirrored
    cavity = box(points, (0, 54, -69), (15, 31, 19), 9)
    upper = box(points, (0, 50, -46), (6, 24, 12), 4)
    nostrils = capsule(folded, (7, 80, -78), (8, 92, -86), 5, 4)
    air = np.minimum(smooth_union(cavity, upper, 6), nostrils)
    inside = ~block.is_any(Tissue.BACKGROUND)
    block.paint((air < 2.0 * block.unit) & inside & ~block.is_any(Tissue.SKIN), Tissue.MUCOSA)
    block.paint((air < 0) & inside, Tissue.SINUS_AIR)
    inferior = _scroll(block, (9.5, -78.0), 6.5, 32, 76)
    middle = _scroll(block, (8.0, -62.0), 5.2, 32, 70)
    turbinates = np.minimum(inferior, middle)
    block.paint((turbinates < 0) & (air < 0), Tissue.MUCOSA)
    block.paint((turbinates < -4.0) & (air < 0), Tissue.CORTICAL_BONE)
    septum = np.abs(block.x + np.float32(1.5) * np.sin(block.z * np.float32(0.09))) - np.float32(1.6)
    block.paint((septum < 0) & (air < 0), Tissue.MUCOSA)
    block.paint((septum < -1.0) & (air < 0) & (block.y < 70), Tissue.CARTILAGE)


def _scroll(block: Canvas, center: tuple[Number, Number], radius: Number, back: Number, front: Number) -> Distance:
    """Signed distance to one turbinate: a rod from back to front that hangs from the side wall."""
    x, y, z = block.mirrored
    stem = box((x, y, z), (center[0] + 4, (back + front) / 2, center[1] + 3), (5, (front - back) / 2, 1.4), 1)
    rod = capsule((x * np.float32(1.35), y, z), (center[0] * 1.35, back + 3, center[1]), (center[0] * 1.35, front - 6, center[1]), radius)
    return np.minimum(rod, stem)


def _paint_sinuses(block: Canvas, config: HeadConfig, noise: Noise) -> None:
    points, folded = block.points, block.mirrored
    size = config.maxillary_sinus
    maxillary = ellipsoid(folded, (29, 48, -70), (13 * size, 21 * size, 17 * size), exponent=2.5)
    block.paint((maxillary < 1.2) & ~block.is_any(Tissue.BACKGROUND, Tissue.SKIN, Tissue.SINUS_AIR), Tissue.CORTICAL_BONE)
    block.paint(maxillary < 0, Tissue.MUCOSA)
    block.paint(maxillary < -1.0, Tissue.SINUS_AIR)
    walls = np.abs(noise.band("ethmoid cells", 11, (-20, 25, -60), (20, 80, -20))(points))
    ethmoid = box(folded, (10, 52, -40), (6.5, 22, 10), 4)
    block.paint(ethmoid < 1.0, Tissue.CORTICAL_BONE)
    block.paint((ethmoid < 0), Tissue.SINUS_AIR)
    block.paint((ethmoid < 0) & (walls < 0.22), Tissue.MUCOSA)
