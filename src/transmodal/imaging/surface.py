"""The surface of a mask or of what is bright in an image, and points that are spread evenly over it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from transmodal.core.errors import DataError
from transmodal.core.volume import Affine, Volume

# Blurs the steps of voxels, in voxels; it moves the surface of a ball of 20 voxels by a hundredth of a voxel.
_BLUR = 0.7
# No voxel is nearer to the level of a closed surface than this share of the range of the image. A point of the surface then has its own
# place beside that voxel, even in the 32 bits of a file, where triangles of no size would open the surface.
_LEAST_STEP = 2e-4


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles in space.

    Parameters
    ----------
    points : ndarray, shape (n, 3)
        RAS+ mm.
    faces : ndarray, shape (m, 3)
        Rows of `points`, counter-clockwise as seen from outside.
    """

    points: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "m 3"]


def extract_surface(mask: Volume) -> Surface:
    """Lay triangles over a mask by marching cubes (Lorensen and Cline, SIGGRAPH 1987), between its voxels and those around it.

    Where the mask reaches the border of the grid, the anatomy goes on and the field of view ends: there the surface stays open, without
    the flat face that a cut would have and without the points on the border itself.

    Parameters
    ----------
    mask : Volume
        On any grid of at least two voxels along each axis.

    Returns
    -------
    Surface
        Within about half a voxel of the true outline, with a point every voxel or so.

    Raises
    ------
    DataError
        If the mask has no surface inside the grid: it is empty, or fills the grid.
    """
    from scipy.ndimage import gaussian_filter

    inside = np.asarray(mask.array) > 0
    if min(mask.shape) < 2:
        raise DataError(f"a mask of {mask.grid.describe()} has no surface; two voxels along each axis are the least")
    if inside.all() or not inside.any():
        state = "empty" if not inside.any() else "full"
        raise DataError(f"a mask of {mask.grid.describe()} is {state}, so it has no surface; check that it belongs to this scan")
    # Beyond the border the mask goes on as it is there, so that the blur makes no end of it.
    blurred = gaussian_filter(inside.astype(np.float32), _BLUR, mode="nearest")
    low, high = float(blurred.min()), float(blurred.max())
    level = 0.5 if low < 0.5 < high else (low + high) / 2  # of specks, and of holes
    vertices, faces = _march(blurred, level, mask.affine, "lewiner")
    kept = np.all((vertices > 0) & (vertices < np.array(mask.shape) - 1), axis=1)
    if not kept.any():
        raise DataError(f"a mask of {mask.grid.describe()} has no surface but on the border of the grid; take a wider field of view")
    faces = (np.cumsum(kept) - 1)[faces[kept[faces].all(axis=1)]]
    return Surface(mask.grid.to_world(vertices[kept]), faces)


def closed_surface(volume: Volume, level: float) -> Surface:
    """Lay triangles around all that is above a level, by marching cubes on the voxels as they are.

    Along each edge of the grid the image is taken as linear, so the surface lies where it crosses the level, between the voxels. Where the
    bright part reaches the border of the grid the surface is closed by a flat face, half a voxel beyond the last voxels. The triangles
    are those of Lorensen and Cline, where every edge belongs to exactly two; with those of Lewiner (J Graph Tools 2003;8:1) a few
    belong to four.

    Parameters
    ----------
    volume : Volume
        An image, in whose unit `level` is; or a mask, with a level of 0.5, whose surface then has the steps of its voxels.
    level : float
        A voxel of just this value is outside.

    Returns
    -------
    Surface
        Watertight, of as many pieces as there are; the faces around a cavity look into it.

    Raises
    ------
    DataError
        If nothing is above the level.
    """
    above = np.asarray(volume.array, dtype=np.float32) - np.float32(level)
    if not (above > 0).any():
        raise DataError(f"nothing in this {volume.modality} of {volume.grid.describe()} is above {level:g}, so it has no surface")
    # As far below the level as the voxel at the border is from it: where that is above, the level is crossed half-way.
    closed = -np.abs(np.pad(above, 1, mode="edge"))
    closed[1:-1, 1:-1, 1:-1] = above
    least = np.float32(_LEAST_STEP) * np.ptp(closed)
    closed = np.where(np.abs(closed) < least, np.where(closed > 0, least, -least), closed)
    vertices, faces = _march(closed, 0.0, volume.affine, "lorensen")
    return Surface(volume.grid.to_world(vertices - 1), faces)


def _march(
    image: Float[np.ndarray, "x y z"], level: float, affine: Affine, method: Literal["lewiner", "lorensen"]
) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, "m 3"]]:
    """Marching cubes: vertices in voxels, and faces that run counter-clockwise as seen from outside in the space of `affine`."""
    from skimage.measure import marching_cubes

    vertices, faces, _, _ = marching_cubes(image, level, method=method)
    # Theirs run clockwise as seen from outside, and a left-handed grid mirrors them.
    return vertices, faces if np.linalg.det(affine[:3, :3]) < 0 else faces[:, ::-1]


def spread_evenly(points: Float[np.ndarray, "n 3"], count: int) -> tuple[Int[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Choose points one by one, each as far as can be from those before it (Gonzalez, Theor Comput Sci 1985;38:293).

    Parameters
    ----------
    points : ndarray, shape (n, 3)
        At least one, in mm.
    count : int
        How many are chosen, if there are as many.

    Returns
    -------
    chosen : ndarray, shape (m,)
        Rows of `points`. The first k of them are spread evenly for every k.
    gaps : ndarray, shape (m,)
        How far each is from those before it, in mm: none is further apart from the chosen points up to it. It falls from infinity.
    """
    columns = np.ascontiguousarray(points.T, dtype=np.float32)
    nearest = np.full(columns.shape[1], np.inf, dtype=np.float32)
    chosen, gaps = [], []
    index = int(((columns - columns.mean(axis=1, keepdims=True)) ** 2).sum(axis=0).argmax())
    for _ in range(min(count, columns.shape[1])):
        chosen.append(index)
        gaps.append(nearest[index])
        np.minimum(nearest, ((columns - columns[:, index : index + 1]) ** 2).sum(axis=0), out=nearest)
        index = int(nearest.argmax())
    return np.array(chosen), np.sqrt(np.array(gaps, dtype=np.float64))
