"""The outline of the head, and the skin, fat and muscle under it."""

import numpy as np

from transmodal.simulation.canvas import Canvas
from transmodal.simulation.cranium import Cranium
from transmodal.simulation.noise import Noise
from transmodal.simulation.parameters import HeadConfig
from transmodal.simulation.shapes import Distance, capsule, chain, ellipsoid, smooth_union
from transmodal.simulation.tissues import Tissue

_LOW, _HIGH = (-100.0, -135.0, -260.0), (100.0, 115.0, 110.0)


def outline(canvas: Canvas, config: HeadConfig, cranium: Cranium) -> Distance:
    """Signed distance to the skin, in anatomy mm."""
    points, folded = canvas.points, canvas.mirrored
    width, jaw = config.face_width, config.jaw_size
    scalp = cranium.inner - cranium.thickness - np.float32(config.scalp_mm * canvas.unit)
    # The temporal muscle fills the hollow of the temple.
    temple = ellipsoid(folded, (55 * width, 14, -18), (18, 38, 40))
    face = ellipsoid(points, (0, 34, -78), (62 * width, 52, 66), exponent=2.4)
    cheeks = ellipsoid(folded, (40 * width, 48, -80), (29, 32, 40))
    chin = ellipsoid(points, (0, 70 * jaw, -134), (26, 20, 20))
    jaw_line = chain(folded, [(14, 66 * jaw, -136), (40, 42, -130), (53 * width, 2, -118), (60 * width, -6, -70)], [16, 15, 14, 17])
    neck = chain(points, [(0, -30, -60), (0, -38, -130), (0, -48, -260)], [60, 60 * config.neck_width, 66 * config.neck_width])
    result = smooth_union(scalp, temple, 12)
    parotid = ellipsoid(folded, (52 * width, -4, -74), (25, 44, 44))
    nape = ellipsoid(folded, (22, -70, -74), (38, 33, 32))
    for part, blend in ((nape, 14), (face, 16), (cheeks, 10), (parotid, 14), (chin, 14), (jaw_line, 14), (neck, 24)):
        result = smooth_union(result, part, blend)
    return _add_features(canvas, config, result)


def _add_features(canvas: Canvas, config: HeadConfig, result: Distance) -> Distance:
    """Nose, lips, eyelids and ears."""
    points, folded = canvas.points, canvas.mirrored
    tip = 92 + 14 * config.nose_length
    nose = capsule(points, (0, 78, -36), (0, tip - 12, -76), 8, 11)
    wings = ellipsoid(folded, (11, 88, -80), (9, 12, 8))
    lips = ellipsoid(points, (0, 84, -109), (26, 11, 13))
    lids = ellipsoid(folded, (33, 60, -39), (17, 16, 15))
    brow = ellipsoid(folded, (22, 74, -22), (24, 12, 10))
    for part, blend in ((nose, 12), (wings, 6), (lips, 7), (lids, 5), (brow, 8)):
        result = smooth_union(result, part, blend)
    x, y, z = folded
    tilted = (x - np.float32(0.4) * (np.float32(-18) - y), y, z)
    ear = ellipsoid(tilted, (76, -33, -50), (3.2, 17, 29))
    return smooth_union(result, ear, 4)


def paint_soft_tissue(canvas: Canvas, config: HeadConfig, cranium: Cranium, noise: Noise) -> None:
    """Paint everything inside the skin as skin, fat, and muscles between planes of fat."""
    depth = -outline(canvas, config, cranium)
    unit = canvas.unit
    lumps = noise.band("fat", 40, _LOW, _HIGH)(canvas.points)
    planes = noise.sheets("muscle planes", 36, _LOW, _HIGH)(canvas.points)
    scalp_fat = (config.scalp_mm - config.skin_mm) * 0.8
    face = 0.5 - 0.5 * np.tanh((canvas.z + 35) / 16)
    back = 0.5 - 0.5 * np.tanh(canvas.y / 24)
    below = (4 + 4 * (1 - back) * (np.abs(canvas.x) < 60) + 2 * back) * config.fat
    fat = (scalp_fat * (1 - face) + below * face) * (1 + 0.3 * lumps) * unit
    skin = np.float32(config.skin_mm * unit)
    canvas.paint(depth > 0, Tissue.SKIN)
    canvas.paint(depth > skin, Tissue.FAT)
    muscle = (depth > skin + fat) & ((np.abs(planes) > 0.6 * config.fat) | (lumps < -0.6))
    canvas.paint(muscle, Tissue.MUSCLE)
    _paint_ears(canvas, depth)
    _paint_muscles(canvas, config, depth > skin + 1.5 * unit)


def _paint_ears(canvas: Canvas, depth: Distance) -> None:
    ear = (np.abs(canvas.x) > 79) & (canvas.y < -8) & (canvas.y > -60) & (canvas.z < -15) & (canvas.z > -85)
    canvas.paint(ear & (depth > 1.2 * canvas.unit), Tissue.CARTILAGE)


def _paint_muscles(canvas: Canvas, config: HeadConfig, inside: np.ndarray) -> None:
    """Muscles that give a head its look: chewing, tongue, and the long muscles of the neck."""
    folded, points = canvas.mirrored, canvas.points
    width = config.face_width
    parts = [
        ellipsoid(folded, (62 * width, 12, -18), (9, 32, 34)),
        capsule(folded, (60 * width, 20, -60), (54 * width, 6, -112), 8, 9),
        capsule(folded, (28, 16, -58), (42, 0, -108), 9, 8),
        ellipsoid(points, (0, 42, -112), (24, 34, 19)),
        capsule(folded, (14, -72, -66), (16, -84, -250), 13, 15),
        capsule(folded, (34, -66, -66), (36, -72, -250), 11, 13),
        capsule(folded, (60, -38, -78), (24, 10, -220), 10, 9),
        capsule(folded, (16, -20, -80), (18, -20, -250), 8, 9),
    ]
    for part in parts:
        canvas.paint(inside & (part < 0.9) & (part > 0), Tissue.FAT)
        canvas.paint(inside & (part <= 0), Tissue.MUSCLE)
