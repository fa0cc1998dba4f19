"""Stacks of parallel planes: whether they are a regular grid, why not, and how to make one of them.

A grid that readers assume from the first position and the spacing is wrong by up to several centimetres for a CT with a tilted
gantry, or with slices missing. Here each slice is where its own header puts it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from transmodal.core.errors import GeometryError
from transmodal.core.volume import Array3D, Grid
from transmodal.imaging.dicom_planes import Plane

# How far a slice may be from its place in a regular grid: positions are often rounded to a tenth of a millimetre.
POSITION_TOLERANCE_MM = 0.1
_SAME_PLACE_MM = 0.01
# Where a height is that of a slice, rounding leaves less than this to its neighbour.
_LEAST_SHARE = 1e-6
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Stack:
    """Parallel planes in order.

    Parameters
    ----------
    planes : tuple of Plane
        By ascending position along the normal, which is the cross product of the two cosines.
    axes : ndarray, shape (3, 3)
        Columns: the unit vectors along a row, down a column, and along the normal, LPS.
    offsets : ndarray, shape (n, 3)
        Where each plane begins relative to the first one, along these axes, in mm.
    """

    planes: tuple[Plane, ...] = field(repr=False)
    axes: Float[np.ndarray, "3 3"]
    offsets: Float[np.ndarray, "n 3"]

    @property
    def pixel_mm(self) -> Float[np.ndarray, "2"]:
        """Millimetres between columns (along a row), and between rows."""
        return np.array(self.planes[0].spacing[::-1])

    @property
    def gaps_mm(self) -> Float[np.ndarray, " gaps"]:
        """Millimetres along the normal between each plane and the next."""
        return np.diff(self.offsets[:, 2])

    @property
    def slice_mm(self) -> float:
        """Millimetres along the normal from one plane to the next on average."""
        return float(self.offsets[-1, 2] / (len(self.planes) - 1))

    def grid(self) -> Grid:
        """The regular grid from the first plane to the last one."""
        rows, columns = self.planes[0].shape
        return _grid(self, np.zeros(3), self.slice_mm, (columns, rows, len(self.planes)))


def stack(planes: Sequence[Plane]) -> Stack:
    """Put parallel planes in order.

    Raises
    ------
    GeometryError
        If there is only one, or two are in the same place.
    """
    if len(planes) < 2:
        raise GeometryError(f"{planes[0].name}: a single slice; a volume has at least two")
    along_row, down_column = planes[0].cosines
    normal = np.cross(along_row, down_column)
    down_column = np.cross(normal, along_row)  # exactly at right angles, whatever the rounding in the header
    axes = np.stack([along_row, down_column / np.linalg.norm(down_column), normal / np.linalg.norm(normal)], axis=1)
    along = np.array([plane.position for plane in planes]) @ axes
    order = np.argsort(along[:, 2], kind="stable")
    result = Stack(tuple(planes[k] for k in order), axes, along[order] - along[order[0]])
    _require_distinct(result)
    return result


def _require_distinct(stack: Stack) -> None:
    same = np.flatnonzero(stack.gaps_mm < _SAME_PLACE_MM)
    if same.size:
        one, other = stack.planes[same[0]], stack.planes[same[0] + 1]
        raise GeometryError(
            f"{same.size} of {len(stack.planes)} slices lie where another one does, such as {one.name} and {other.name} "
            "(a copy, another echo, phase or time point?); keep one of each"
        )


def irregularity(stack: Stack) -> str | None:
    """Say why planes are no regular grid at right angles, or None if they are."""
    ideal = np.arange(len(stack.planes))[:, None] * np.array([0.0, 0.0, stack.slice_mm])
    deviation = np.abs(stack.offsets - ideal).max(axis=0)
    if deviation.max() <= POSITION_TOLERANCE_MM:
        return None
    reasons = []
    if deviation[:2].max() > POSITION_TOLERANCE_MM:
        reasons.append(_describe_shift(stack))
    if deviation[2] > POSITION_TOLERANCE_MM:
        reasons.append(_describe_gaps(stack))
    return "; ".join(reasons)


def _describe_shift(stack: Stack) -> str:
    shift, height = np.linalg.norm(stack.offsets[-1, :2]), stack.offsets[-1, 2]
    tilt = np.degrees(np.arctan2(shift, height))
    return f"the slices are shifted against each other, by {shift:.1f} mm from the first to the last (a gantry tilt of {tilt:.1f} degrees?)"


def _describe_gaps(stack: Stack) -> str:
    gaps = stack.gaps_mm
    usual, k = float(np.median(gaps)), int(gaps.argmax())
    between = f"between {stack.planes[k].name} and {stack.planes[k + 1].name}"
    wide = gaps > usual + POSITION_TOLERANCE_MM
    multiples = gaps / usual
    if np.abs(multiples - np.rint(multiples)).max() * usual <= 2 * POSITION_TOLERANCE_MM:
        missing = int(np.rint(multiples - 1)[wide].sum())
        return f"{missing} missing slice{'s' * (missing > 1)}: {gaps[k]:.4g} mm {between}, {usual:.4g} mm elsewhere"
    return f"uneven gaps of {gaps.min():.4g} to {gaps.max():.4g} mm between slices, the widest {between}"


def regular_grid(stack: Stack) -> Grid:
    """The grid at right angles that covers all planes, with their pixels and axes, from the first plane to the last one.

    Its slices are about as far apart as the finest quarter of the gaps, so that a missing slice does not make it coarser, and a few
    slices that are very close do not make it huge.
    """
    rows, columns = stack.planes[0].shape
    height = stack.offsets[-1, 2]
    slices = np.ceil(height / np.quantile(stack.gaps_mm, 0.25, method="lower") - 1e-3)
    further = np.ceil(np.ptp(stack.offsets[:, :2], axis=0) / stack.pixel_mm - 1e-3)
    start = np.append(stack.offsets[:, :2].min(axis=0), 0.0)
    return _grid(stack, start, height / slices, (columns + int(further[0]), rows + int(further[1]), int(slices) + 1))


def _grid(stack: Stack, start: Float[np.ndarray, "3"], slice_mm: float, shape: tuple[int, int, int]) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = _LPS_TO_RAS @ stack.axes * np.append(stack.pixel_mm, slice_mm)
    affine[:3, 3] = _LPS_TO_RAS @ (stack.planes[0].position + stack.axes @ start)
    return Grid(shape, affine)


def regularize(stack: Stack, array: Array3D, grid: Grid, fill: float) -> Float[np.ndarray, "new_x new_y new_z"]:
    """Interpolate slices onto `regular_grid`: linearly within each slice, and linearly between the two slices on either side.

    Parameters
    ----------
    stack : Stack
    array : ndarray, shape (columns, rows, n)
        The slices, in the order of the stack.
    grid : Grid
        From `regular_grid`.
    fill : float
        The value where not both slices reach, so that every other value is one that was measured or lies between two.
    """
    heights = stack.offsets[:, 2]
    # The grid starts at the least offset in the plane, so that every slice begins at or after its first voxel.
    starts = (stack.offsets[:, :2] - stack.offsets[:, :2].min(axis=0)) / stack.pixel_mm
    result = np.empty(grid.shape, dtype=np.float32)
    for k in range(grid.shape[2]):
        shares = _shares(heights, k * grid.spacing[2])
        placed = [share * _place(array[:, :, n], starts[n], grid.shape[:2]) for n, share in shares.items()]
        result[:, :, k] = np.nan_to_num(sum(placed), nan=fill)
    return result


def _shares(heights: Float[np.ndarray, " n"], height: float) -> dict[int, float]:
    """Which slices a height lies between, and how much each counts."""
    below = min(int(np.searchsorted(heights, height, side="right")) - 1, len(heights) - 2)
    above = (height - heights[below]) / (heights[below + 1] - heights[below])
    shares = {below: 1 - above, below + 1: above}
    return {n: float(share) for n, share in shares.items() if share > _LEAST_SHARE}


def _place(image: Float[np.ndarray, "x y"], start: Float[np.ndarray, "2"], shape: tuple[int, int]) -> Float[np.ndarray, "u v"]:
    """Put a slice into a larger plane at a fractional offset in pixels, with NaN around it."""
    from scipy.ndimage import affine_transform

    to_image = np.eye(3)
    to_image[:2, 2] = -start
    return affine_transform(image, to_image, output_shape=shape, order=1, cval=np.nan, mode="constant")
