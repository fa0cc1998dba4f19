"""A scan as the head is sought in it: coarse, upright, without padding, its intensities from 0 to 1."""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float

from transmodal.core.errors import DataError
from transmodal.core.volume import Grid, Volume
from transmodal.imaging.grid import isotropic_grid, resample
from transmodal.imaging.head_template import Points

Image = Float[np.ndarray, "x y z"]
Mask = Bool[np.ndarray, "x y z"]

_WORKING_MM = 8.0
# Voxels are averaged down to no more than this before they are interpolated, which is quick.
_AVERAGED_MM = 4.0
# The HU between which CTs of heads differ from each other least: air, soft tissue and bone count, metal and tables hardly.
_CT_RANGE = (-300.0, 800.0)
# Constant planes at the border are padding if the plane next to them holds this share of what the fullest one does.
_CUT_SHARE = 0.35


@final
@dataclass(frozen=True, eq=False)
class WorkingCopy:
    """A scan as it is fitted: coarse, upright, its intensities stretched to 0 to 1.

    Parameters
    ----------
    volume : Volume
    inside : ndarray, shape (x, y, z)
        Where the scan has voxels that are no padding.
    """

    volume: Volume
    inside: Mask

    @property
    def values(self) -> Image:
        """The intensities, from 0 to 1."""
        return np.asarray(self.volume.array)

    @property
    def points(self) -> Points:
        """Where the voxels inside are, in mm."""
        return self.volume.grid.to_world(np.argwhere(self.inside).astype(float))


def working_copy(scan: Volume) -> WorkingCopy:
    """Make the copy of a scan in which its head is sought.

    Raises
    ------
    DataError
        If the scan is too small, or constant at this resolution.
    """
    seen = _without_padding(_averaged(scan))
    if scan.modality == "ct":
        seen = seen.with_array(np.clip(seen.array, *_CT_RANGE))
    grid = isotropic_grid(seen.grid, _WORKING_MM, upright=True)
    inside = field_of_view(seen.grid, grid)
    values = np.asarray(resample(seen, grid).array)
    if min(grid.shape) < 2 or not inside.any():
        raise DataError("too little of a scan, or of what it shows, to find a head in; give the whole of it")
    low, high = np.percentile(values[inside], (1, 99))
    if high <= low:
        raise DataError("nothing can be seen in it: it has one intensity, but for specks; export it again")
    return WorkingCopy(Volume(np.clip((values - low) / (high - low), 0, 1), grid.affine, "mr"), inside)


def _averaged(scan: Volume) -> Volume:
    """Average blocks of voxels that are finer than what is needed."""
    blocks = [max(1, int(_AVERAGED_MM / spacing + 1e-6)) for spacing in scan.spacing]
    counts = [max(1, n // block) for n, block in zip(scan.shape, blocks, strict=True)]
    blocks = [min(block, n) for block, n in zip(blocks, scan.shape, strict=True)]
    kept = np.asarray(scan.array)[tuple(slice(n * block) for n, block in zip(counts, blocks, strict=True))]
    (a, b, c), (i, j, k) = counts, blocks
    affine = scan.affine.copy()
    affine[:3, :3] *= blocks
    affine[:3, 3] = scan.grid.to_world((np.array(blocks) - 1) / 2)
    return Volume(kept.reshape(a, i, b, j, c, k).mean(axis=(1, 3, 5), dtype=np.float32), affine, scan.modality)


def _without_padding(scan: Volume) -> Volume:
    """Take off constant planes in which the head ends abruptly: they lie beyond what was scanned, and say nothing of what is there."""
    values = np.asarray(scan.array)
    low, high = float(values.min()), float(np.percentile(values, 99))
    lit = values > low + 0.1 * (high - low)
    kept, corner = [], []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        varied = np.flatnonzero(values.max(axis=others) > values.min(axis=others))
        area = lit.sum(axis=others)
        first, last = (int(varied[0]), int(varied[-1])) if len(varied) else (0, scan.shape[axis] - 1)
        # The planes next to the border may hold an average of the head and the padding.
        start = first if area[min(first + 1, last)] > _CUT_SHARE * area.max() else 0
        stop = last + 1 if area[max(last - 1, first)] > _CUT_SHARE * area.max() else scan.shape[axis]
        kept.append(slice(start, stop))
        corner.append(start)
    affine = scan.affine.copy()
    affine[:3, 3] = scan.grid.to_world(np.array(corner, dtype=float))
    left = values[tuple(kept)]
    return Volume(left, affine, scan.modality) if left.min() < left.max() else scan


def field_of_view(source: Grid, grid: Grid) -> Mask:
    """Which points of a grid lie within another."""
    indices = source.to_voxel(grid.to_world(np.moveaxis(np.indices(grid.shape, dtype=float), 0, -1)))
    return np.all((indices > -0.5) & (indices < np.array(source.shape) - 0.5), axis=-1)
