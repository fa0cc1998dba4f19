"""The orbits: eyes, their muscles and nerves, in fat, within thin walls of bone."""

import numpy as np

from transmodal.simulation.canvas import Canvas
from transmodal.simulation.shapes import Triple, capsule, sphere
from transmodal.simulation.tissues import Tissue

_EYE: Triple = (32.0, 60.5, -39.0)
_APEX: Triple = (14.0, 22.0, -33.0)
_EYE_RADIUS = 13.0


def paint_orbits(canvas: Canvas) -> None:
    """Paint both orbits."""
    block = canvas.crop((-58, 8, -65), (58, 95, -12))
    folded = block.mirrored
    inside = ~block.is_any(Tissue.BACKGROUND, Tissue.SKIN)
    cone = capsule(folded, (33, 54, -39), (15, 22, -33), 18.5, 4.5)
    wall = (cone < 1.5) & (block.y < 60) & inside
    block.paint(wall & (cone > 0) & ~block.is_any(Tissue.SINUS_AIR), Tissue.CORTICAL_BONE)
    block.paint((cone <= 0) & inside, Tissue.FAT)
    for direction in ((0.0, 1.0), (0.0, -1.0), (1.0, 0.0), (-1.0, 0.0)):
        _paint_muscle(block, direction)
    block.paint(capsule(folded, (29, 50, -38), _APEX, 2.4, 2.2) < 0, Tissue.WHITE_MATTER)
    globe = sphere(folded, _EYE, _EYE_RADIUS)
    lids = ~block.is_any(Tissue.BACKGROUND)
    block.paint((globe < 0) & lids, Tissue.MUSCLE)
    block.paint((globe < -1.4) & lids, Tissue.EYE)
    x, y, z = folded
    lens = sphere((x, (y - np.float32(69.5)) * np.float32(2.0) + np.float32(69.5), z), (32, 69.5, -39), 5.0)
    block.paint(lens < 0, Tissue.LENS)


def _paint_muscle(block: Canvas, direction: tuple[float, float]) -> None:
    """One straight muscle, from the apex around the back of the eye."""
    dx, dz = direction
    belly: Triple = (26.0 + 11 * dx, 44.0, -37.0 + 11 * dz)
    front: Triple = (_EYE[0] + 12.5 * dx, 62.0, _EYE[2] + 12.5 * dz)
    rear = capsule(block.mirrored, _APEX, belly, 1.5, 2.6)
    block.paint(np.minimum(rear, capsule(block.mirrored, belly, front, 2.6, 1.2)) < 0, Tissue.MUSCLE)
