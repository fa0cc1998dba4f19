"""The one carrier of voxels and geometry: an immutable array on an affine grid."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float, Int16, Shaped

from transmodal.core.errors import DataError, GeometryError

Modality = Literal["mr", "ct", "mask", "labels", "uncertainty", "dose", "map"]
Direction = Literal["mr2ct", "ct2mr"]
# What a method makes of a scan: the other modality, or a mask of the bone.
Product = Literal["image", "bone"]
Array3D = Shaped[np.ndarray, "x y z"]
Affine = Float[np.ndarray, "4 4"]

# Two grids are one grid when no corner of them is further apart than this.
GRID_TOLERANCE_MM = 1e-3


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular lattice of points in space.

    Parameters
    ----------
    shape : tuple of int
        Number of voxels along the three array axes (x, y, z).
    affine : ndarray, shape (4, 4)
        Maps voxel indices to RAS+ millimetres (x to the right, y to the front, z to the top of the patient). Left-handed, oblique
        and anisotropic grids are ordinary.

    Raises
    ------
    GeometryError
        If the affine is not finite, is singular, or its last row is not (0, 0, 0, 1).
    """

    shape: tuple[int, int, int]
    affine: Affine

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        if len(shape) != 3 or min(shape) < 1:
            raise GeometryError(f"a grid needs three axes of at least one voxel; this one has the shape {shape}")
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError(f"the affine must be 4x4 and finite; it is {affine.tolist()}")
        if not np.allclose(affine[3], (0, 0, 0, 1)):
            raise GeometryError(f"the last row of the affine must be 0 0 0 1; it is {affine[3].tolist()}")
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        # The determinant of the unit axes is the volume that they span: 1 for a box, 0 for parallel axes.
        if lengths.min() < 1e-6 or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-4:
            raise GeometryError(f"the affine is singular (voxel axes of {lengths.tolist()} mm); set a valid orientation in the header")
        affine.flags.writeable = False
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in mm between neighbouring voxels along each array axis."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @cached_property
    def axis_codes(self) -> str:
        """The anatomical direction that each array axis most nearly runs towards, such as ``"RAS"`` or ``"LIA"``."""
        import nibabel

        return "".join(nibabel.orientations.aff2axcodes(self.affine))

    @cached_property
    def center(self) -> Float[np.ndarray, "3"]:
        """The middle of the grid, in RAS+ mm."""
        return self.to_world((np.array(self.shape) - 1) / 2)

    def to_world(self, indices: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """Voxel indices (which may be fractional) to RAS+ mm."""
        return np.asarray(indices, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_voxel(self, points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """RAS+ mm to fractional voxel indices."""
        return (np.asarray(points, dtype=np.float64) - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T

    def corners(self) -> Float[np.ndarray, "8 3"]:
        """The centres of the eight corner voxels, in RAS+ mm."""
        ends = [(0, n - 1) for n in self.shape]
        return self.to_world(np.array(np.meshgrid(*ends, indexing="ij"), dtype=np.float64).reshape(3, 8).T)

    def matches(self, other: "Grid", tolerance_mm: float = GRID_TOLERANCE_MM) -> bool:
        """Whether both grids have the same shape and the same corners."""
        return self.shape == other.shape and bool(np.abs(self.corners() - other.corners()).max() <= tolerance_mm)

    def describe(self) -> str:
        """One line for messages: shape, spacing, orientation, origin."""
        shape = "x".join(str(n) for n in self.shape)
        spacing = "x".join(f"{s:.4g}" for s in self.spacing)
        origin = ", ".join(f"{v:.2f}" for v in self.affine[:3, 3])
        return f"{shape} voxels of {spacing} mm, {self.axis_codes}, origin ({origin}) mm"


@dataclass(frozen=True, eq=False)
class Volume:
    """An image of a head: voxels, where they are, and what they mean.

    Parameters
    ----------
    array : ndarray, shape (x, y, z)
        The voxels: HU for ``ct``, arbitrary units for ``mr``, bool or 0/1 for ``mask``, class numbers for ``labels``, standard
        deviations in the unit of the image that they belong to for ``uncertainty``, Gy for ``dose``, for ``map`` whatever the record
        beside the file says. The volume holds a read-only view of it.
    affine : ndarray, shape (4, 4)
        Voxel indices to RAS+ mm; see `Grid`.
    modality : {"mr", "ct", "mask", "labels", "uncertainty", "dose", "map"}

    Raises
    ------
    GeometryError
        If the array is not three-dimensional or the affine is not usable.
    """

    array: Array3D
    affine: Affine
    modality: Modality

    def __post_init__(self) -> None:
        array = np.asarray(self.array).view()
        if array.ndim != 3:
            raise GeometryError(f"a volume has three axes; this array has the shape {array.shape}")
        array.flags.writeable = False
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "affine", self.grid.affine)

    @cached_property
    def grid(self) -> Grid:
        """The lattice that the voxels lie on."""
        x, y, z = np.asarray(self.array).shape
        return Grid((x, y, z), self.affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along (x, y, z)."""
        return self.grid.shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along each array axis, in mm."""
        return self.grid.spacing

    def with_array(self, array: Array3D, modality: Modality | None = None) -> "Volume":
        """The same grid with other voxels.

        Raises
        ------
        GeometryError
            If the shape of `array` is not that of the grid.
        """
        if np.shape(array) != self.shape:
            raise GeometryError(f"the new voxels have the shape {np.shape(array)}; the grid has {self.shape}")
        return replace(self, array=array, modality=modality or self.modality)

    def require_finite(self, name: str) -> "Volume":
        """Return the volume itself, or raise `DataError` naming it if a voxel is NaN or infinite."""
        bad = int(np.size(self.array) - np.count_nonzero(np.isfinite(self.array)))
        if bad:
            raise DataError(f"{name}: {bad} voxels are NaN or infinite; replace them (for CT by -1024 outside the scan) and try again")
        return self


def source_of(direction: Direction) -> Modality:
    """The modality that goes in."""
    return "mr" if direction == "mr2ct" else "ct"


def target_of(direction: Direction) -> Modality:
    """The modality that comes out."""
    return "ct" if direction == "mr2ct" else "mr"


def reverse(direction: Direction) -> Direction:
    """The other direction."""
    return "ct2mr" if direction == "mr2ct" else "mr2ct"


def whole_hu(array: Shaped[np.ndarray, "*s"]) -> Int16[np.ndarray, "*s"]:
    """HU as scanners store them: rounded, and what lies beyond 16 bits at their end."""
    limits = np.iinfo(np.int16)
    return np.clip(np.rint(array), limits.min, limits.max).astype(np.int16)


def require_same_grid(first: Grid, second: Grid, first_name: str, second_name: str) -> None:
    """Raise `GeometryError` unless the two grids are one, naming both and the remedy."""
    if not first.matches(second):
        raise GeometryError(
            f"{first_name} and {second_name} lie on different grids:\n  {first.describe()}\n  {second.describe()}\n"
            "resample one onto the other first (transmodal prepare does it)"
        )
