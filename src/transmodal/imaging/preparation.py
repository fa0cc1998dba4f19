"""What is done to a scan before any method sees it, in training and in prediction alike.

The settings travel with the dataset into the run, so that a new scan is prepared as the training scans were.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from transmodal.core.config import Config
from transmodal.core.errors import DataError
from transmodal.core.volume import Affine, Grid, Modality, Volume
from transmodal.imaging.bias import correct_bias
from transmodal.imaging.grid import canonical, isotropic_grid, resample
from transmodal.imaging.intensity import IntensityStatistics, measure
from transmodal.imaging.masks import head_mask, hull_mask
from transmodal.imaging.registration import register
from transmodal.imaging.scan import read_scan, write_scan

TEMPLATE_NAME = "template"
# What lies outside the head: air, no signal, and the background of label maps.
BACKGROUND = {"ct": -1000.0, "mr": 0.0, "labels": 0.0}


class Registration(Config):
    """How the CT of a pair is brought onto its MR; the table ``[preparation.registration]``. Prediction has no pair, and no use for it.

    Parameters
    ----------
    kind : {"auto", "none", "rigid", "affine", "landmarks"}
        ``rigid`` and ``affine`` go by mutual information; ``landmarks`` is the affine transform of the points in
        ``mr_landmarks.csv`` and ``ct_landmarks.csv`` beside the scans. ``auto`` is rigid where MR and CT lie on different grids,
        as they come from scanners, and none where they share one, because whoever put them there has aligned them.
    free_form_mm : float, optional
        Distance of the control points of a B-spline deformation afterwards. Between MR and CT it makes the edges of bone worse
        than the rigid registration alone (measured on simulated heads), so it is off.
    region : {"head", "brain"}
        ``brain`` leaves the skull out of both scans, as the MR-GAN paper does: of the MR only its brain mask is compared, of the
        CT only what is below `skull_hu`.
    skull_hu : float
    floor : bool
        Register once more from another start, and note how far the two results differ: no synthesis can be scored better than that.
    """

    kind: Literal["auto", "none", "rigid", "affine", "landmarks"] = "auto"
    free_form_mm: float | None = Field(default=None, ge=5)
    region: Literal["head", "brain"] = "head"
    skull_hu: float = 150.0
    floor: bool = True


class TemplateSpace(Config):
    """A common space for all scans; the table ``[preparation.template]``.

    Parameters
    ----------
    mr : str
        An MR of a head in that space, such as Colin 27.
    brain : str, optional
        Its brain mask.
    kind : {"affine", "rigid"}
        How scans are registered to it, by mutual information.
    """

    mr: str
    brain: str | None = None
    kind: Literal["affine", "rigid"] = "affine"


class Preparation(Config):
    """The preparation steps, in the order in which they are done; the table ``[preparation]`` of a recipe.

    Parameters
    ----------
    mask : {"head", "hull"}
        What is looked at: the head within its skin, or the convex hull of what Otsu's threshold finds (Light_U-Net paper), which of
        a pair is that of the CT.
    bias_correction : bool
        N4 correction of MRs.
    registration : Registration
        Of the CT of a pair to its MR.
    template : TemplateSpace, optional
        A space that every scan is resampled in.
    spacing_mm : float or "native"
        Isotropic voxel size after resampling along axes that run to the right, the front and the top; ``"native"`` keeps the voxels
        of the scan (or the template) and only orders its axes.
    crop : bool
        Cut to the smallest cube with the mask in its middle, so that the slices along every axis are centred squares.
    measure_in : {"mask", "brain"}
        Where mean, SD and percentiles of an MR are taken for its normalisation; the brain is that of the template.
    """

    mask: Literal["head", "hull"] = "head"
    bias_correction: bool = False
    registration: Registration = Registration()
    template: TemplateSpace | None = None
    spacing_mm: Annotated[float, Field(gt=0)] | Literal["native"] = 1.0
    crop: bool = False
    measure_in: Literal["mask", "brain"] = "mask"

    @model_validator(mode="after")
    def _has_a_brain(self) -> "Preparation":
        if self.measure_in == "brain" and (self.template is None or self.template.brain is None):
            raise ValueError("measure_in = 'brain' needs template.mr and template.brain, so that every scan to come has a brain mask")
        return self

    def located(self, folder: Path) -> "Preparation":
        """The same settings with the files of the template looked for in `folder`, unless their paths are absolute."""
        if self.template is None:
            return self
        places = {name: str(folder / path) for name in ("mr", "brain") if (path := getattr(self.template, name)) is not None}
        return self.model_copy(update={"template": self.template.model_copy(update=places)})


@dataclass(frozen=True, eq=False)
class Space:
    """The grid that a scan is looked at on before resampling and cropping, in the scan's own space, and the template's brain mask there.

    With a template it is the template's grid: the affine transform between the two is part of the grid, which may therefore be
    sheared, and one interpolation does for both.
    """

    grid: Grid
    brain: Volume | None = None
    to_scan: Affine | None = None


@dataclass(frozen=True, eq=False)
class PreparedScan:
    """A scan on its working grid: what lies outside the mask is background; the statistics are those to normalise by."""

    volume: Volume
    mask: Volume
    statistics: IntensityStatistics


def prepare_scan(scan: Volume, settings: Preparation, mask: Volume | None = None) -> PreparedScan:
    """Do all that can be done to one scan.

    Parameters
    ----------
    scan : Volume
        An MR or a CT, on any grid.
    settings : Preparation
        With the files of the template where they are, see `Preparation.located`.
    mask : Volume, optional
        What is looked at, on any grid; by default it is found in the scan.

    Raises
    ------
    DataError
        If no head is found, the image is constant inside the mask, or it cannot be registered to the template.
    """
    mask = find_mask(scan, settings) if mask is None else mask
    scan = correct_scan(scan, mask, settings)
    space = find_space(scan, settings)
    grid = working_grid(space, mask, settings)
    return blank(resample(canonical(scan), grid), resample(canonical(mask), grid), settings, space)


def find_mask(scan: Volume, settings: Preparation) -> Volume:
    """The mask of a scan that the settings ask for; `DataError` if nothing stands out from the background."""
    return head_mask(scan) if settings.mask == "head" else hull_mask(scan)


def correct_scan(scan: Volume, mask: Volume, settings: Preparation) -> Volume:
    """The scan without its bias field, if that is asked for and it is an MR."""
    return correct_bias(scan, mask) if settings.bias_correction and scan.modality == "mr" else scan


def find_space(scan: Volume, settings: Preparation) -> Space:
    """The scan's own space, or that of the template seen from the scan; `DataError` if it cannot be registered to the template."""
    template = settings.template
    if template is None:
        return Space(canonical(scan).grid)
    image = read_template(template.mr, "mr")
    to_scan = register(image, scan, template.kind).affine
    brain = None if template.brain is None else _moved(read_template(template.brain, "mask"), to_scan)
    return Space(Grid(image.shape, to_scan @ image.affine), brain, to_scan)


def working_grid(space: Space, mask: Volume, settings: Preparation) -> Grid:
    """The grid that a scan is resampled to: of the spacing that is asked for, and cut to the mask if it is asked for.

    It is upright, so that one head looks the same to a network however the slices were tilted that it was acquired in.
    """
    grid = space.grid
    if settings.spacing_mm != "native":
        still = np.eye(4) if space.to_scan is None else space.to_scan
        grid = isotropic_grid(Grid(grid.shape, np.linalg.inv(still) @ grid.affine), settings.spacing_mm, upright=True)
        grid = Grid(grid.shape, still @ grid.affine)
    return _cube(grid, mask) if settings.crop else grid


def copy_template(settings: Preparation, source: Path, folder: Path) -> Preparation:
    """Copy the images of the template into a folder, which then needs nothing else.

    Parameters
    ----------
    settings : Preparation
    source : Path
        The folder in which the images are looked for, unless their paths are absolute.
    folder : Path
        Takes ``template/mr.nii.gz`` and ``template/brain.nii.gz``.

    Returns
    -------
    Preparation
        With the paths of the copies, from `folder` on.
    """
    if settings.template is None:
        return settings
    copies = {}
    modalities: dict[str, Modality] = {"mr": "mr", "brain": "mask"}
    for name, modality in modalities.items():
        path = getattr(settings.located(source).template, name)
        if path is not None:
            copies[name] = f"{TEMPLATE_NAME}/{name}.nii.gz"
            write_scan(read_scan(Path(path), modality), folder / copies[name])
    return settings.model_copy(update={"template": settings.template.model_copy(update=copies)})


def read_template(path: str, modality: Literal["mr", "mask"]) -> Volume:
    """Read an image of a template, with its axes in order."""
    return canonical(read_scan(Path(path), modality))


def blank(volume: Volume, mask: Volume, settings: Preparation, space: Space) -> PreparedScan:
    """Blank what lies outside the mask of a scan that is on its working grid, and measure what it is to be normalised by."""
    inside = mask.array > 0
    masked = volume.with_array(np.where(inside, volume.array, np.float32(BACKGROUND[volume.modality])).astype(np.float32))
    measured_in = mask
    if settings.measure_in == "brain" and volume.modality == "mr" and space.brain is not None:
        measured_in = resample(space.brain, volume.grid)
    return PreparedScan(masked, mask.with_array(inside), measure(volume, measured_in))


def _moved(volume: Volume, affine: Affine) -> Volume:
    return Volume(volume.array, affine @ volume.affine, volume.modality)


def _cube(grid: Grid, mask: Volume) -> Grid:
    """The smallest cube of voxels of a grid, or beyond it, that has the box around the mask in its middle."""
    inside = np.argwhere(resample(mask, grid).array > 0)
    if not len(inside):
        raise DataError("the mask is empty; check the scan, or give a mask")
    low, high = inside.min(axis=0), inside.max(axis=0) + 1
    side = ((high - low) * grid.spacing).max()
    counts = np.ceil(side / np.array(grid.spacing) - 1e-6).astype(int)
    first = (low + high - counts) // 2
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_world(first.astype(np.float64))
    return Grid((int(counts[0]), int(counts[1]), int(counts[2])), affine)
