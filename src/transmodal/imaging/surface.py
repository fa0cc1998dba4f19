"""The surface of a mask, and points that are spread evenly over it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from transmodal.core.errors import DataError
from transmodal.core.volume import Volume

# Blurs the steps of voxels, in voxels; it moves the surface of a ball of 20 voxels by a hundredth of a voxel.
_BLUR = 0.7


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
    from skimage.measure import marching_cubes

    inside = np.asarray(mask.array) > 0
    if min(mask.shape) < 2:
        raise DataError(f"a mask of {mask.grid.describe()} has no surface; two voxels along each axis are the least")
    if inside.all() or not inside.any():
        state = "empty" if not inside.any() else "full"
        raise DataError(f"a mask of {mask.grid.describe()} is {state}, so it has no surface; check that it belongs to this scan")
    # Beyond the border the mask goes on as it is there, so that the blur makes no end of it.
    blurred = gaussian_filter(inside.astype(np.float32), _BLUR, mode="nearest")
    low, high = float(blurred.min()), float(blurred.max())
    vertices, faces, _, _ = marching_cubes(blurred, 0.5 if low < 0.5 < high else (low + high) / 2)  # of specks, and of holes
    kept = ((vertices > 0) & (vertices < np.array(mask.shape) - 1)).all(axis=1)
    if not kept.any():
        raise DataError(f"a mask of {mask.grid.describe()} has no surface but on the border of the grid; take a wider field of view")
    faces = (np.cumsum(kept) - 1)[faces[kept[faces].all(axis=1)]]
    # Theirs run clockwise as seen from outside, and a left-handed grid mirrors them.
    left_handed = np.linalg.det(mask.affine[:3, :3]) < 0
    return Surface(mask.grid.to_world(vertices[kept]), faces if left_handed else faces[:, ::-1])


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
