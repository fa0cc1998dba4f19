"""Make one HTML report of scores and training runs."""

from collections.abc import Sequence
from pathlib import Path

from transmodal.core.config import validate
from transmodal.core.errors import DataError, TransmodalError
from transmodal.core.files import read_json, sha256, write_text
from transmodal.core.progress import track
from transmodal.core.record import RECORD_NAME, Record, make_record
from transmodal.core.volume import Grid, Volume, source_of, target_of
from transmodal.engine.logs import METRICS_NAME, PREVIEWS_NAME, read_metrics
from transmodal.evaluation.results import SCORES_NAME, CaseScores, ScoreSheet, read_scores
from transmodal.imaging.grid import resample
from transmodal.imaging.masks import head_mask
from transmodal.imaging.scan import read_scan, strip_scan_suffix
from transmodal.reporting.curves import read_curves
from transmodal.reporting.health import numbers
from transmodal.reporting.html import render
from transmodal.reporting.page import Scored, Shown, Trained, compose
from transmodal.reporting.slices import CaseImages, cut_slices
from transmodal.reporting.words import extremes


def report(sources: Sequence[Path], out: Path, *, title: str | None = None) -> None:
    """Write one self-contained HTML file with tables, plots, slices, training curves and provenance.

    Parameters
    ----------
    sources : sequence of Path
        Folders that `transmodal.workflows.evaluate` wrote, one a method, and folders of training runs, in the order in which they
        are to appear.
    out : Path
        The file to write, such as ``report.html``.
    title : str, optional
        By default made from the names of the methods.

    Raises
    ------
    DataError
        If a source holds neither scores nor a training run.
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
    write_text(Path(out), render(compose(scored, trained, make_record("report", inputs=inputs), title)))


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
    shown, unseen = [], []
    for place, case in extremes(sheet):
        try:
            shown.append(Shown(place, case, cut_slices(_read_images(folder, sheet, case))))
        except TransmodalError as error:
            unseen.append(f"{case.case} is not shown: {error}")
    return Scored(name, sheet, _read_record(folder), shown, unseen)


def _read_images(folder: Path, sheet: ScoreSheet, case: CaseScores) -> CaseImages:
    """Read the images of a case onto the grid of the reference, as they were scored."""
    if sheet.product == "bone":
        raise DataError("slices are drawn of synthetic images only, and the prediction is a mask of bone")
    target = target_of(sheet.direction)
    reference = read_scan(folder / case.reference, target)
    source = read_scan(folder / case.source, source_of(sheet.direction)) if case.source else None
    prediction = folder / case.prediction
    again = prediction.with_name(f"{strip_scan_suffix(prediction.name)}_cycle.nii.gz")
    return CaseImages(
        source=_onto(source, reference.grid) if source else None,
        reference=reference,
        prediction=_onto(read_scan(prediction, target), reference.grid),
        again=_onto(read_scan(again, source_of(sheet.direction)), reference.grid) if again.is_file() else None,
        mask=_onto(read_scan(folder / case.mask, "mask"), reference.grid) if case.mask else head_mask(reference),
    )


def _onto(volume: Volume, grid: Grid) -> Volume:
    return volume if volume.grid.matches(grid) else resample(volume, grid)
