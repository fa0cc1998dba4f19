"""A procedural head: its grid, and the anatomy that its parameters give."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float, UInt8

from transmodal.core.volume import Grid, Volume
from transmodal.simulation.brain import paint_brain
from transmodal.simulation.canvas import Canvas
from transmodal.simulation.cranium import make_cranium, paint_skull
from transmodal.simulation.face import paint_face
from transmodal.simulation.neck import paint_airway, paint_spine
from transmodal.simulation.noise import Noise
from transmodal.simulation.orbit import paint_orbits
from transmodal.simulation.parameters import HeadConfig, Vector
from transmodal.simulation.scalp import paint_soft_tissue
from transmodal.simulation.shapes import Points
from transmodal.simulation.tissues import BONE, BRAIN, Tissue

# Corners, in anatomy mm, of the block that holds a head from the vertex to below the chin.
_LOW = np.array((-94.0, -121.0, -154.0))
_HIGH = np.array((94.0, 112.0, 101.0))
# Above this height the head is skull, below it face, which `HeadConfig.face_length` stretches.
_FACE_TOP = -30.0
# Painted at a time: few enough for their arrays to stay in the cache of a processor.
_BLOCK_VOXELS = 300_000


def head_grid(shape: tuple[int, int, int], config: HeadConfig | None = None, spacing_mm: float | None = None) -> Grid:
    """Lay a grid of isotropic voxels over a head.

    Parameters
    ----------
    shape : tuple of int
        Number of voxels along (x, y, z), which run to the right, the front and the top.
    config : HeadConfig, optional
        The head to cover; an average adult by default.
    spacing_mm : float, optional
        Voxel size; by default the one with which the shape just holds the head. A smaller one cuts the head off below, as scans do.
    """
    config = config or HeadConfig()
    low, high = (np.array(config.scale) * corner for corner in (_stretch(_LOW, config), _stretch(_HIGH, config)))
    low, high = low + config.shift_mm, high + config.shift_mm
    spacing = spacing_mm or float(((high - low) / shape).max())
    extent = spacing * (np.array(shape) - 1)
    origin = (low + high - extent) / 2
    origin[2] = high[2] - extent[2]
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = origin
    return Grid(shape, affine)


def _stretch(corner: Float[np.ndarray, "3"], config: HeadConfig) -> Float[np.ndarray, "3"]:
    z = corner[2]
    return np.array((corner[0], corner[1], z if z > _FACE_TOP else _FACE_TOP + (z - _FACE_TOP) * config.face_length))


def simulate_anatomy(config: HeadConfig, grid: Grid, seed: int) -> Volume:
    """Compute the tissues of a head on a grid.

    Everything is a function of a point's anatomy coordinates, so the same parameters and seed give the same head on every grid.

    Parameters
    ----------
    config : HeadConfig
    grid : Grid
        Any grid; `head_grid` makes one that covers the head.
    seed : int
        Of the smooth random fields: folds of the cortex, thickness of the skull, cells of the mastoid.

    Returns
    -------
    Volume
        Labels: `Tissue` numbers, uint8.
    """
    noise = Noise(seed)
    labels = np.full(grid.shape, Tissue.BACKGROUND, dtype=np.uint8)
    thickness = max(1, _BLOCK_VOXELS // (grid.shape[1] * grid.shape[2]))
    starts = range(0, grid.shape[0], thickness)
    with ThreadPoolExecutor(min(len(starts), os.cpu_count() or 1)) as pool:
        list(pool.map(lambda start: _paint_block(config, grid, labels, slice(start, start + thickness), noise), starts))
    _keep_brain_off_bone(labels)
    return Volume(labels, grid.affine, "labels")


def _paint_block(config: HeadConfig, grid: Grid, labels: UInt8[np.ndarray, "x y z"], block: slice, noise: Noise) -> None:
    """Paint a stretch of the grid along its first axis: every point by itself, inner parts over outer ones."""
    x, y, z = _anatomy_coordinates(config, grid, block, noise)
    canvas = Canvas(x, y, z, labels[block], float(1 / np.mean(config.scale)))
    cranium = make_cranium(canvas, config, noise)
    paint_soft_tissue(canvas, config, cranium, noise)
    paint_airway(canvas)
    paint_face(canvas, config, noise)
    paint_skull(canvas, config, cranium, noise)
    paint_spine(canvas)
    paint_brain(canvas, config, noise)
    paint_orbits(canvas)


def _anatomy_coordinates(config: HeadConfig, grid: Grid, block: slice, noise: Noise) -> Points:
    """Undo pose, size, warp and the stretch of the face for the voxels of a block."""
    to_head = _rotation(config.rotation_deg).T / np.array(config.scale)[:, None]
    matrix = to_head @ grid.affine[:3, :3]
    offset = to_head @ (grid.affine[:3, 3] - np.array(config.shift_mm))
    i, j, k = np.ogrid[block.start : min(block.stop, grid.shape[0]), : grid.shape[1], : grid.shape[2]]
    x, y, z = ((m[0] * i + m[1] * j + (m[2] * k + o)).astype(np.float32) for m, o in zip(matrix, offset, strict=True))
    x, y, z = _warp((x, y, z), config.warp_mm, noise.generator("warp"))
    return x, y, np.where(z < _FACE_TOP, _FACE_TOP + (z - _FACE_TOP) * np.float32(1 / config.face_length), z)


def _rotation(degrees: Vector) -> Float[np.ndarray, "3 3"]:
    """Rotation about x, then y, then z."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()


def _warp(points: Points, amplitude: float, rng: np.random.Generator) -> Points:
    """Shift each coordinate by a product of long waves along the two others."""
    warped = []
    for axis, coordinate in enumerate(points):
        first, second = (points[other] for other in range(3) if other != axis)
        k1, k2 = (2 * np.pi / rng.uniform(140, 260, 2)).astype(np.float32)
        phase1, phase2 = rng.uniform(0, 2 * np.pi, 2).astype(np.float32)
        warped.append(coordinate + np.float32(amplitude) * np.sin(first * k1 + phase1) * np.sin(second * k2 + phase2))
    return warped[0], warped[1], warped[2]


def _keep_brain_off_bone(labels: UInt8[np.ndarray, "x y z"]) -> None:
    """Put fluid where the grid is too coarse to show the fluid between brain and bone."""
    from scipy import ndimage

    near_bone = np.asarray(ndimage.binary_dilation(np.isin(labels, BONE), structure=ndimage.generate_binary_structure(3, 1)), dtype=bool)
    labels[near_bone & np.isin(labels, BRAIN)] = Tissue.CSF
