"""Cervical vertebrae, discs, the spinal canal and its cord, and the airway below the mouth."""

from itertools import pairwise

import numpy as np

from transmodal.simulation.canvas import Canvas
from transmodal.simulation.shapes import Distance, capsule, chain, ellipsoid, smooth_union
from transmodal.simulation.tissues import Tissue

# Heights of the middle of the vertebral bodies from the axis (C2) downwards, and the distance between two of them, in anatomy mm.
_PITCH = 17.0
_LEVELS = [-106.0 - _PITCH * level for level in range(8)]


def _canal_y(z: float) -> float:
    """How far forward the middle of the spinal canal lies: the lordosis of the neck."""
    return -46.0 + 5.0 * float(np.sin((-z - 75) / 45))


def paint_spine(canvas: Canvas) -> None:
    """Paint vertebrae and discs, and the canal with the cord, which opens the skull at the foramen magnum."""
    block = canvas.crop((-40, -105, -260), (40, 5, -60))
    points = block.points
    atlas = _atlas(block)
    axis = smooth_union(_vertebra(block, _LEVELS[0]), capsule(points, (0, -30, -104), (0, -27, -80), 6.5, 5), 3)
    bones = [atlas, axis, *(_vertebra(block, z) for z in _LEVELS[1:])]
    for upper, lower in pairwise(_LEVELS):
        z = (upper + lower) / 2
        block.paint(ellipsoid(points, (0, _canal_y(z) + 18, z), (11, 9, 5), exponent=3) < 0, Tissue.CARTILAGE)
    bone = np.minimum.reduce(bones)
    block.paint(bone < 0, Tissue.CORTICAL_BONE)
    block.paint(bone < -1.3 * block.unit, Tissue.DIPLOE)
    canal = chain(points, [(0, _canal_y(z), z) for z in (-70.0, -100.0, -130.0, -160.0, -190.0, -260.0)], [12.0, 9.5, 9, 9, 9, 9])
    block.paint(canal < 0, Tissue.CSF)
    cord = chain(points, [(0, _canal_y(z), z) for z in (-60.0, -100.0, -130.0, -160.0, -190.0, -260.0)], [5.5, 5, 5, 5, 5, 5])
    block.paint(cord < 0, Tissue.WHITE_MATTER)


def _vertebra(block: Canvas, z: float) -> Distance:
    y = _canal_y(z)
    folded, points = block.mirrored, block.points
    body = ellipsoid(points, (0, y + 18, z), (13, 10, 7.4), exponent=3.5)
    arch = np.abs(ellipsoid(points, (0, y, z - 2), (15, 13, 40))) - np.float32(3)
    arch = np.maximum(arch, np.abs(block.z - (z - 2)) - np.float32(5.5))
    spine = capsule(points, (0, y - 13, z - 3), (0, y - 33, z - 9), 3.5, 4)
    masses = ellipsoid(folded, (20, y + 2, z), (8, 8, 8.2), exponent=3)
    wings = capsule(folded, (18, y + 8, z), (30, y + 8, z - 2), 4, 3.5)
    return np.minimum(smooth_union(body, np.minimum(arch, spine), 3), np.minimum(masses, wings))


def _atlas(block: Canvas) -> Distance:
    folded, points = block.mirrored, block.points
    ring = np.abs(ellipsoid(points, (0, -42, -90), (21, 24, 60))) - np.float32(3.5)
    ring = np.maximum(ring, np.abs(block.z + 90) - np.float32(5))
    masses = ellipsoid(folded, (21, -36, -89), (8, 10, 8), exponent=3)
    wings = capsule(folded, (24, -40, -90), (42, -40, -90), 5, 4)
    return np.minimum(np.minimum(ring, masses), wings)


def paint_airway(canvas: Canvas) -> None:
    """Nasopharynx, throat and windpipe: air within a wall of mucosa."""
    block = canvas.crop((-20, -35, -260), (20, 45, -50))
    nodes = [(0, 32, -70), (0, 6, -76), (0, -2, -110), (0, 2, -150), (0, 6, -260)]
    squeezed = (block.x * np.float32(0.75), block.y, block.z)
    airway = chain(squeezed, nodes, [9, 8, 6, 7, 8])
    block.paint(airway < 3, Tissue.MUCOSA)
    block.paint(airway < 0, Tissue.SINUS_AIR)
