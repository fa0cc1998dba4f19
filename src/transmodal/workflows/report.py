"""Make one HTML report of scores and training runs."""

from collections.abc import Sequence
from pathlib import Path

from transmodal.core.errors import DataError, TransmodalError
from transmodal.core.files import sha256, write_text
from transmodal.core.progress import track
from transmodal.core.record import Record, make_record, read_record
from transmodal.engine.logs import METRICS_NAME, PREVIEWS_NAME, read_metrics
from transmodal.evaluation.agreement import pool
from transmodal.evaluation.cases import find_images, holds
from transmodal.evaluation.results import SCORES_NAME, ScoreSheet, read_scores
from transmodal.reporting.curves import read_curves
from transmodal.reporting.health import numbers
from transmodal.reporting.html import render
from transmodal.reporting.page import Scored, Shown, Trained, compose
from transmodal.reporting.slices import cut_slices
from transmodal.reporting.words import extremes
from transmodal.workflows.case_images import Maker, agreement_of, compare, read_scored, scored_maker, unscored_maker


def report(
    sources: Sequence[Path],
    out: Path,
    *,
    title: str | None = None,
    view: Sequence[str] | None = None,
    viewer: bool = True,
    scans: Path | None = None,
) -> None:
    """Write one self-contained HTML file with tables, plots, slices, a viewer, training curves and provenance.

    Parameters
    ----------
    sources : sequence of Path
        Folders that `transmodal.workflows.evaluate` wrote, one a method, folders of training runs, and folders of synthetic images of
        which there are no true ones, in the order in which they are to appear.
    out : Path
        The file to write, such as ``report.html``.
    title : str, optional
        By default made from the names of the methods.
    view : sequence of str, optional
        Cases to look into, with what every method made of them; by default the median one of the first method, and none if empty.
    viewer : bool
        Whether they come with the viewer, which is most of the page's size, or as slices only.
    scans : Path, optional
        What synthetic images without scores were made from, by case; by default what lies beside them.

    Raises
    ------
    DataError
        If a source holds neither scores nor a training run nor synthetic images, no method has a case of `view`, or there is nothing to
        show.
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
    records = [read_record(folder) for folder in trained_in]
    runs = _distinct([_run_title(folder, record) for folder, record in zip(trained_in, records, strict=True)], trained_in)
    trained = [_trained(name, folder, record) for name, folder, record in zip(runs, trained_in, records, strict=True)]
    inputs = {f"{name}/{SCORES_NAME}": sha256(folder / SCORES_NAME) for name, folder in zip(names, scored_in, strict=True)}
    inputs |= {f"{name}/{METRICS_NAME}": sha256(folder / METRICS_NAME) for name, folder in zip(runs, trained_in, strict=True)}
    makers = [scored_maker(*known) for known in zip(names, scored_in, sheets, strict=True)]
    unscored_in = [folder for folder in folders if folder not in scored_in and folder not in trained_in]
    makers += _unscored(unscored_in, scans)
    found = [compare(case, makers) for case in track(_to_view(view, makers), "packing the viewer")]
    compared, unseen = [one for one, _ in found if one], [problem for _, problems in found for problem in problems]
    if not (scored or trained or compared):
        raise DataError("\n".join(["there is nothing to show", *unseen]))
    page = compose(scored, trained, make_record("report", inputs=inputs), title, compared, unseen, viewer=viewer)
    write_text(Path(out), render(page))


def _require_source(folder: Path) -> None:
    found = any((folder / name).is_file() for name in (SCORES_NAME, METRICS_NAME))
    if not found and not (folder.is_dir() and any(holds(folder, stem) for stem in ("sct", "smr"))):
        raise DataError(
            f"{folder}: neither scores ({SCORES_NAME}) nor a training run ({METRICS_NAME}) nor synthetic images (sct, smr); give a folder "
            "that evaluate, train or synthesize wrote"
        )


def _unscored(folders: Sequence[Path], scans: Path | None) -> list[Maker]:
    """Methods of which there are images only, named as `evaluate` would name them."""
    records = [read_record(folder) for folder in folders]
    titles = [str(record.settings.get("title", "")) if record else "" for record in records]
    names = _distinct([title or folder.resolve().name for title, folder in zip(titles, folders, strict=True)], folders)
    sources = {stem: find_images(scans, stem) for stem in ("mr", "ct") if scans and holds(scans, stem)}
    return [
        unscored_maker(name, folder, sources.get("ct" if holds(folder, "smr") else "mr", {}))
        for name, folder in zip(names, folders, strict=True)
    ]


def _to_view(view: Sequence[str] | None, makers: Sequence[Maker]) -> list[str]:
    """Cases to look into, of which every one that was asked for must be there."""
    if view is not None:
        known = {case for maker in makers for case in maker.cases}
        absent = [case for case in view if case not in known]
        if absent:
            raise DataError(f"--view {absent[0]}: no method has a case of this name; there are {', '.join(sorted(known))}")
        return list(view)
    cases = next((maker.cases for maker in makers if maker.cases), ())
    return [cases[(len(cases) - 1) // 2]] if cases else []


def _distinct(labels: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Return the labels, with the folder (and, if need be, a number) where two methods or runs carry the same one."""
    names = [
        label if labels.count(label) == 1 else f"{label} ({folder.resolve().name})" for label, folder in zip(labels, folders, strict=True)
    ]
    return [name if names.count(name) == 1 else f"{name} [{index}]" for index, name in enumerate(names, start=1)]


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
            images = read_scored(folder, sheet, case)
            agreements.append(agreement_of(images))
            if case.case in places:
                shown[case.case] = Shown(places[case.case], case, cut_slices(images))
        except TransmodalError as error:
            unseen.append(f"{case.case} is not shown: {error}")
    in_order = [shown[case] for case in places if case in shown]
    unit = "HU" if sheet.direction == "mr2ct" else "grey levels"
    return Scored(name, sheet, read_record(folder), in_order, unseen, pool([one for one in agreements if one is not None]), unit)
