"""Registration by mutual information: rigid, affine and free-form, by elastix (Klein et al., IEEE Trans Med Imaging 2010;29:196).

A transform maps the points of the *fixed* volume to those of the *moving* one, in RAS+ mm, which is the direction that resampling
the moving volume onto the fixed grid needs.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from transmodal.core.errors import DataError
from transmodal.core.volume import Affine, Grid, Volume
from transmodal.imaging.grid import isotropic_grid, resample

if TYPE_CHECKING:
    import SimpleITK

Kind = Literal["rigid", "affine"]

# ITK counts millimetres towards the left and the back.
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Fine enough for a fraction of a voxel of a head scan, and several times quicker than 1 mm.
_WORKING_MM = 1.5
_CT_WINDOW_HU = (-1000.0, 1500.0)
_SAMPLES = 4096
_ITERATIONS = 500


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
        points = self._deform(np.asarray(points, dtype=np.float64))
        return points @ self.affine[:3, :3].T + self.affine[:3, 3]

    def inverse(self) -> "Transform":
        """Moving points to fixed points; for a transform without deformation."""
        assert self.displacements is None, "a deformation has no closed inverse"
        return Transform(np.linalg.inv(self.affine))

    def _deform(self, points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        if self.control_grid is None or self.displacements is None:
            return points
        from scipy.ndimage import map_coordinates

        where = np.moveaxis(self.control_grid.to_voxel(points), -1, 0)
        # The coefficients are those of the spline itself, so they are not filtered again.
        moved = [map_coordinates(self.displacements[..., k], where, order=3, mode="constant", prefilter=False) for k in range(3)]
        return points + np.stack(moved, axis=-1)


def register(
    fixed: Volume, moving: Volume, kind: Kind = "rigid", *, fixed_mask: Volume | None = None, start: Transform | None = None, seed: int = 0
) -> Transform:
    """Align two scans of any modality by mutual information.

    Parameters
    ----------
    fixed, moving : Volume
        MR or CT, on any grids.
    kind : {"rigid", "affine"}
    fixed_mask : Volume, optional
        Where the fixed volume is compared; by default everywhere.
    start : Transform, optional
        An affine guess; by default the centres of gravity of the two heads lie on one another.
    seed : int
        Of the random samples.

    Returns
    -------
    Transform

    Raises
    ------
    DataError
        If elastix finds no alignment, for example because the volumes do not overlap.
    """
    start = start or Transform(_shift(_centre_of_gravity(moving) - _centre_of_gravity(fixed)))
    moved = Volume(moving.array, np.linalg.inv(start.affine) @ moving.affine, moving.modality)
    changes = {"Transform": "EulerTransform" if kind == "rigid" else "AffineTransform"}
    found = _run_elastix(fixed, moved, fixed_mask, "rigid" if kind == "rigid" else "affine", changes, seed)
    return Transform(start.affine @ _matrix(found))


def register_free_form(
    fixed: Volume, moving: Volume, start: Transform, *, spacing_mm: float = 30.0, fixed_mask: Volume | None = None, seed: int = 0
) -> Transform:
    """Refine an affine alignment by a free-form deformation (Rueckert et al., IEEE Trans Med Imaging 1999;18:712).

    Parameters
    ----------
    fixed, moving : Volume
    start : Transform
        Without a deformation, such as `register` gives.
    spacing_mm : float
        Between the control points of the cubic B-spline.
    fixed_mask : Volume, optional
    seed : int

    Returns
    -------
    Transform
        `start` after the deformation.
    """
    moved = Volume(moving.array, np.linalg.inv(start.affine) @ moving.affine, moving.modality)
    found = _run_elastix(fixed, moved, fixed_mask, "bspline", {"FinalGridSpacingInPhysicalUnits": f"{spacing_mm:g}"}, seed)
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
    if transform.displacements is None:
        return resample(Volume(moving.array, np.linalg.inv(transform.affine) @ moving.affine, moving.modality), grid, order=order, fill=fill)
    from scipy.ndimage import map_coordinates

    discrete = moving.modality in ("mask", "labels")
    background = float(-1024 if fill is None and moving.modality == "ct" else fill or 0)
    source = moving.array.astype(np.uint8 if moving.modality == "mask" else np.float32, copy=False)
    out = np.empty(grid.shape, dtype=moving.array.dtype if discrete else np.float32)
    for k in range(grid.shape[2]):  # a plane at a time, so that memory stays that of a few volumes
        indices = np.stack(np.meshgrid(*(np.arange(n, dtype=float) for n in grid.shape[:2]), [float(k)], indexing="ij"), axis=-1)
        where = np.moveaxis(moving.grid.to_voxel(transform.apply(grid.to_world(indices))), -1, 0)
        plane = map_coordinates(source, where, order=0 if discrete else order, mode="constant", cval=background)
        out[:, :, k] = plane[..., 0]
    return Volume(out, grid.affine, moving.modality)


def _run_elastix(fixed: Volume, moving: Volume, mask: Volume | None, defaults: str, changes: dict[str, str], seed: int) -> Any:
    """The transform parameters that elastix ends with, as its own map of strings."""
    import itk

    parameters = itk.ParameterObject.New()
    chosen = parameters.GetDefaultParameterMap(defaults)
    settings = {
        "NumberOfSpatialSamples": str(_SAMPLES),
        "MaximumNumberOfIterations": str(_ITERATIONS),
        "AutomaticTransformInitialization": "false",
        "RandomSeed": str(seed),
        "WriteResultImage": "false",
        **changes,
    }
    for name, value in settings.items():
        chosen[name] = [value]
    parameters.AddParameterMap(chosen)
    images = [_to_itk(_comparable(volume)) for volume in (fixed, moving)]
    extra = {} if mask is None else {"fixed_mask": _to_itk(resample(mask, _working_grid(fixed)))}
    try:
        # Given as an argument, the number of threads crashes elastix's B-splines; the variable of ITK does not.
        _, found = itk.elastix_registration_method(*images, parameter_object=parameters, log_to_console=False, **extra)
    except RuntimeError as error:
        raise DataError(f"the scans could not be registered ({_reason(error)}); check that both show the same head") from error
    return dict(found.GetParameterMap(0))


def _working_grid(volume: Volume) -> Grid:
    return isotropic_grid(volume.grid, max(_WORKING_MM, min(volume.spacing)))


def _comparable(volume: Volume) -> Volume:
    """On a grid of box voxels, without outliers: bone and metal of a CT, vessels of an MR."""
    image = resample(volume, _working_grid(volume))
    low, high = _CT_WINDOW_HU if volume.modality == "ct" else (float(image.array.min()), float(np.percentile(image.array, 99.8)))
    return image.with_array(np.clip(image.array, low, high))


def _centre_of_gravity(volume: Volume) -> Float[np.ndarray, "3"]:
    """Of the head, in RAS+ mm: where there is tissue in a CT, or signal in an MR."""
    image = resample(volume, isotropic_grid(volume.grid, 4.0))
    threshold = -300.0 if volume.modality == "ct" else float(image.array.mean())
    inside = np.argwhere(image.array > threshold)
    if not len(inside):
        raise DataError(f"nothing stands out from the background of the {volume.modality}; it cannot be registered")
    return image.grid.to_world(inside.mean(axis=0))


def _shift(offset: Float[np.ndarray, "3"]) -> Affine:
    matrix = np.eye(4)
    matrix[:3, 3] = offset
    return matrix


def _to_itk(volume: Volume) -> Any:
    import itk

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
    transform: SimpleITK.Euler3DTransform | SimpleITK.AffineTransform
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


def _reason(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
