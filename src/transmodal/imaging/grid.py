"""Grids: from one to another, into the closest RAS+ order, and to a spacing."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Shaped

from transmodal.core.volume import Affine, Array3D, Grid, Volume

if TYPE_CHECKING:
    import SimpleITK

AIR_HU = -1024.0
# A Gaussian narrower than this, in voxels, changes nothing that can be seen.
_LEAST_BLUR = 0.1
_INTERPOLATORS = {0: "sitkNearestNeighbor", 1: "sitkLinear", 3: "sitkBSpline"}


@dataclass(frozen=True, eq=False)
class DisplacementField:
    """How far from each point on a grid, and in which direction, the value that belongs there is read; trilinear in between.

    Parameters
    ----------
    grid : Grid
        Beyond its field of view nothing is displaced.
    vectors : ndarray, shape (x, y, z, 3)
        RAS+ mm.
    """

    grid: Grid
    vectors: Float[np.ndarray, "x y z 3"]


def canonical(volume: Volume) -> Volume:
    """Permute and flip the array axes to the order closest to RAS+; voxels keep their values and their places."""
    import nibabel

    orientation = nibabel.orientations.io_orientation(volume.affine)
    array = nibabel.orientations.apply_orientation(volume.array, orientation)
    array = np.ascontiguousarray(array)  # not a flipped view, which torch refuses
    return Volume(array, volume.affine @ nibabel.orientations.inv_ornt_aff(orientation, volume.shape), volume.modality)


def isotropic_grid(grid: Grid, spacing_mm: float | tuple[float, float, float], *, upright: bool = False) -> Grid:
    """Lay a grid of a given spacing over the field of view of another, with the same centre and axes.

    Parameters
    ----------
    grid : Grid
        Oblique, left-handed and sheared grids are ordinary; a shear is taken out.
    spacing_mm : float or three floats
        Voxel size along the new axes, which run nearest to right, front and top.
    upright : bool
        Take axes that run exactly to right, front and top instead.

    Returns
    -------
    Grid
        With right-handed orthogonal axes, and as many voxels as cover the field of view.
    """
    spacing = np.broadcast_to(np.asarray(spacing_mm, dtype=np.float64), 3)
    axes = np.eye(3) if upright else _closest_ras(_orthogonal_axes(grid))
    ends = np.stack(np.meshgrid(*[(-0.5, n - 0.5) for n in grid.shape], indexing="ij"), axis=-1).reshape(8, 3)
    along = grid.to_world(ends) @ axes
    low, high = along.min(axis=0), along.max(axis=0)
    counts = np.maximum(np.ceil((high - low) / spacing - 1e-3), 1).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = axes @ ((low + high) / 2) - affine[:3, :3] @ ((counts - 1) / 2)
    return Grid((int(counts[0]), int(counts[1]), int(counts[2])), affine)


def shear_mm(grid: Grid) -> float:
    """How far the corners of a grid are from those of the nearest grid with orthogonal axes, the origin held, in mm."""
    difference = _orthogonal_axes(grid) * grid.spacing - grid.affine[:3, :3]
    ends = np.stack(np.meshgrid(*[(0, n - 1) for n in grid.shape], indexing="ij"), axis=-1).reshape(8, 3)
    return float(np.abs(ends @ difference.T).max())


def _orthogonal_axes(grid: Grid) -> Float[np.ndarray, "3 3"]:
    """Find the orthogonal matrix nearest to the directions of the voxel axes (polar decomposition)."""
    left, _, right = np.linalg.svd(grid.affine[:3, :3] / grid.spacing)
    return left @ right


def _closest_ras(axes: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    """Put axes into the order and the signs nearest to RAS+."""
    import nibabel

    order, sign = nibabel.orientations.io_orientation(np.block([[axes, np.zeros((3, 1))], [0, 0, 0, 1]])).T
    columns = np.argsort(order)
    return axes[:, columns] * sign[columns]


def resample(
    volume: Volume, grid: Grid, *, order: int = 1, fill: float | None = None, displaced: DisplacementField | None = None
) -> Volume:
    """Interpolate a volume onto another grid.

    Images are smoothed first along the axes on which the target is coarser, so that they do not alias: by the Gaussian that turns
    the point spread of the source, taken as one voxel wide at half height, into that of the target (Cardoso et al., "Scale factor
    point spread function matching", MICCAI 2015). Masks and labels take the nearest voxel.

    Parameters
    ----------
    volume : Volume
    grid : Grid
        Where values are wanted; any orientation, handedness and shear.
    order : {0, 1, 3}
        Nearest voxel, trilinear, or cubic B-spline. Masks and labels are always taken with 0.
    fill : float, optional
        The value outside the source: by default -1024 for CT, and 0 for the others, or the smallest value of an MR that has
        negative ones.
    displaced : DisplacementField, optional
        By default each value is read where it belongs.

    Returns
    -------
    Volume
        bool for a mask, the type of the source for labels, float32 for an MR or a CT.

    Raises
    ------
    ValueError
        If `order` is not 0, 1 or 3.
    """
    if order not in _INTERPOLATORS:
        raise ValueError(f"order = {order}; it must be one of {sorted(_INTERPOLATORS)}")
    discrete = order == 0 or volume.modality in ("mask", "labels")
    dtype = {"mask": np.dtype(bool), "labels": volume.array.dtype}.get(volume.modality, np.dtype(np.float32))
    if displaced is None and volume.grid.matches(grid):
        return Volume(volume.array.astype(dtype, copy=False), grid.affine, volume.modality)
    array = volume.array.astype(np.uint8 if volume.modality == "mask" else dtype, copy=False)
    if not discrete:
        array = _blur(array, np.linalg.inv(volume.affine) @ grid.affine)
    sampled = _sample(array, _to_source(volume.grid, grid, displaced), grid.shape, 0 if discrete else order, _fill(volume, fill))
    return Volume(sampled.astype(dtype, copy=False), grid.affine, volume.modality)


def _fill(volume: Volume, fill: float | None) -> float:
    if fill is not None:
        return fill
    if volume.modality == "ct":
        return AIR_HU
    return min(0.0, float(volume.array.min())) if volume.modality == "mr" else 0.0


def _to_source(source: Grid, grid: Grid, displaced: DisplacementField | None) -> "SimpleITK.Transform":
    """Indices of `grid` to those of `source`: by way of those of the field, if there is one.

    SimpleITK works here in index space, where spacing is 1 and direction the identity, so that handedness and shear are of no concern.
    """
    import SimpleITK

    if displaced is None:
        return _affine_transform(np.linalg.inv(source.affine) @ grid.affine)
    to_field = np.linalg.inv(displaced.grid.affine)
    steps = np.ascontiguousarray((displaced.vectors @ to_field[:3, :3].T).transpose(2, 1, 0, 3))
    field = SimpleITK.DisplacementFieldTransform(SimpleITK.GetImageFromArray(steps, isVector=True))
    from_field = _affine_transform(np.linalg.inv(source.affine) @ displaced.grid.affine)
    return SimpleITK.CompositeTransform([from_field, field, _affine_transform(to_field @ grid.affine)])  # the last one acts first


def _affine_transform(matrix: Affine) -> "SimpleITK.AffineTransform":
    import SimpleITK

    return SimpleITK.AffineTransform(matrix[:3, :3].ravel().tolist(), matrix[:3, 3].tolist())


def _sample(
    array: Array3D, to_source: "SimpleITK.Transform", shape: tuple[int, int, int], order: int, fill: float
) -> Shaped[np.ndarray, "new_x new_y new_z"]:
    """Values of `array` at the indices that `to_source` maps the indices of the result to; up to half a voxel beyond its border."""
    import SimpleITK

    interpolator = getattr(SimpleITK, _INTERPOLATORS[order])
    image = SimpleITK.GetImageFromArray(array.T)
    result = SimpleITK.Resample(image, shape, to_source, interpolator, (0.0,) * 3, (1.0,) * 3, np.eye(3).ravel().tolist(), fill)
    return SimpleITK.GetArrayFromImage(result).T


def _blur(array: Array3D, to_source: Affine) -> Array3D:
    """Widen the point spread along each axis from one source voxel to one target voxel, both at half height."""
    from scipy.ndimage import gaussian_filter

    step = np.linalg.norm(to_source[:3, :3], axis=1)  # source voxels that one target voxel spans along each source axis
    variance = (step**2 - 1) / (8 * np.log(2))
    if variance.max() < _LEAST_BLUR**2:
        return array
    return np.asarray(gaussian_filter(array, np.sqrt(np.maximum(variance, 0)), mode="nearest"))
