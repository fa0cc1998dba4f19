"""Transforms of a whole head, with the truth written down: the misalignment of a pair, and new subjects from one label map."""

from functools import lru_cache

import numpy as np
from jaxtyping import Float

from transmodal.core.config import Config
from transmodal.core.volume import Grid, Volume
from transmodal.imaging.grid import resample
from transmodal.simulation.noise import SmoothField, band_noise

# Wavelength of the smooth part, and half the width of the cube in which it varies.
_WAVELENGTH_MM = 70.0
_REACH_MM = 220.0

Row = tuple[float, float, float, float]


class HeadTransform(Config):
    """Where the anatomy of an image goes.

    A point p of the image before (in RAS+ mm) lies at ``matrix @ p`` afterwards. With a smooth part, what is seen at q afterwards is
    what was at p + u(p) before, with p = inverse(matrix) @ q and u a field of standard deviation `warp_mm` along each axis.
    A registration that aligns the moved image (as the moving one) with the original (as the fixed one) therefore finds `matrix`.

    Parameters
    ----------
    matrix : 4 rows of 4
        Affine, RAS+ mm to RAS+ mm.
    center : tuple of float
        The middle of the region in which u varies.
    warp_mm : float
        0 for an affine transform.
    warp_seed : int
        Draws u.
    """

    matrix: tuple[Row, Row, Row, Row]
    center: tuple[float, float, float]
    warp_mm: float = 0.0
    warp_seed: int = 0

    def forward(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Where points go, but for the smooth part."""
        return _apply(np.array(self.matrix), points)

    def backward(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Where what is seen at some points came from, the smooth part included: exact."""
        before = _apply(np.linalg.inv(np.array(self.matrix)), points)
        if self.warp_mm == 0:
            return before
        columns = before.astype(np.float32).T[:, :, None, None]
        shift = [field((columns[0], columns[1], columns[2])).ravel() for field in _warp_fields(self.warp_seed, self.center)]
        return before + self.warp_mm * np.stack(shift, axis=1)


@lru_cache(maxsize=1)
def _warp_fields(seed: int, center: tuple[float, float, float]) -> tuple[SmoothField, ...]:
    rng = np.random.default_rng(seed)
    x, y, z = center
    low, high = (x - _REACH_MM, y - _REACH_MM, z - _REACH_MM), (x + _REACH_MM, y + _REACH_MM, z + _REACH_MM)
    return tuple(band_noise(rng, _WAVELENGTH_MM, low, high) for _ in range(3))


def draw_transform(
    rng: np.random.Generator,
    grid: Grid,
    *,
    translation_mm: float = 0.0,
    rotation_deg: float = 0.0,
    scale_spread: float = 0.0,
    warp_mm: float = 0.0,
) -> HeadTransform:
    """Draw a transform about the middle of a grid.

    Parameters
    ----------
    rng : numpy.random.Generator
    grid : Grid
    translation_mm, rotation_deg : float
        Exact length of the shift and exact angle of the rotation, in directions drawn at random.
    scale_spread : float
        Standard deviation of the scaling along each axis.
    warp_mm : float
        Standard deviation of the smooth part along each axis.
    """
    from scipy.spatial.transform import Rotation

    shift, axis = (vector / np.linalg.norm(vector) for vector in rng.standard_normal((2, 3)))
    scale = np.exp(rng.normal(0, scale_spread, 3))
    linear = Rotation.from_rotvec(np.deg2rad(rotation_deg) * axis).as_matrix() * scale
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = grid.center - linear @ grid.center + translation_mm * shift
    rows = tuple(tuple(float(value) for value in row) for row in matrix)
    return HeadTransform.model_validate(
        {"matrix": rows, "center": tuple(grid.center), "warp_mm": warp_mm, "warp_seed": int(rng.integers(2**31))}
    )


def move(volume: Volume, transform: HeadTransform, fill: float) -> Volume:
    """Resample an image, on its own grid, as it looks after a transform.

    Parameters
    ----------
    volume : Volume
        Labels and masks are read at the nearest voxel, images by cubic splines and within their own range.
    transform : HeadTransform
    fill : float
        Value of what comes from beyond the grid.
    """
    order = 0 if volume.modality in ("labels", "mask") else 3
    if transform.warp_mm == 0:
        placed = Volume(volume.array, np.array(transform.matrix) @ volume.affine, volume.modality)
        result = np.asarray(resample(placed, volume.grid, order=order, fill=fill).array)
    else:
        result = _pull(volume, transform, order, fill)
    array = np.asarray(volume.array)
    result = np.clip(result, min(array.min(), fill), max(array.max(), fill))
    return volume.with_array((np.rint(result) if array.dtype.kind in "iu" else result).astype(array.dtype))


def _pull(volume: Volume, transform: HeadTransform, order: int, fill: float) -> np.ndarray:
    from scipy import ndimage

    array = np.asarray(volume.array)
    source = ndimage.spline_filter(array, order).astype(np.float32) if order > 1 else array
    result = np.empty(volume.shape, dtype=np.float32 if order else array.dtype)
    for k in range(volume.shape[2]):  # a slice at a time: the coordinates of all voxels would fill the memory
        indices = np.indices((*volume.shape[:2], 1)).reshape(3, -1).T.astype(np.float64)
        indices[:, 2] = k
        origin = volume.grid.to_voxel(transform.backward(volume.grid.to_world(indices)))
        values = ndimage.map_coordinates(source, origin.T, order=order, cval=fill, prefilter=False)
        result[:, :, k] = values.reshape(volume.shape[:2])
    return result


def _apply(matrix: Float[np.ndarray, "4 4"], points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    return points @ matrix[:3, :3].T + matrix[:3, 3]
