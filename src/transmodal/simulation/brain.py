"""The brain in its fluid: folded cortex, white matter, ventricles, deep nuclei, cerebellum and brainstem."""

import numpy as np

from transmodal.simulation.canvas import Canvas
from transmodal.simulation.cranium import cavity
from transmodal.simulation.noise import Noise
from transmodal.simulation.parameters import HeadConfig
from transmodal.simulation.shapes import Distance, Points, Triple, capsule, chain, ellipsoid, smooth_union
from transmodal.simulation.tissues import Tissue

LOW, HIGH = (-76.0, -112.0, -80.0), (76.0, 78.0, 88.0)
# The cortex folds along rays from here, so that its sulci run inwards.
_CENTER: Triple = (0.0, -18.0, 4.0)
_RADII: Triple = (58.0, 76.0, 60.0)


def paint_brain(canvas: Canvas, config: HeadConfig, noise: Noise) -> None:
    """Paint brain and ventricles into a cavity that is full of fluid."""
    block = canvas.crop(LOW, HIGH)
    hull = cavity(block.points) + np.float32(config.csf_mm * block.unit)
    _paint_cerebrum(block, config, hull, noise)
    _paint_cerebellum(block, hull, noise)
    _paint_brainstem(block)
    _paint_nuclei(block)
    _paint_ventricles(block, config)


def _tentorium(block: Canvas) -> Distance:
    """Height above the sheet between cerebrum and cerebellum, which rises to the middle."""
    x, y, z = block.mirrored
    return z - (np.float32(4) - np.float32(0.42) * x - np.float32(0.35) * np.maximum(-55 - y, 0))


def _midline_body(block: Canvas) -> Distance:
    """Signed distance, in the sagittal plane, to what joins the hemispheres: the corpus callosum and all beneath it."""
    flat = (np.zeros_like(block.x), block.y, block.z)
    upper = ellipsoid(flat, (0, -8, 2), (10, 40, 24))
    return np.minimum(upper, ellipsoid(flat, (0, -16, -10), (10, 24, 16)))


def _paint_cerebrum(block: Canvas, config: HeadConfig, hull: Distance, noise: Noise) -> None:
    depth = _cerebral_depth(block, hull)
    middle = _midline_body(block)
    to_fissure = np.hypot(np.maximum(np.abs(block.x) - 0.3, 0), np.maximum(-middle, 0))
    sulcus = np.minimum(_sulcal_distance(block, config, depth, to_fissure, noise), _sylvian_distance(block))
    half_width = np.float32(0.5 * config.sulcus_mm * block.unit)
    pial = np.minimum(np.minimum(depth, to_fissure - half_width), sulcus - half_width)
    ribbon = np.float32(config.ribbon_mm * block.unit)
    block.paint(pial > 0, Tissue.GREY_MATTER)
    block.paint(pial > ribbon, Tissue.WHITE_MATTER)
    # The callosum is white to its surface.
    block.paint((np.abs(block.x) < 8) & (middle < 0) & (middle > -5) & (block.z > -4), Tissue.WHITE_MATTER)


def _cerebral_depth(block: Canvas, hull: Distance) -> Distance:
    """Depth below the smooth envelope of the hemispheres."""
    below = np.maximum(_tentorium(block) - 1.5, block.y + 12 + np.float32(0.45) * np.abs(block.x))
    cisterns = capsule(block.points, (0, -25, -14), (0, -28, -60), 15, 18)
    sella = ellipsoid(block.points, (0, 2, -24), (17, 14, 11))
    removed = np.minimum(below, np.minimum(cisterns, sella))
    return -np.maximum(hull, -removed)


def _sulcal_distance(block: Canvas, config: HeadConfig, depth: Distance, to_fissure: Distance, noise: Noise) -> Distance:
    """Distance to the nearest sulcus: sheets that run inwards from the surface and end at a depth that varies."""
    wavelength = config.fold_wavelength_mm * block.unit
    low, high = (-110.0, -130.0, -100.0), (110.0, 100.0, 110.0)
    sheets = noise.sheets("sulci", wavelength, low, high)
    wiggle = [noise.band(f"sulci {axis}", 0.8 * wavelength, LOW, HIGH)(block.points) * np.float32(1.8) for axis in "xyz"]
    reach = noise.band("sulcal depth", 1.6 * wavelength, LOW, HIGH)(block.points)
    projected = _project(block.points)
    x, y, z = (p + w for p, w in zip(projected, wiggle, strict=True))
    sheet = np.abs(sheets((x, y, z)))
    from_surface = np.minimum(depth, to_fissure)
    deepest = config.fold_depth_mm * block.unit * (1 + 0.25 * reach)
    # None among the nuclei and the callosum.
    core = ellipsoid(block.points, (0, -8, 0), (35, 44, 25))
    beyond = np.maximum(from_surface - np.maximum(deepest, 4), np.float32(1.5) * (-core))
    return np.hypot(sheet, np.maximum(beyond, 0))


def _project(points: Points) -> Points:
    """Move points along rays most of the way to an ellipsoid, so that what varies there hardly varies with depth."""
    offsets = [p - np.float32(c) for p, c in zip(points, _CENTER, strict=True)]
    level = np.sqrt(sum((o * np.float32(1 / r)) ** 2 for o, r in zip(offsets, _RADII, strict=True)))
    factor = np.maximum(level, np.float32(0.15)) ** np.float32(-0.85)
    x, y, z = (o * factor + np.float32(c) for o, c in zip(offsets, _CENTER, strict=True))
    return x, y, z


def _sylvian_distance(block: Canvas) -> Distance:
    """Distance to the fissure above the temporal lobe, which reaches the insula."""
    x, y, z = block.mirrored
    x = x + np.float32(2.5) * np.sin(np.float32(0.25) * y + np.float32(0.11) * block.x)
    z = z + np.float32(2.5) * np.sin(np.float32(0.19) * x + np.float32(0.13) * y)
    sheet = np.abs(z - (np.float32(-7) - np.float32(0.3) * y)) * np.float32(0.95)
    insula = np.abs(x - np.float32(37)) + np.maximum(np.abs(z + 0.3 * y + 1) - 10, 0)
    ends = np.maximum(np.maximum(y - 26, -36 - y), 0)
    return np.hypot(np.minimum(np.hypot(sheet, np.maximum(37 - x, 0)), insula), ends)


def _paint_cerebellum(block: Canvas, hull: Distance, noise: Noise) -> None:
    """Two hemispheres and the vermis, with fine fissures that fan out from the fourth ventricle."""
    x, y, z = block.mirrored
    lobes = smooth_union(ellipsoid(block.mirrored, (24, -62, -36), (33, 37, 32)), ellipsoid(block.points, (0, -62, -24), (16, 30, 32)), 4)
    surface = np.maximum(np.maximum(lobes, hull), _tentorium(block) + 1.5)
    y0, z0 = y + np.float32(44), z + np.float32(34)
    radius = np.hypot(np.hypot(y0, z0), np.float32(0.6) * x)
    bend = noise.band("folia", 22, LOW, HIGH)(block.points)
    phase = np.arctan2(z0, -y0) * np.float32(12) + bend * np.float32(0.7)
    fissure = np.abs(np.sin(phase)) * radius * np.float32(1 / 12)
    fissure = np.hypot(fissure, np.maximum(-surface - 14, 0))
    pial = np.minimum(-surface, fissure - np.float32(0.25))
    block.paint(pial > 0, Tissue.GREY_MATTER)
    block.paint(pial > 2.5, Tissue.WHITE_MATTER)


def _paint_brainstem(block: Canvas) -> None:
    points = block.points
    stem = chain(points, [(0, -22, -8), (0, -30, -38), (0, -40, -62), (0, -46, -84)], [11, 11.5, 7.5, 5.5])
    pons = ellipsoid(points, (0, -25, -32), (16, 10, 13))
    peduncles = capsule(block.mirrored, (6, -22, -12), (16, -14, 2), 7, 7)
    arms = capsule(block.mirrored, (8, -30, -34), (22, -52, -40), 7, 6)
    stem = np.minimum(smooth_union(stem, pons, 5), np.minimum(peduncles, arms))
    block.paint(stem < 0, Tissue.WHITE_MATTER)


def _paint_nuclei(block: Canvas) -> None:
    """Caudate, putamen and thalamus."""
    folded = block.mirrored
    caudate = chain(folded, [(12, 18, 2), (15, 4, 16), (19, -20, 19)], [6.5, 5, 2.5])
    putamen = ellipsoid(folded, (25, 3, 0), (5.5, 17, 10))
    thalamus = ellipsoid(folded, (11, -18, 7), (9, 14, 9))
    amygdala = chain(folded, [(22, -6, -18), (27, -18, -16), (28, -32, -8)], [7, 5, 3.5])
    for nucleus in (caudate, putamen, thalamus, amygdala):
        block.paint((nucleus < 0) & block.is_any(Tissue.WHITE_MATTER), Tissue.GREY_MATTER)


def _paint_ventricles(block: Canvas, config: HeadConfig) -> None:
    folded, points, size = block.mirrored, block.points, config.ventricle_size
    lateral = chain(folded, [(13, 30, 5), (9, 10, 15), (11, -14, 20), (20, -38, 16)], [3.2 * size, 4.5 * size, 4.2 * size, 5.2 * size])
    horns = chain(folded, [(20, -38, 16), (29, -44, 4), (36, -24, -12), (34, -12, -19)], [5.2 * size, 4.5 * size, 2.2 * size, 1.6 * size])
    occipital = capsule(folded, (25, -44, 10), (24, -72, 4), 4.5 * size, 1.5 * size)
    slit = ellipsoid(points, (0, -12, 0), (2.2 * size, 15, 10))
    aqueduct = capsule(points, (0, -26, -2), (0, -36, -24), 1.2)
    fourth = ellipsoid(points, (0, -43, -36), (8 * size, 5 * size, 10))
    for space in (lateral, horns, occipital, slit, aqueduct, fourth):
        block.paint((space < 0) & block.is_any(Tissue.WHITE_MATTER, Tissue.GREY_MATTER), Tissue.CSF)
    septum = (np.abs(block.x) < 0.9) & (lateral < 6) & (block.z > 4)
    block.paint(septum & block.is_any(Tissue.CSF) & (_midline_body(block) < -5), Tissue.WHITE_MATTER)
