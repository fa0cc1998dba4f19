"""Make one HTML report of scores and training runs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from transmodal.core.config import validate
from transmodal.core.errors import DataError, TransmodalError
from transmodal.core.files import read_json, sha256, write_text
from transmodal.core.progress import track
from transmodal.core.record import RECORD_NAME, Record, make_record
from transmodal.core.volume import Grid, Volume, source_of, target_of
from transmodal.engine.logs import METRICS_NAME, PREVIEWS_NAME, read_metrics
from transmodal.evaluation.agreement import Agreement, pool
from transmodal.evaluation.cases import Pair, companion_of_prediction
from transmodal.evaluation.mr import GREY_LEVELS, grey_levels
from transmodal.evaluation.protocol import Case
from transmodal.evaluation.results import SCORES_NAME, CaseScores, ScoreSheet, read_scores
from transmodal.evaluation.surface import BoneSurface, bone_surface, deviation_mm
from transmodal.imaging.grid import isotropic_grid, resample
from transmodal.imaging.masks import head_mask
from transmodal.imaging.mesh import deviation_colors
from transmodal.imaging.scan import read_scan
from transmodal.reporting.curves import read_curves
from transmodal.reporting.health import numbers
from transmodal.reporting.html import render
from transmodal.reporting.page import Compared, Scored, Shown, Trained, compose
from transmodal.reporting.slices import CaseImages, cut_slices
from transmodal.reporting.viewer import Made, Mesh, ViewedCase
from transmodal.reporting.words import extremes, ranked

# What a CT of 12 bits can hold, in bins of 16 HU.
CT_RANGE_HU = (-1024.0, 3072.0)
# Finer meshes take more of the page than they show.
_MESH_MM = 2.0
_BONE_COLOUR = (226, 217, 196, 255)


def report(sources: Sequence[Path], out: Path, *, title: str | None = None, view: Sequence[str] | None = None) -> None:
    """Write one self-contained HTML file with tables, plots, slices, a viewer, training curves and provenance.

    Parameters
    ----------
    sources : sequence of Path
        Folders that `transmodal.workflows.evaluate` wrote, one a method, and folders of training runs, in the order in which they
        are to appear.
    out : Path
        The file to write, such as ``report.html``.
    title : str, optional
        By default made from the names of the methods.
    view : sequence of str, optional
        Cases that can be looked into, with what every method made of them; by default the median one of the first method, and none if
        empty.

    Raises
    ------
    DataError
        If a source holds neither scores nor a training run, or no method has a case of `view`.
    FileError
        If scores are damaged, or the report cannot be written.
    """
    folders = [Path(source) for source in sources]
    for folder in folders:
        _require_source(folder)
    scored_in = [folder for folder in folders if (folder / SCORES_NAME).is_file()]
    trained_in = [folder for folder in folders if (folder / METRICS_NAME).is_file()]
    sheets = [read_scores(folder) for folder in scored_in]
    names = _distinct([sheet.label for sheet in sheets], scored_in)
    scored = [
        _scored(name, folder, sheet) for name, folder, sheet in track(list(zip(names, scored_in, sheets, strict=True)), "drawing slices")
    ]
    records = [_read_record(folder) for folder in trained_in]
    runs = _distinct([_run_title(folder, record) for folder, record in zip(trained_in, records, strict=True)], trained_in)
    trained = [_trained(name, folder, record) for name, folder, record in zip(runs, trained_in, records, strict=True)]
    inputs = {f"{name}/{SCORES_NAME}": sha256(folder / SCORES_NAME) for name, folder in zip(names, scored_in, strict=True)}
    inputs |= {f"{name}/{METRICS_NAME}": sha256(folder / METRICS_NAME) for name, folder in zip(runs, trained_in, strict=True)}
    methods = list(zip(scored, scored_in, strict=True))
    compared = [one for case in track(_to_view(view, sheets), "packing the viewer") if (one := _compared(case, methods))]
    page = compose(scored, trained, make_record("report", inputs=inputs), title, compared)
    write_text(Path(out), render(page))


def _require_source(folder: Path) -> None:
    if not any((folder / name).is_file() for name in (SCORES_NAME, METRICS_NAME)):
        raise DataError(
            f"{folder}: neither scores ({SCORES_NAME}) nor a training run ({METRICS_NAME}); give a folder that evaluate or train wrote"
        )


def _distinct(labels: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Return the labels, with the folder (and, if need be, a number) where two methods or runs carry the same one."""
    names = [
        label if labels.count(label) == 1 else f"{label} ({folder.resolve().name})" for label, folder in zip(labels, folders, strict=True)
    ]
    return [name if names.count(name) == 1 else f"{name} [{index}]" for index, name in enumerate(names, start=1)]


def _read_record(folder: Path) -> Record | None:
    path = folder / RECORD_NAME
    return validate(Record, read_json(path), str(path)) if path.is_file() else None


def _run_title(folder: Path, record: Record | None) -> str:
    """The title of the recipe that a run was trained by, or the name of the folder."""
    return str(record.settings.get("title", folder.resolve().name)) if record else folder.resolve().name


def _trained(name: str, folder: Path, record: Record | None) -> Trained:
    curves, rows = read_curves(folder / METRICS_NAME), numbers(read_metrics(folder / METRICS_NAME))
    previews = sorted((folder / PREVIEWS_NAME).glob("*.png"))
    return Trained(name, curves, record, rows, previews[-1].read_bytes() if previews else None)


def _scored(name: str, folder: Path, sheet: ScoreSheet) -> Scored:
    places = {case.case: place for place, case in extremes(sheet)}
    shown, unseen, agreements = {}, [], []
    for case in sheet.cases if sheet.product == "image" else [case for _, case in extremes(sheet)]:
        try:
            images = _read_images(folder, sheet, case)
            agreements.append(_agree(images))
            if case.case in places:
                shown[case.case] = Shown(places[case.case], case, cut_slices(images))
        except TransmodalError as error:
            unseen.append(f"{case.case} is not shown: {error}")
    in_order = [shown[case] for case in places if case in shown]
    unit = "HU" if sheet.direction == "mr2ct" else "grey levels"
    return Scored(name, sheet, _read_record(folder), in_order, unseen, pool([one for one in agreements if one is not None]), unit)


def _agree(images: CaseImages) -> Agreement | None:
    """Count how the values agree: of CTs in HU, of MRs on grey levels; None of an MR without contrast."""
    case = Case(images.reference, images.prediction, images.mask)
    if images.reference.modality == "ct":
        return Agreement.of(*case.arrays, CT_RANGE_HU)
    grey = grey_levels(case)
    return None if grey is None else Agreement.of(*grey, case.inside, (0.0, GREY_LEVELS))


def _to_view(view: Sequence[str] | None, sheets: Sequence[ScoreSheet]) -> list[str]:
    """Cases to look into, of which every one that was asked for must be there."""
    known = {case.case for sheet in sheets for case in sheet.cases}
    if view is not None:
        absent = [case for case in view if case not in known]
        if absent:
            raise DataError(f"--view {absent[0]}: no method has a case of this name; there are {', '.join(sorted(known))}")
        return list(view)
    ranking = next((ranked(sheet) for sheet in sheets if sheet.product == "image"), [])
    return [ranking[(len(ranking) - 1) // 2].case] if ranking else []


def _compared(case: str, methods: Sequence[tuple[Scored, Path]]) -> Compared | None:
    """What the methods made of a case, as far as they go the way of the first that did; None where no image is left."""
    found: list[tuple[str, CaseImages]] = []
    for method, folder in methods:
        images = _images_of(case, method.sheet, folder)
        if images is not None and (not found or images.reference.modality == found[0][1].reference.modality):
            found.append((method.name, images))
    if not found:
        return None
    first = found[0][1]
    true, *bones = _bones(first, [images.prediction for _, images in found])
    made = [Made(name, images.prediction, images.uncertainty, bone) for (name, images), bone in zip(found, bones, strict=True)]
    viewed = ViewedCase(case, first.source, first.reference, first.mask, made, true)
    return Compared(viewed, [(name, cut_slices(images)) for name, images in found])


def _bones(first: CaseImages, predictions: Sequence[Volume]) -> list[Mesh | None]:
    """The bone of the true CT, and that of each synthetic one in the colours of its deviation; None where there is none, as in an MR."""
    if first.reference.modality != "ct":
        return [None] * (1 + len(predictions))
    grid = isotropic_grid(first.reference.grid, max(_MESH_MM, *first.reference.spacing))
    mask = resample(first.mask, grid)
    true, *made = (bone_surface(resample(image, grid), mask) for image in (first.reference, *predictions))
    if true is None:
        return [None] * (1 + len(predictions))
    plain = np.tile(np.array(_BONE_COLOUR, dtype=np.uint8), (len(true.surface.points), 1))
    return [Mesh(true.surface, plain), *(_coloured(bone, true) if bone else None for bone in made)]


def _coloured(bone: BoneSurface, true: BoneSurface) -> Mesh:
    deviation = np.full(len(bone.surface.points), np.nan)
    deviation[bone.measured] = deviation_mm(bone.surface.points[bone.measured], true)
    return Mesh(bone.surface, deviation_colors(deviation))


def _images_of(case: str, sheet: ScoreSheet, folder: Path) -> CaseImages | None:
    """The images of a case by one method; None where it has none, or they are gone, which is said where its slices would be."""
    score = next((score for score in sheet.cases if score.case == case), None)
    if score is None or sheet.product != "image":
        return None
    try:
        return _read_images(folder, sheet, score)
    except TransmodalError:
        return None


def _read_images(folder: Path, sheet: ScoreSheet, case: CaseScores) -> CaseImages:
    """Read the images of a case onto the grid of the reference, as they were scored."""
    if sheet.product == "bone":
        raise DataError("slices are drawn of synthetic images only, and the prediction is a mask of bone")
    target = target_of(sheet.direction)
    reference = read_scan(folder / case.reference, target)
    source = read_scan(folder / case.source, source_of(sheet.direction)) if case.source else None
    prediction = folder / case.prediction
    pair = Pair(case.case, prediction, folder / case.reference)
    again, uncertainty = (companion_of_prediction(pair, stem) for stem in ("cycle", "uncertainty"))
    return CaseImages(
        source=_onto(source, reference.grid) if source else None,
        reference=reference,
        prediction=_onto(read_scan(prediction, target), reference.grid),
        again=_onto(read_scan(again, source_of(sheet.direction)), reference.grid) if again else None,
        uncertainty=_onto(read_scan(uncertainty, "uncertainty"), reference.grid) if uncertainty else None,
        mask=_onto(read_scan(folder / case.mask, "mask"), reference.grid) if case.mask else head_mask(reference),
    )


def _onto(volume: Volume, grid: Grid) -> Volume:
    return volume if volume.grid.matches(grid) else resample(volume, grid)
