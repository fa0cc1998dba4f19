"""The images of a case: those that were scored, or those that were made and have no true image; and what a report shows of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from transmodal.core.errors import DataError, TransmodalError
from transmodal.core.volume import Direction, Grid, Volume, source_of, target_of
from transmodal.evaluation.agreement import Agreement
from transmodal.evaluation.cases import Pair, companion, companion_of_prediction, find_images, holds
from transmodal.evaluation.mr import GREY_LEVELS, grey_levels
from transmodal.evaluation.protocol import Case
from transmodal.evaluation.results import CaseScores, ScoreSheet
from transmodal.evaluation.surface import BoneSurface, bone_surface, deviation_mm
from transmodal.imaging.grid import isotropic_grid, resample
from transmodal.imaging.masks import head_mask
from transmodal.imaging.mesh import deviation_colors
from transmodal.imaging.scan import read_scan
from transmodal.reporting.page import Compared
from transmodal.reporting.slices import CaseImages, cut_slices
from transmodal.reporting.viewer import Made, Mesh, ViewedCase
from transmodal.reporting.words import ranked

# What a CT of 12 bits can hold, in bins of 16 HU.
CT_RANGE_HU = (-1024.0, 3072.0)
# Finer meshes take more of the page than they show.
_MESH_MM = 2.0
_BONE_COLOUR = (226, 217, 196, 255)


@dataclass(frozen=True)
class Maker:
    """A method whose images can be read, by case.

    Parameters
    ----------
    name : str
    cases : tuple of str
        From the best to the worst, where they were scored.
    read : callable
        The images of a case, or a `TransmodalError` if they are gone.
    scored : bool
    """

    name: str
    cases: tuple[str, ...]
    read: Callable[[str], CaseImages]
    scored: bool = True


def scored_maker(name: str, folder: Path, sheet: ScoreSheet) -> Maker:
    """The method of a sheet of scores, which lies in `folder`; without cases where its predictions are no images."""
    scores = {case.case: case for case in ranked(sheet)} if sheet.product == "image" else {}
    return Maker(name, tuple(scores), lambda case: read_scored(folder, sheet, scores[case]))


def unscored_maker(name: str, predictions: Path, scans: Mapping[str, Path]) -> Maker:
    """The method of a folder of synthetic images; `scans` are what they were made from, by case, as far as they are at hand."""
    direction: Direction = "ct2mr" if holds(predictions, "smr") else "mr2ct"
    found = find_images(predictions, f"s{target_of(direction)}")
    return Maker(name, tuple(found), lambda case: _read_unscored(Pair(case, found[case], found[case]), direction, scans.get(case)), False)


def read_scored(folder: Path, sheet: ScoreSheet, case: CaseScores) -> CaseImages:
    """Read the images of a case onto the grid of the reference, as they were scored.

    Raises
    ------
    DataError
        If the prediction is a mask of bone.
    FileError
        If an image is no longer where it was.
    """
    if sheet.product == "bone":
        raise DataError("slices are drawn of synthetic images only, and the prediction is a mask of bone")
    target, source = target_of(sheet.direction), source_of(sheet.direction)
    reference, prediction = read_scan(folder / case.reference, target), folder / case.prediction
    beside = _beside(Pair(case.case, prediction, folder / case.reference), sheet.direction, reference.grid)
    return CaseImages(
        source=_onto(read_scan(folder / case.source, source), reference.grid) if case.source else None,
        reference=reference,
        prediction=_onto(read_scan(prediction, target), reference.grid),
        mask=_onto(read_scan(folder / case.mask, "mask"), reference.grid) if case.mask else head_mask(reference),
        **beside,
    )


def agreement_of(images: CaseImages) -> Agreement | None:
    """Count how the values agree: of CTs in HU, of MRs on grey levels; None of an MR without contrast, or without a true image."""
    if images.reference is None:
        return None
    case = Case(images.reference, images.prediction, images.mask)
    if images.reference.modality == "ct":
        return Agreement.of(*case.arrays, CT_RANGE_HU)
    grey = grey_levels(case)
    return None if grey is None else Agreement.of(*grey, case.inside, (0.0, GREY_LEVELS))


def compare(case: str, makers: Sequence[Maker]) -> tuple[Compared | None, list[str]]:
    """What the methods made of a case, as far as they go the way of the first that did, and what kept others from being shown.

    All are shown on the grid of the first, beside its true image. Of scored methods the latter is said where their slices would be. Where
    no image is left there is nothing.
    """
    found: list[tuple[str, CaseImages]] = []
    problems = []
    for maker in makers:
        if case not in maker.cases:
            continue
        try:
            images = maker.read(case)
        except TransmodalError as error:
            problems += [] if maker.scored else [f"{case} by {maker.name} is not shown: {error}"]
            continue
        if not found:
            found.append((maker.name, images))
        elif images.prediction.modality == found[0][1].prediction.modality:
            found.append((maker.name, _beside_first(found[0][1], images)))
    return (_compared(case, found) if found else None), problems


def _beside_first(first: CaseImages, images: CaseImages) -> CaseImages:
    """What another method made, with the rest of a case as the first one has it."""
    grid = first.prediction.grid
    again, uncertainty = (None if volume is None else _onto(volume, grid) for volume in (images.again, images.uncertainty))
    return replace(first, prediction=_onto(images.prediction, grid), again=again, uncertainty=uncertainty)


def _compared(case: str, found: Sequence[tuple[str, CaseImages]]) -> Compared:
    first = found[0][1]
    true, *bones = _bones(first, [images.prediction for _, images in found])
    made = [Made(name, images.prediction, images.uncertainty, bone) for (name, images), bone in zip(found, bones, strict=True)]
    viewed = ViewedCase(case, first.source, first.reference, first.mask, made, true)
    return Compared(viewed, [(name, cut_slices(images)) for name, images in found])


def _read_unscored(pair: Pair, direction: Direction, scan: Path | None) -> CaseImages:
    """Read a synthetic image, on its own grid, with what it was made from where that is at hand."""
    modality = source_of(direction)
    prediction = read_scan(pair.prediction, target_of(direction))
    path = scan or companion(pair.prediction, pair.case, modality)
    source = _onto(read_scan(path, modality), prediction.grid) if path else None
    beside = _beside(pair, direction, prediction.grid)
    return CaseImages(source, None, prediction, head_mask(prediction if source is None else source), **beside)


def _beside(pair: Pair, direction: Direction, grid: Grid) -> dict[str, Volume | None]:
    """What `synthesize` may have written with an image: the source made again of it, and its uncertainty."""
    again, uncertainty = (companion_of_prediction(pair, stem) for stem in ("cycle", "uncertainty"))
    return {
        "again": _onto(read_scan(again, source_of(direction)), grid) if again else None,
        "uncertainty": _onto(read_scan(uncertainty, "uncertainty"), grid) if uncertainty else None,
    }


def _onto(volume: Volume, grid: Grid) -> Volume:
    return volume if volume.grid.matches(grid) else resample(volume, grid)


def _bones(first: CaseImages, predictions: Sequence[Volume]) -> list[Mesh | None]:
    """The bone of the true CT, and that of each synthetic one, in the colours of its deviation if there is a true one; None of an MR."""
    if first.prediction.modality != "ct":
        return [None] * (1 + len(predictions))
    grid = isotropic_grid(first.prediction.grid, max(_MESH_MM, *first.prediction.spacing))
    mask = resample(first.mask, grid)
    true = None if first.reference is None else bone_surface(resample(first.reference, grid), mask)
    made = [bone_surface(resample(image, grid), mask) for image in predictions]
    return [_coloured(true, None), *(_coloured(bone, true) for bone in made)]


def _coloured(bone: BoneSurface | None, true: BoneSurface | None) -> Mesh | None:
    if bone is None:
        return None
    if true is None:
        return Mesh(bone.surface, np.tile(np.array(_BONE_COLOUR, dtype=np.uint8), (len(bone.surface.points), 1)))
    deviation = np.full(len(bone.surface.points), np.nan)
    deviation[bone.measured] = deviation_mm(bone.surface.points[bone.measured], true)
    return Mesh(bone.surface, deviation_colors(deviation))
