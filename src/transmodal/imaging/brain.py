"""Masks of the brain: found by deepbet, and measured before anything is built on them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from transmodal.core.errors import ConfigError, DataError
from transmodal.core.volume import Volume
from transmodal.imaging.grid import canonical, isotropic_grid, resample

# Brains of children of half a year have about 0.7 litres, the largest of adults about 1.9.
LITRES = (0.5, 2.2)
# Share of the mask that lies in its own mirror image: at least 0.96 of simulated brains and of Colin 27.
LEAST_SYMMETRY = 0.85
_MEASURED_MM = 3.0
# The share of a mask in its mirror image is that of so many of its points, or of a few more: to a fraction of a percent.
_MEASURED_POINTS = 8000
# The tilts of the plane of symmetry, as tangents, and its shift in mm, that are tried first.
_FIRST_STEPS = (0.15, 0.15, 4.0)


@dataclass(frozen=True)
class BrainMeasures:
    """What tells a brain from what is none.

    Parameters
    ----------
    litres : float
    symmetry : float
        Share of the mask, from 0 to 1, that lies in its own mirror image left to right.
    cut : bool
        Whether it reaches the border of the field of view, so that a part of the brain may be missing.
    """

    litres: float
    symmetry: float
    cut: bool

    @property
    def faults(self) -> list[str]:
        """What no brain has; of one that is cut, the volume may be too small."""
        low, high = LITRES
        found = []
        if self.litres > high or (self.litres < low and not self.cut):
            found.append(f"{self.litres:.2f} litres, where brains have {low:g} to {high:g}")
        if self.symmetry < LEAST_SYMMETRY:
            found.append(f"{self.symmetry:.0%} of it in its own mirror image, where brains have {LEAST_SYMMETRY:.0%} or more")
        return found


def measure_brain(mask: Volume) -> BrainMeasures:
    """Measure a mask of a brain, on any grid.

    It is mirrored at the plane, among those that run roughly from back to front and upwards, beyond which most of it finds itself again;
    what would come to lie outside the field of view does not count.

    Raises
    ------
    DataError
        If it is empty.
    """
    inside: Bool[np.ndarray, "x y z"] = np.asarray(mask.array) > 0
    if not inside.any():
        raise DataError("the mask of the brain is empty; check that it belongs to this scan")
    litres = inside.sum() * abs(float(np.linalg.det(mask.affine[:3, :3]))) * 1e-6
    cut = any(bool(np.take(inside, end, axis=axis).any()) for axis in range(3) for end in (0, -1))
    return BrainMeasures(float(litres), _symmetry(mask), cut)


def _symmetry(mask: Volume) -> float:
    from scipy.optimize import minimize

    coarse = resample(canonical(mask), isotropic_grid(mask.grid, _MEASURED_MM))
    inside = np.asarray(coarse.array) > 0
    points = coarse.grid.to_world(np.argwhere(inside).astype(float))
    if not len(points):
        return 0.0
    middle = points.mean(axis=0)
    points = points[:: max(len(points) // _MEASURED_POINTS, 1)]

    def missed(plane: Float[np.ndarray, "3"]) -> float:
        """Share of the mask that has no counterpart beyond a plane, of that which could have one in the field of view."""
        yaw, roll, shift = plane
        across = np.array([1.0, yaw, roll]) / np.linalg.norm([1.0, yaw, roll])
        mirrored = points - 2 * ((points - middle) @ across - shift)[:, None] * across
        where = np.round(coarse.grid.to_voxel(mirrored)).astype(int)
        seen = ((where >= 0) & (where < coarse.shape)).all(axis=1)
        return 1 - float(inside[tuple(where[seen].T)].mean()) if seen.any() else 1.0

    steps = np.vstack([np.zeros(3), np.diag(_FIRST_STEPS)])
    return 1 - float(minimize(missed, np.zeros(3), method="Nelder-Mead", options={"initial_simplex": steps, "maxfev": 100}).fun)


def require_brain(mask: Volume, name: str) -> Volume:
    """Return the mask itself if it can be that of a brain.

    Raises
    ------
    DataError
        If it is empty, or its volume or symmetry is that of no brain; the message has the measures.
    """
    measured = measure_brain(mask)
    if measured.faults:
        raise DataError(
            f"{name} is none: it has {' and '.join(measured.faults)}. Put a better one beside the scan (brain.nii.gz), or "
            'register atlases by what needs none (method.registration.by = "intensity")'
        )
    return mask


def strip_by_deepbet(mr: Volume) -> Volume:
    """Find the brain in a T1-weighted MR by deepbet (Fisch et al., Comput Biol Med 2024;179:108845).

    Parameters
    ----------
    mr : Volume
        With or without what lies outside the head.

    Returns
    -------
    Volume
        A mask on the grid of the MR.

    Raises
    ------
    ConfigError
        If deepbet is not installed.
    DataError
        If it finds nothing.
    """
    try:
        from deepbet import BrainExtraction  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError('method.brain = "deepbet" needs deepbet: pip install "transmodal[brain]"') from error
    import nibabel

    image = nibabel.Nifti1Image(mr.array.astype(np.float32), mr.affine)
    try:
        _, found, _ = BrainExtraction(no_gpu=True).run(image)
    except (AssertionError, ValueError) as error:  # of a search that ends in nothing
        raise DataError("deepbet finds no brain in the MR; put a mask beside the scan (brain.nii.gz)") from error
    return mr.with_array(np.asarray(found.dataobj) > 0, "mask")
