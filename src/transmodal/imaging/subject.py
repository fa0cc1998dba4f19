"""All images of one person on one working grid."""

from dataclasses import dataclass

import numpy as np

from transmodal.core.errors import DataError
from transmodal.core.volume import Grid, Modality, Volume
from transmodal.imaging.alignment import Alignment, align_pair
from transmodal.imaging.grid import canonical, resample
from transmodal.imaging.layouts import SubjectFiles
from transmodal.imaging.plausibility import require_plausible
from transmodal.imaging.preparation import Preparation, PreparedScan, Space, blank, correct_scan, find_mask, find_space, working_grid
from transmodal.imaging.registration import Transform, warp

# What the voxels of each kind of file mean.
_MODALITIES: dict[str, Modality] = {"mr": "mr", "ct": "ct", "mask": "mask", "labels": "labels", "brain": "mask"}


@dataclass(frozen=True, eq=False)
class PreparedSubject:
    """What preparation makes of a person, and what it went through.

    Parameters
    ----------
    scans : dict
        ``mr`` and ``ct``, as far as they are there, as read.
    masks : dict
        Their masks, on any grid, before registration.
    prepared : dict
        ``mr`` and ``ct`` on the working grid.
    labels, brain : Volume or None
        On the working grid: the label map, and the mask of the brain, where they lie beside the scan.
    corrected : Volume or None
        The MR without its bias field, where it was to be corrected.
    space : Space
    alignment : Alignment or None
        Where the CT was registered to the MR.
    """

    scans: dict[str, Volume]
    masks: dict[str, Volume]
    prepared: dict[str, PreparedScan]
    labels: Volume | None
    brain: Volume | None
    corrected: Volume | None
    space: Space
    alignment: Alignment | None

    @property
    def grid(self) -> Grid:
        """The working grid."""
        return next(iter(self.prepared.values())).volume.grid


def prepare_subject(files: SubjectFiles, settings: Preparation) -> PreparedSubject:
    """Read and prepare all images of a person, on a grid which the MR defines where there is one.

    Parameters
    ----------
    files : SubjectFiles
    settings : Preparation
        With the files of the template where they are, see `Preparation.located`.

    Raises
    ------
    TransmodalError
        If a scan cannot be read or used, or the pair not be registered.
    """
    if files.problem is not None:
        raise files.problem
    images = {name: require_plausible(source.read(_MODALITIES[name]), str(source.path)) for name, source in files.files.items()}
    scans = {name: images[name] for name in ("mr", "ct") if name in images}
    if not scans:
        raise DataError("there is neither an MR nor a CT")
    masks = {name: images.get("mask") or find_mask(scan, settings) for name, scan in scans.items()}
    first = next(iter(scans))
    reference = correct_scan(scans[first], masks[first], settings)
    space = find_space(reference, settings)
    alignment = None
    if "ct" in scans and first == "mr":
        brain = images.get("brain") or space.brain
        alignment = align_pair(reference, scans["ct"], settings.registration, masks["mr"], brain, files.landmarks)
    masks = _shared_hull(masks, scans, settings, alignment) if "mask" not in images else masks
    grid = working_grid(space, masks[first], settings)
    prepared = {first: blank(resample(canonical(reference), grid), resample(canonical(masks[first]), grid), settings, space)}
    if "ct" in scans and first == "mr":
        ct_mask = _given_ct_mask(images["mask"], scans["ct"], alignment, grid) if "mask" in images else bring(masks["ct"], alignment, grid)
        prepared["ct"] = blank(bring(scans["ct"], alignment, grid), ct_mask, settings, space)
    labels = resample(canonical(images["labels"]), grid) if "labels" in images else None
    brain = resample(canonical(images["brain"]), grid) if "brain" in images else None
    corrected = reference if settings.bias_correction and first == "mr" else None
    return PreparedSubject(scans, masks, prepared, labels, brain, corrected, space, alignment)


def bring(volume: Volume, alignment: Alignment | None, grid: Grid) -> Volume:
    """Resample an image that lies in the space of the CT, after registration if there was one."""
    if alignment is None:
        return resample(canonical(volume), grid)
    return warp(volume, alignment.transform, grid)


def covered(ct: Volume, transform: Transform, grid: Grid) -> Volume:
    """Where a grid lies within the field of view of a CT."""
    return warp(Volume(np.ones(ct.shape, dtype=bool), ct.affine, "mask"), transform, grid)


def _given_ct_mask(mask: Volume, ct: Volume, alignment: Alignment | None, grid: Grid) -> Volume:
    """A mask that was made for the MR, but for where the registered CT has not been: nothing there is air."""
    there = resample(canonical(mask), grid)
    if alignment is None:
        return there
    return there.with_array((there.array > 0) & (covered(ct, alignment.transform, grid).array > 0))


def _shared_hull(
    masks: dict[str, Volume], scans: dict[str, Volume], settings: Preparation, alignment: Alignment | None
) -> dict[str, Volume]:
    """The hull of the CT serves both images of a pair (Light_U-Net paper)."""
    if settings.mask != "hull" or len(scans) < 2:
        return masks
    return {**masks, "mr": bring(masks["ct"], alignment, scans["mr"].grid)}
