"""Registration by mutual information: rigid, affine and free-form, by elastix (Klein et al., IEEE Trans Med Imaging 2010;29:196).

A transform maps the points of the *fixed* volume to those of the *moving* one, in RAS+ mm, which is the direction that resampling
the moving volume onto the fixed grid needs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from transmodal.core.errors import DataError
from transmodal.core.volume import Affine, Grid, Volume
from transmodal.imaging.grid import DisplacementField, isotropic_grid, resample

Kind = Literal["rigid", "affine"]

# ITK counts millimetres towards the left and the back.
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Voxels on which both scans are compared: no finer than a fraction of a voxel of a head scan needs; no finer than the slices of
# either, lest the sharp one pull towards the middle of blurred edges; and fine enough for the thickest.
_FINEST_MM, _COARSEST_MM = 1.5, 3.0
# Air as dark as it is puts the edge of the skin outside of where an MR shows it, and an affine alignment 2 % off in scale. Of values
# from -1000 to -300, this left the least error over rigid and affine, thin and thick slices, T1 and T2 together.
_LEAST_HU = -400.0
# Percentiles of what is compared, outside which intensities are cut off: metal in a CT, vessels in an MR.
_OUTLIERS = (0.2, 99.8)
_FEWEST_VOXELS = 8
# Voxels on which the heads are laid on one another at first.
_GUESS_MM = 4.0
# The displacements between the control points of a spline are read from a field this much finer, within a few hundredths of a mm.
_FIELD_STEPS = 10

_SETTINGS = {
    "AutomaticTransformInitialization": "false",
    "WriteResultImage": "false",
    "NumberOfSpatialSamples": "4096",
    "MaximumNumberOfIterations": "500",
    "NumberOfHistogramBins": "48",
}
# Control points of few tens of millimetres need no coarser start, and with it ended further from the truth.
_FREE_FORM = {
    "NumberOfResolutions": "3",
    "GridSpacingSchedule": ("2", "1", "1"),
    "NumberOfSpatialSamples": "2048",
    "MaximumNumberOfIterations": "200",
}
_ONE_MODALITY = {
    **_FREE_FORM,
    "Registration": "MultiResolutionRegistration",
    "Metric": "AdvancedNormalizedCorrelation",
}
# Mutual information alone is drawn to where the noise is: the spline is kept stiff.
_TWO_MODALITIES = {**_FREE_FORM, "Metric1Weight": "1000"}


@dataclass(frozen=True, eq=False)
class Transform:
    """Fixed points to moving points: first the smooth deformation, if there is one, then the affine part.

    Parameters
    ----------
    affine : ndarray, shape (4, 4)
        RAS+ mm to RAS+ mm.
    control_grid : Grid, optional
        Where the control points of a cubic B-spline deformation lie.
    displacements : ndarray, shape (x, y, z, 3), optional
        Its coefficients, in RAS+ mm; beyond the control points there is no deformation.
    """

    affine: Affine
    control_grid: Grid | None = None
    displacements: Float[np.ndarray, "x y z 3"] | None = None

    def apply(self, points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """Fixed points to moving points, RAS+ mm."""
        points = np.asarray(points, dtype=np.float64)
        points = points + self.displacements_at(points)
        return points @ self.affine[:3, :3].T + self.affine[:3, 3]

    def inverse(self) -> "Transform":
        """Moving points to fixed points; for a transform without deformation."""
        assert self.displacements is None, "a deformation has no closed inverse"
        return Transform(np.linalg.inv(self.affine))

    def displacements_at(self, points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """How far the deformation moves fixed points before the affine part acts, in RAS+ mm."""
        if self.control_grid is None or self.displacements is None:
            return np.zeros(points.shape)
        from scipy.ndimage import map_coordinates

        where = np.moveaxis(self.control_grid.to_voxel(points), -1, 0)
        # The coefficients are those of the spline itself, so they are not filtered again.
        along = [map_coordinates(self.displacements[..., k], where, order=3, mode="grid-constant", prefilter=False) for k in range(3)]
        return np.stack(along, axis=-1)


def register(
    fixed: Volume,
    moving: Volume,
    kind: Kind = "rigid",
    *,
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    start: Transform | None = None,
    seed: int = 0,
) -> Transform:
    """Align two scans of any modality by mutual information (Mattes et al., IEEE Trans Med Imaging 2003;22:120).

    Parameters
    ----------
    fixed, moving : Volume
        MR or CT, on any grids.
    kind : {"rigid", "affine"}
    fixed_mask, moving_mask : Volume, optional
        Where the volumes are compared, on any grids; by default everywhere. A mask also sets the range of intensities that counts.
    start : Transform, optional
        An affine guess. By default the centres of gravity of the two heads (of the masks, if there are two) are laid on one another,
        and an affine alignment begins with a rigid one.
    seed : int
        Of the random samples.

    Returns
    -------
    Transform

    Raises
    ------
    DataError
        If a volume is constant, not finite or only a few voxels wide, a mask is empty, or the volumes do not overlap.
    """
    if start is None and kind == "affine":
        start = register(fixed, moving, "rigid", fixed_mask=fixed_mask, moving_mask=moving_mask, seed=seed)
    start = start or _first_guess(fixed, moving, fixed_mask, moving_mask)
    changes = {"Transform": "EulerTransform" if kind == "rigid" else "AffineTransform"}
    found = _run_elastix(_Pair.place(fixed, moving, start, fixed_mask, moving_mask), kind, changes, seed)
    return Transform(start.affine @ _matrix(found))


def register_free_form(
    fixed: Volume,
    moving: Volume,
    start: Transform,
    *,
    spacing_mm: float = 30.0,
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    seed: int = 0,
) -> Transform:
    """Refine an affine alignment by a free-form deformation (Rueckert et al., IEEE Trans Med Imaging 1999;18:712).

    Scans of one modality are compared by normalized correlation, MR and CT by mutual information with a bending penalty. Measured on
    simulated heads of 2 mm along the normals of bone surfaces, of a smooth warp of 1.4 mm on average 0.09 mm was left from CT to CT,
    and 0.8 mm from MR to CT. On pairs that only a rigid transform parted, it took MR to CT from 0.04-0.10 mm to 0.6-0.95 mm: for an MR
    and a CT of one head, trust `register`.

    Parameters
    ----------
    fixed, moving : Volume
    start : Transform
        Without a deformation, such as `register` gives.
    spacing_mm : float
        Between the control points of the cubic B-spline.
    fixed_mask, moving_mask : Volume, optional
    seed : int

    Returns
    -------
    Transform
        `start` after the deformation.

    Raises
    ------
    DataError
        As for `register`.
    """
    changes = {**(_ONE_MODALITY if fixed.modality == moving.modality else _TWO_MODALITIES)}
    changes["FinalGridSpacingInPhysicalUnits"] = f"{spacing_mm:g}"
    found = _run_elastix(_Pair.place(fixed, moving, start, fixed_mask, moving_mask), "bspline", changes, seed)
    size = [int(n) for n in found["GridSize"]]
    lps = np.eye(4)
    lps[:3, :3] = np.array(found["GridDirection"], dtype=float).reshape(3, 3).T @ np.diag(np.array(found["GridSpacing"], dtype=float))
    lps[:3, 3] = np.array(found["GridOrigin"], dtype=float)
    coefficients = np.array(found["TransformParameters"], dtype=float).reshape(3, *size[::-1]).transpose(3, 2, 1, 0)
    return Transform(start.affine, Grid((size[0], size[1], size[2]), LPS @ lps), coefficients * np.array([-1.0, -1.0, 1.0]))


def warp(moving: Volume, transform: Transform, grid: Grid, *, order: int = 1, fill: float | None = None) -> Volume:
    """Bring a moving volume onto a fixed grid.

    Parameters
    ----------
    moving : Volume
    transform : Transform
        Points of `grid` to points of `moving`.
    grid : Grid
    order, fill
        See `transmodal.imaging.grid.resample`.
    """
    return resample(_moved_back(moving, transform), grid, order=order, fill=fill, displaced=_displacement_field(transform, grid))


def mean_distance_mm(first: Transform, second: Transform, mask: Volume) -> float:
    """How far apart two transforms take the points of a mask, in mm, on average.

    Raises
    ------
    DataError
        If the mask is empty.
    """
    inside = resample(mask, isotropic_grid(mask.grid, max(_COARSEST_MM, *mask.spacing)))
    points = inside.grid.to_world(np.argwhere(_require_voxels(inside).array).astype(float))
    return float(np.linalg.norm(first.apply(points) - second.apply(points), axis=1).mean())


def _moved_back(moving: Volume, transform: Transform) -> Volume:
    """The moving volume where the affine part of a transform finds it: only its header changes."""
    return Volume(moving.array, np.linalg.inv(transform.affine) @ moving.affine, moving.modality)


def _displacement_field(transform: Transform, grid: Grid) -> DisplacementField | None:
    if transform.control_grid is None:
        return None
    lattice = _widened(isotropic_grid(grid, min(transform.control_grid.spacing) / _FIELD_STEPS))
    points = lattice.to_world(np.moveaxis(np.indices(lattice.shape, dtype=float), 0, -1))
    return DisplacementField(lattice, transform.displacements_at(points))


def _widened(grid: Grid) -> Grid:
    """By a voxel on every side, so that the outermost half voxel of the field of view is interpolated, too."""
    x, y, z = grid.shape
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_world(np.full(3, -1.0))
    return Grid((x + 2, y + 2, z + 2), affine)


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two scans made comparable: on box voxels of one size, the moving one already where a first guess puts it."""

    fixed: Volume
    moving: Volume
    masks: dict[str, Volume]

    @classmethod
    def place(cls, fixed: Volume, moving: Volume, start: Transform, fixed_mask: Volume | None, moving_mask: Volume | None) -> "_Pair":
        assert start.displacements is None, "only an affine transform can be refined"
        working_mm = float(np.clip(max(*fixed.spacing, *moving.spacing), _FINEST_MM, _COARSEST_MM))
        moved_mask = None if moving_mask is None else _moved_back(moving_mask, start)
        images, masks = {}, {}
        for name, volume, mask in (("fixed", fixed, fixed_mask), ("moving", _moved_back(moving, start), moved_mask)):
            grid = isotropic_grid(volume.require_finite(f"the {name} {volume.modality}").grid, working_mm)
            if mask is not None:
                masks[f"{name}_mask"] = _require_voxels(resample(mask, grid))
            images[name] = _comparable(volume, grid, masks.get(f"{name}_mask"))
        return cls(**images, masks=masks)


def _run_elastix(pair: _Pair, defaults: str, changes: Mapping[str, str | tuple[str, ...]], seed: int) -> Any:
    """The transform parameters that elastix ends with, as its own map of strings."""
    itk = _elastix()
    parameters = itk.ParameterObject.New()
    chosen = parameters.GetDefaultParameterMap(defaults)
    for name, value in {**_SETTINGS, "RandomSeed": str(seed), **changes}.items():
        chosen[name] = [value] if isinstance(value, str) else list(value)
    parameters.AddParameterMap(chosen)
    masks = {name: _to_itk(mask) for name, mask in pair.masks.items()}
    try:
        # Given as an argument, the number of threads crashes elastix's B-splines; the variable of ITK does not.
        _, found = itk.elastix_registration_method(_to_itk(pair.fixed), _to_itk(pair.moving), parameter_object=parameters, **masks)
    except RuntimeError as error:
        # Its message only refers to a log; in all cases met, too many samples lay outside the moving volume or mask.
        raise DataError(
            "the scans could not be registered: too little of them overlaps; check that both show the same part of a head, "
            "or start from landmarks"
        ) from error
    return dict(found.GetParameterMap(0))


def _elastix() -> Any:
    """ITK with elastix, whose names appear as they are used; the first use takes seconds."""
    import itk

    return itk


def _comparable(volume: Volume, grid: Grid, mask: Volume | None) -> Volume:
    """Without outliers, which would take the bins of the histogram from tissue."""
    if min(grid.shape) < _FEWEST_VOXELS:
        raise DataError(
            f"a {volume.modality} of {volume.grid.describe()} is too thin to be registered; {_FEWEST_VOXELS * grid.spacing[0]:g} mm "
            "along each axis is the least"
        )
    # The slices of an MR are thick: a cubic spline places their edges better than a line.
    image = resample(volume, grid, order=3)
    low, high = np.percentile(image.array if mask is None else image.array[mask.array], _OUTLIERS)
    if volume.modality == "ct":
        low = max(low, _LEAST_HU)
    clipped = np.clip(image.array, np.float32(low), np.float32(high))
    if clipped.max() <= clipped.min():
        raise DataError(f"nothing stands out from the background of the {volume.modality}; it cannot be registered")
    return image.with_array(clipped)


def _require_voxels(mask: Volume) -> Volume:
    if not np.asarray(mask.array).any():
        raise DataError("the mask is empty on the grid of its scan; check that it belongs to this scan, or leave it out")
    return mask


def _first_guess(fixed: Volume, moving: Volume, fixed_mask: Volume | None, moving_mask: Volume | None) -> Transform:
    # One mask alone may be of a part, such as the brain, whose middle is not that of the other head.
    if fixed_mask is None or moving_mask is None:
        return Transform(_shift(_centre(moving) - _centre(fixed)))
    return Transform(_shift(_centre(moving_mask) - _centre(fixed_mask)))


def _centre(volume: Volume) -> Float[np.ndarray, "3"]:
    """The centre of gravity of what is brighter than the mean, in RAS+ mm: of the head, or of a mask."""
    image = resample(volume, isotropic_grid(volume.grid, _GUESS_MM))
    values = image.array.astype(np.float32) if volume.modality == "mask" else np.maximum(image.array, _LEAST_HU)
    inside = np.argwhere(values > values.mean())
    if not len(inside):
        raise DataError(f"nothing stands out from the background of the {volume.modality}; it cannot be registered")
    return image.grid.to_world(inside.mean(axis=0))


def _shift(offset: Float[np.ndarray, "3"]) -> Affine:
    matrix = np.eye(4)
    matrix[:3, 3] = offset
    return matrix


def _to_itk(volume: Volume) -> Any:
    itk = _elastix()
    array = volume.array.astype(np.uint8 if volume.modality == "mask" else np.float32, copy=False)
    image = itk.GetImageFromArray(np.ascontiguousarray(array.T))
    lps = LPS @ volume.affine
    image.SetSpacing(volume.spacing)
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3] / np.array(volume.spacing))))
    return image


def _matrix(found: Any) -> Affine:
    """The 4x4 matrix in RAS+ mm of an Euler or affine transform of elastix."""
    import SimpleITK

    values = [float(v) for v in found["TransformParameters"]]
    centre = [float(v) for v in found["CenterOfRotationPoint"]]
    if len(values) == 6:
        transform = SimpleITK.Euler3DTransform()
        transform.SetComputeZYX(found.get("ComputeZYX", ("false",))[0] == "true")
    else:
        transform = SimpleITK.AffineTransform(3)
    transform.SetCenter(centre)
    transform.SetParameters(values)
    lps = np.eye(4)
    lps[:3, :3] = np.array(transform.GetMatrix()).reshape(3, 3)
    lps[:3, 3] = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    return LPS @ lps @ LPS
