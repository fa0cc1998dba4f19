"""The cranial cavity and the skull around it."""

from dataclasses import dataclass
from typing import final

import numpy as np

from transmodal.simulation.canvas import Canvas
from transmodal.simulation.noise import Noise
from transmodal.simulation.parameters import HeadConfig
from transmodal.simulation.shapes import Distance, Points, box, capsule, ellipsoid, smooth_intersection, smooth_union
from transmodal.simulation.tissues import Tissue

LOW, HIGH = (-100.0, -130.0, -95.0), (100.0, 105.0, 110.0)


@final
@dataclass(frozen=True, eq=False)
class Cranium:
    """Distances that both the skull and the scalp follow.

    Parameters
    ----------
    inner : ndarray, shape (x, y, z)
        Signed distance to the inner surface of the skull, in anatomy mm.
    thickness : ndarray, shape (x, y, z)
        Thickness of the bone outside it.
    """

    inner: Distance
    thickness: Distance


def cavity(points: Points) -> Distance:
    """Signed distance to the inner surface of an average skull, in anatomy mm: three fossae under one vault."""
    x, y, z = points
    folded = (np.abs(x), y, z)
    # Narrower at the forehead than over the ears.
    narrowed = (x * (1 + np.float32(0.0011) * np.maximum(y + 35, 0)), y, z)
    vault = ellipsoid(narrowed, (0, -17, 8), (73, 91, 76), exponent=2.2)
    floor = np.float32(-27) - z + np.float32(0.012) * np.maximum(np.abs(x) - 8, 0) ** 1.5
    vault = smooth_intersection(vault, floor, 10)
    middle_fossa = ellipsoid(folded, (41, -10, -24), (25, 41, 25))
    posterior_fossa = ellipsoid(points, (0, -63, -32), (56, 42, 37))
    brainstem = capsule(points, (0, -24, -20), (0, -44, -74), 17, 12)
    result = smooth_union(smooth_union(vault, middle_fossa, 8), smooth_union(posterior_fossa, brainstem, 8), 8)
    result = smooth_intersection(result, -_petrous(folded), 4)
    return smooth_intersection(result, np.float32(3) - _orbit_roof(folded), 6)


def _petrous(folded: Points) -> Distance:
    return capsule(folded, (58, -30, -47), (18, -8, -44), 8.5, 5)


def _orbit_roof(folded: Points) -> Distance:
    return capsule(folded, (33, 56, -39), (16, 22, -33), 19, 6)


def make_cranium(canvas: Canvas, config: HeadConfig, noise: Noise) -> Cranium:
    """Compute the distances for every voxel of a canvas."""
    x, y, z = canvas.points
    inner = cavity(canvas.points)
    waves = noise.band("skull thickness", 52, LOW, HIGH)(canvas.points)
    occiput = np.exp(-((x / 30) ** 2 + ((y + 105) / 25) ** 2 + ((z + 5) / 25) ** 2))
    forehead = np.exp(-((x / 35) ** 2 + ((y - 70) / 25) ** 2 + ((z - 5) / 35) ** 2))
    temple = np.exp(-(((np.abs(x) - 72) / 22) ** 2 + ((y - 2) / 38) ** 2 + ((z + 12) / 26) ** 2))
    pattern = 1 + 0.4 * occiput + 0.2 * forehead - 0.5 * temple + config.skull_variation * waves
    mean = config.skull_thickness_mm * canvas.unit
    thickness = np.maximum(mean * pattern, 0.3 * mean).astype(np.float32)
    return Cranium(inner, thickness)


def skull_base(points: Points) -> Distance:
    """Signed distance to the solid bones under the brain: petrous ridges, mastoids, clivus, sphenoid, brow, cheek arches."""
    folded = (np.abs(points[0]), points[1], points[2])
    mastoid = ellipsoid(folded, (60, -36, -60), (13, 17, 22))
    clivus = capsule(points, (0, 4, -42), (0, -24, -68), 9, 6)
    sphenoid = box(points, (0, 14, -42), (17, 16, 12), 6)
    wings = capsule(folded, (16, 22, -40), (52, 30, -30), 5, 4)
    condyles = ellipsoid(folded, (19, -40, -74), (9, 14, 9))
    glabella = ellipsoid(points, (0, 72, -15), (30, 11, 17))
    result = smooth_union(_petrous(folded), mastoid, 5)
    for part in (clivus, sphenoid, wings, condyles, glabella):
        result = smooth_union(result, part, 4)
    return result


def paint_skull(canvas: Canvas, config: HeadConfig, cranium: Cranium, noise: Noise) -> None:
    """Paint vault and base: tables, diploe, air cells, sutures; and the cavity as fluid."""
    inner, thickness = cranium.inner, cranium.thickness
    table = config.table_mm * canvas.unit
    base = skull_base(canvas.points)
    shell = np.maximum(-inner, inner - thickness)
    bone = smooth_union(shell, base, 3.0)
    canvas.paint((bone < 0) & (inner >= 0), Tissue.CORTICAL_BONE)
    canvas.paint((bone < -table) & (inner >= 0.85 * table), Tissue.DIPLOE)
    canvas.paint((_petrous(canvas.mirrored) < -0.5) & (inner >= 0), Tissue.CORTICAL_BONE)
    _paint_midline_sinuses(canvas, config, noise)
    _paint_mastoid_cells(canvas, config, noise)
    if config.suture_mm > 0:
        _paint_sutures(canvas, config, noise)
    canvas.paint((inner < 0), Tissue.CSF)


def _paint_midline_sinuses(canvas: Canvas, config: HeadConfig, noise: Noise) -> None:
    """Air in the sphenoid and the frontal bone, wherever bone is left around it."""
    block = canvas.crop((-40, -2, -58), (40, 92, 22))
    size = 0.4 + 0.6 * config.maxillary_sinus
    sphenoid = ellipsoid(block.mirrored, (8, 15, -42), (7.5 * size, 12 * size, 9 * size), exponent=2.6)
    lobes = 2.5 * noise.band("frontal sinus", 18, (-40, 50, -45), (40, 92, 22))(block.points)
    height = 17 * config.frontal_sinus
    frontal = ellipsoid(block.mirrored, (12, 76, -26 + height), (max(12 * config.frontal_sinus, 1), 12, max(height, 1))) + lobes
    bone = block.is_any(Tissue.DIPLOE)
    block.paint((sphenoid < 0) & block.is_any(Tissue.DIPLOE, Tissue.CORTICAL_BONE), Tissue.SINUS_AIR)
    if config.frontal_sinus > 0.15:
        block.paint((frontal < 0) & (np.abs(block.x) > 0.6) & bone, Tissue.SINUS_AIR)


def _paint_mastoid_cells(canvas: Canvas, config: HeadConfig, noise: Noise) -> None:
    """Air cells in the mastoid process and the middle ear, between walls of bone; and the ear canals."""
    walls = noise.band("mastoid cells", 8, (-85, -65, -90), (85, 0, -30))
    block = canvas.crop((-85, -65, -90), (85, 0, -30))
    size = config.mastoid_air
    if size > 0.1:
        cells = ellipsoid(block.mirrored, (59, -36, -57), (10 * size, 13 * size, 18 * size))
        cells = np.minimum(cells, ellipsoid(block.mirrored, (50, -24, -48), (10 * size, 6, 6)))
        block.paint((cells < 0) & (walls(block.points) > -0.35) & block.is_any(Tissue.CORTICAL_BONE, Tissue.DIPLOE), Tissue.SINUS_AIR)
    canal = capsule(block.mirrored, (92, -24, -51), (50, -23, -48), 3.4, 2.6)
    block.paint((canal < 1.6 * block.unit) & block.is_any(Tissue.CORTICAL_BONE, Tissue.DIPLOE), Tissue.CORTICAL_BONE)
    block.paint((canal < 0) & ~block.is_any(Tissue.BACKGROUND), Tissue.SINUS_AIR)


def _paint_sutures(canvas: Canvas, config: HeadConfig, noise: Noise) -> None:
    """Open the sutures of an infant's vault and its anterior fontanelle."""
    block = canvas.crop((-100, -130, 0), (100, 105, 110))
    x, y, z = block.points
    wiggle = noise.band("sutures", 14, LOW, HIGH)(block.points)
    coronal_y = 22 - 0.35 * np.abs(x)
    lambda_y = -72 - 0.45 * np.abs(x)
    sagittal = np.where((y > lambda_y) & (y < coronal_y), np.abs(x + wiggle), 50)
    metopic = np.where(y >= coronal_y, np.abs(x + wiggle) + 0.8, 50)
    paired = np.minimum(np.abs(y - coronal_y + wiggle), np.abs(y - lambda_y + wiggle))
    fontanelle = np.abs(x) + 0.8 * np.abs(y - 22) - 3.0 * config.suture_mm
    width = 0.5 * config.suture_mm * block.unit
    gap = np.minimum(np.minimum(np.minimum(sagittal, metopic), paired) - width, fontanelle)
    block.paint((gap < 0) & (z > 8) & block.is_any(Tissue.CORTICAL_BONE, Tissue.DIPLOE), Tissue.CARTILAGE)
