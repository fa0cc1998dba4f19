"""From the settings of a registration to the transform between the MR and the CT of one person, with a measure of how well it is known."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transmodal.core.errors import DataError
from transmodal.core.volume import Modality, Volume
from transmodal.imaging.grid import resample
from transmodal.imaging.landmarks import register_landmarks
from transmodal.imaging.masks import without_skull
from transmodal.imaging.preparation import Registration
from transmodal.imaging.registration import Transform, mean_distance_mm, register, register_free_form

# The second registration begins this far from the result of the first.
_NUDGE_DEG, _NUDGE_MM = 5.0, 5.0


@dataclass(frozen=True, eq=False)
class Alignment:
    """How the CT of a pair came onto its MR.

    Parameters
    ----------
    kind : str
        ``rigid``, ``affine``, or ``landmarks``.
    transform : Transform
        Points of the MR to those of the CT, RAS+ mm.
    again : Transform or None
        The same, found from another start and with other samples.
    moved_mm : float
        How far the transform moves the points of the head, on average.
    doubt_mm : float or None
        How far the points of the head are apart by the one and the other, on average; for landmarks, how far the landmarks are.
    """

    kind: str
    transform: Transform
    again: Transform | None
    moved_mm: float
    doubt_mm: float | None


def align_pair(
    mr: Volume, ct: Volume, settings: Registration, head: Volume, brain: Volume | None, landmarks: dict[Modality, Path]
) -> Alignment | None:
    """Register the CT of a person to the MR.

    Parameters
    ----------
    mr, ct : Volume
    settings : Registration
    head, brain : Volume
        Masks of the MR, on any grid; the brain's is needed for ``region = "brain"`` only.
    landmarks : dict
        Files of points, by modality; needed for ``kind = "landmarks"`` only.

    Returns
    -------
    Alignment or None
        None if the settings ask for no registration of this pair.

    Raises
    ------
    DataError
        If the scans cannot be registered, or what the settings need is not there.
    """
    kind = settings.kind
    if kind == "auto":
        kind = "none" if mr.grid.matches(ct.grid) else "rigid"
    if kind == "none":
        return None
    still = Transform(np.eye(4))
    if kind == "landmarks":
        if landmarks.keys() != {"mr", "ct"}:
            raise DataError("registration by landmarks needs the files mr_landmarks.csv and ct_landmarks.csv beside the scans")
        affine, error_mm = register_landmarks(landmarks["mr"], landmarks["ct"], "affine")
        transform = _deformed(mr, ct, affine, settings)
        return Alignment(kind, transform, None, mean_distance_mm(transform, still, head), error_mm)
    fixed, moving = (mr, ct) if settings.region == "head" else _brains(mr, ct, settings, brain)
    affine = register(fixed, moving, kind)
    transform = _deformed(mr, ct, affine, settings)
    again, doubt_mm = None, None
    if settings.floor:
        again = _deformed(mr, ct, register(fixed, moving, kind, start=_nudged(affine, head), seed=1), settings)
        doubt_mm = mean_distance_mm(transform, again, head)
    return Alignment(kind, transform, again, mean_distance_mm(transform, still, head), doubt_mm)


def _brains(mr: Volume, ct: Volume, settings: Registration, brain: Volume | None) -> tuple[Volume, Volume]:
    """Both scans without the skull and what lies outside it."""
    if brain is None:
        raise DataError(
            "registration.region = 'brain' needs a brain mask of the MR: put it beside the scan as brain.nii.gz, "
            "or name a template with a brain mask (preparation.template.mr and .brain)"
        )
    inside = resample(brain, mr.grid).array > 0
    return mr.with_array(np.where(inside, mr.array, np.zeros_like(mr.array))), without_skull(ct, settings.skull_hu)


def _deformed(mr: Volume, ct: Volume, affine: Transform, settings: Registration) -> Transform:
    if settings.free_form_mm is None:
        return affine
    return register_free_form(mr, ct, affine, spacing_mm=settings.free_form_mm)


def _nudged(transform: Transform, head: Volume) -> Transform:
    """Turn and shift a result a little, about the middle of the head."""
    from scipy.spatial.transform import Rotation

    direction = np.ones(3) / np.sqrt(3)
    nudge, middle = np.eye(4), head.grid.center
    nudge[:3, :3] = Rotation.from_rotvec(_NUDGE_DEG * direction, degrees=True).as_matrix()
    nudge[:3, 3] = middle - nudge[:3, :3] @ middle + _NUDGE_MM * direction
    return Transform(transform.affine @ nudge)
