"""A study: train, synthesize and evaluate every arm on every fold, repeat and subset, and fill the tables."""

import functools
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from transmodal.core.config import Config, validate
from transmodal.core.errors import CasesFailed, ConfigError, DataError, Interrupted, TransmodalError
from transmodal.core.files import folder_lock, read_json, sha256, write_json, write_text
from transmodal.core.jobs import HERE, Workers, run_jobs
from transmodal.core.progress import track
from transmodal.core.record import RECORD_NAME, Record, make_record, package_versions, read_record
from transmodal.core.volume import Volume
from transmodal.data.manifest import MANIFEST_NAME, Manifest
from transmodal.data.store import Dataset
from transmodal.engine.hardware import choose_device
from transmodal.engine.health import WINDOW, mean_rows
from transmodal.engine.logs import METRICS_NAME, read_metrics
from transmodal.evaluation.protocol import ProtocolNote
from transmodal.evaluation.protocols import find_protocol
from transmodal.evaluation.results import ScoreSheet
from transmodal.evaluation.studies import CellScores, FilledTable, fill
from transmodal.imaging.layouts.tables import read_attributes
from transmodal.imaging.scan import write_scan
from transmodal.methods.recipe import Recipe, parse_recipe
from transmodal.reporting.health import numbers
from transmodal.reporting.study import compose_csv, compose_markdown
from transmodal.reporting.tables import statement, with_unit
from transmodal.workflows.design import Cell, Study, find_cohorts, load_study, plan
from transmodal.workflows.evaluate import evaluate
from transmodal.workflows.prepare import FLOOR_PROTOCOL, registration_settings
from transmodal.workflows.synthesize import synthesize
from transmodal.workflows.train import other_preparation, train

HEADS_NAME, CELLS_NAME = "heads", "cells"
STUDY_NAME, MARKDOWN_NAME, CSV_NAME = "study.json", "tables.md", "tables.csv"
_CELL_NAME, _RUN_NAME, _PREDICTIONS_NAME, _SCORES_NAME = "cell.json", "run", "predictions", "scores"
_SUBJECT_KEY = "subject"


class DoneCell(Config):
    """The note that a finished cell ends with.

    Parameters
    ----------
    key : str
        Hash of all that its scores depend on but the machine and the versions of the packages.
    scores : CellScores
    train, validation, test : int
        How many subjects there were of each.
    seed : int or None
        Of the training.
    seconds : float
        What the call took that finished it.
    machine : str
    versions : dict
        Package to its version, when it was finished.
    """

    key: str
    scores: CellScores
    train: int
    validation: int
    test: int
    seed: int | None
    seconds: float
    machine: str
    versions: dict[str, str]


class FailedCell(Config):
    """A cell that could not be done, and why."""

    folder: str
    message: str


class StudyResults(Config):
    """The contents of ``study.json``.

    Parameters
    ----------
    study : dict
        Its plain values, scaled down if it was.
    scaled : bool
    assignments : tuple of str
        What the user replaced in all recipes.
    remarks : tuple of str
        What was left out, or divided otherwise than the study asks for.
    preparation : tuple of str
        What the recipes ask for, and the dataset is not.
    record : Record
    cells : tuple of DoneCell
    failed : tuple of FailedCell
    tables : tuple of FilledTable
    """

    study: dict[str, Any]
    scaled: bool
    assignments: tuple[str, ...]
    remarks: tuple[str, ...]
    preparation: tuple[str, ...]
    record: Record
    cells: tuple[DoneCell, ...]
    failed: tuple[FailedCell, ...]
    tables: tuple[FilledTable, ...]


@dataclass(frozen=True)
class _Bench:
    """Where the cells of a study are done, and the hash that each must have. Other processes must find the same folders."""

    dataset: Path
    out: Path
    keys: dict[Path, str]

    def find(self, folder: Path) -> DoneCell | None:
        """The note of the cell of that folder, if it was finished with the same settings."""
        path = self.out / CELLS_NAME / folder / _CELL_NAME
        note = read_json(path) if path.is_file() else {}
        return validate(DoneCell, note, str(path)) if note.get("key") == self.keys[folder] else None


@dataclass(frozen=True)
class _Plan:
    """A study, laid out on a dataset.

    Parameters
    ----------
    study : Study
    manifest : Manifest
        With the attributes that the user gave.
    subsets : list of str
        What is tested by itself; the empty name stands for the whole dataset.
    remarks : list of str
        What was left out, or divided otherwise than the study asks for.
    cells : list of Cell
    bench : _Bench
    record : Record
        Of the folder that is written.
    """

    study: Study
    manifest: Manifest
    subsets: list[str]
    remarks: list[str]
    cells: list[Cell]
    bench: _Bench
    record: Record


def run_study(
    source: str,
    dataset: Path,
    out: Path,
    *,
    assignments: Sequence[str] = (),
    scaled: bool = False,
    attributes: Path | None = None,
    workers: Workers = HERE,
) -> StudyResults:
    """Do all cells of a study that are not done yet, and write its tables.

    A cell that fails does not stop the others; if anything else ends the study, the tables of what is done are written first. The
    subjects are tested as the dataset holds them: on its grid, in its masks.

    Parameters
    ----------
    source : str
        The name of a study of the package, or a TOML file.
    dataset : Path
        A folder written by `prepare`.
    out : Path
        The folder to write: ``study.json``, ``tables.md``, ``tables.csv``, the scans that are tested in ``heads/``, and each cell in
        ``cells/ARM/…``. It is of this study, with these settings and inputs, alone.
    assignments : sequence of str
        Values to replace in the recipes of all arms.
    scaled : bool
        Scale the study down as its table ``[scaled]`` says.
    attributes : Path, optional
        A table of attributes of the subjects, beside those that the dataset holds, with a column ``subject``.
    workers : Workers
        Who does cells at the same time.

    Raises
    ------
    ConfigError
        If the study or a setting is impossible, or `out` holds the results of another one.
    DataError
        If the dataset does not hold what the study needs.
    CasesFailed
        If some cells failed.
    Interrupted
        On SIGINT or SIGTERM while a cell is trained. The same call does the rest.
    """
    laid = _lay_out(source, dataset, out, assignments, scaled, attributes)
    failures: dict[Path, TransmodalError] = {}
    with folder_lock(Path(out)):
        _require_own(Path(out), laid.record)
        write_json(Path(out) / RECORD_NAME, laid.record.model_dump(mode="json"))  # first, so that no other study is mixed with this one
        _write_heads(laid.bench, laid.manifest, sorted({name for cell in laid.cells for name in cell.split.test}))
        try:
            _do_all(laid.cells, laid.bench, workers, failures)
        finally:
            results = _write_results(laid, failures)
    if results.failed:
        listing = "\n".join(f"{cell.folder}: {cell.message}" for cell in results.failed)
        raise CasesFailed(f"{len(results.failed)} of {len(laid.cells)} cells failed; the tables are of the others:\n{listing}")
    return results


def list_cells(
    source: str, dataset: Path, out: Path, *, assignments: Sequence[str] = (), scaled: bool = False, attributes: Path | None = None
) -> list[str]:
    """Say what `run_study` would do, a line a cell, and write nothing."""
    laid = _lay_out(source, dataset, out, assignments, scaled, attributes)
    _require_own(Path(out), laid.record)
    states = ["to do" if laid.bench.find(cell.folder) is None else "done" for cell in laid.cells]
    lines = [f"{cell.folder.as_posix()}: {_sizes(cell)}, {state}" for cell, state in zip(laid.cells, states, strict=True)]
    return [*lines, *laid.remarks, f"{laid.study.name}: {len(lines)} cells, {states.count('to do')} to do"]


def _lay_out(source: str, dataset: Path, out: Path, assignments: Sequence[str], scaled: bool, attributes: Path | None) -> _Plan:
    study = load_study(source)
    study = study.scaled_down() if scaled else study
    manifest = _described(Dataset(dataset).manifest, attributes)
    cohorts, remarks = find_cohorts(study, manifest)
    cells = plan(study, manifest, cohorts, assignments)
    bench = _Bench(Path(dataset).resolve(), Path(out).resolve(), _keys(cells, dataset))
    record = _record(study, dataset, assignments, scaled, attributes)
    return _Plan(study, manifest, [cohort.label for cohort in cohorts], remarks, cells, bench, record)


def _record(study: Study, dataset: Path, assignments: Sequence[str], scaled: bool, attributes: Path | None) -> Record:
    inputs = {"dataset": sha256(Path(dataset) / MANIFEST_NAME)} | ({} if attributes is None else {"attributes": sha256(attributes)})
    settings = {"study": study.name, "scaled": scaled, "assignments": list(assignments)}
    return make_record("study", seed=study.seed, inputs=inputs, settings=settings)


def _require_own(out: Path, record: Record) -> None:
    """A folder holds one study, with one set of settings and inputs; or nothing yet."""
    there = read_record(out)
    if there is None:
        strangers = [name for name in (HEADS_NAME, CELLS_NAME) if (out / name).exists()]
        if strangers:
            raise ConfigError(f"{out}: holds {' and '.join(strangers)}, which no study made; give a new folder for this one")
        return
    old, new = ({"command": found.command, "seed": found.seed, **found.settings, **found.inputs} for found in (there, record))
    names = {**new, **old} if old["command"] == new["command"] else ["command"]  # another command's settings say nothing here
    others = [f"{name} was {old.get(name)}, and is {new.get(name)}" for name in names if old.get(name) != new.get(name)]
    if others:
        raise ConfigError(f"{out}: holds other results ({'; '.join(others)}); give another folder, or the same study, settings and inputs")


def _described(manifest: Manifest, attributes: Path | None) -> Manifest:
    """The manifest with further attributes of its subjects."""
    if attributes is None:
        return manifest
    found = read_attributes(attributes, _SUBJECT_KEY)
    strangers = sorted(found.keys() - {subject.id for subject in manifest.subjects})
    if strangers:
        raise DataError(f"{attributes}: the dataset has no {', '.join(strangers)}; name the subjects as it does")
    subjects = [s.model_copy(update={"attributes": {**s.attributes, **found.get(s.id, {})}}) for s in manifest.subjects]
    return manifest.model_copy(update={"subjects": tuple(subjects)})


def _sizes(cell: Cell) -> str:
    split = cell.split
    return f"{len(split.train)} train, {len(split.validation)} validate, {len(split.test)} tested"


def _keys(cells: Sequence[Cell], dataset: Path) -> dict[Path, str]:
    """The hash of all that the scores of each cell depend on; of one that builds on another, that of the other as well."""
    data, keys = sha256(Path(dataset) / MANIFEST_NAME), {}
    for cell in cells:
        content = {
            "recipe": cell.recipe.model_dump(mode="json"),
            "split": cell.split.model_dump(mode="json"),
            "people": cell.people,
            "protocols": cell.protocols,
            "place": [cell.subset, cell.repeat, cell.fold, cell.folds],
            "dataset": data,
            "atlases": None if cell.atlases is None else keys[cell.atlases],
        }
        keys[cell.folder] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return keys


def _write_heads(bench: _Bench, manifest: Manifest, names: Sequence[str]) -> None:
    """The subjects that are tested, as scans in SynthRAD layout with the mask in which both images show the head; each once."""
    folder, data = bench.out / HEADS_NAME, Dataset(bench.dataset)
    digest = sha256(bench.dataset / MANIFEST_NAME)
    record = make_record("study", inputs={"dataset": digest}, settings=registration_settings(manifest))
    same = (folder / RECORD_NAME).is_file() and read_json(folder / RECORD_NAME).get("inputs") == record.inputs
    for name in names:
        last = folder / name / "mask.nii.gz"  # which vouches for the others
        if same and last.is_file():
            continue
        images = manifest.subject(name).images
        arrays = {image: data.read_all(name, image) for image in images if image != "labels"}
        affine = images["mr"].grid.affine
        write_scan(Volume(arrays["mr"], affine, "mr"), folder / name / "mr.nii.gz")
        write_scan(Volume(arrays["ct"], affine, "ct"), folder / name / "ct.nii.gz")
        if "brain" in arrays:
            write_scan(Volume(arrays["brain"] > 0, affine, "mask"), folder / name / "brain.nii.gz")
        write_scan(Volume((arrays["mr_mask"] > 0) & (arrays["ct_mask"] > 0), affine, "mask"), last)
    if names:
        write_json(folder / RECORD_NAME, record.model_dump(mode="json"))


def _do_all(cells: Sequence[Cell], bench: _Bench, workers: Workers, failures: dict[Path, TransmodalError]) -> None:
    """Do every cell, those first that others build on, and put into `failures` which could not be done."""
    for wave in ([cell for cell in cells if cell.atlases is None], [cell for cell in cells if cell.atlases is not None]):
        for cell, outcome in track(_outcomes(wave, bench, workers), "studying", total=len(wave)):
            if isinstance(outcome, Interrupted):
                raise Interrupted(f"stopped in {cell.folder.as_posix()}; the same command does the rest") from outcome
            if isinstance(outcome, TransmodalError):
                failures[cell.folder] = outcome
            state = f"failed: {outcome}" if isinstance(outcome, TransmodalError) else "done"
            print(f"transmodal: {cell.folder.as_posix()}: {state}", file=sys.stderr)


def _outcomes(cells: Sequence[Cell], bench: _Bench, workers: Workers) -> Iterator[tuple[Cell, DoneCell | TransmodalError]]:
    if workers != HERE:
        yield from run_jobs(functools.partial(_do_cell, bench=bench), cells, workers)
        return
    for cell in cells:  # in this very thread, which a signal can stop at the end of a step
        try:
            yield cell, _do_cell(cell, bench=bench)
        except TransmodalError as error:
            yield cell, error


def _do_cell(cell: Cell, *, bench: _Bench) -> DoneCell:
    """Train, synthesize and evaluate, unless that is done; the note is written last and so vouches for the rest."""
    done, folder, began = bench.find(cell.folder), bench.out / CELLS_NAME / cell.folder, time.monotonic()
    if done is not None:
        return done
    recipe, run, heads = _with_atlases(cell, bench), folder / _RUN_NAME, bench.out / HEADS_NAME
    train(recipe, bench.dataset, run, resume=True, split=cell.split, quiet=True)
    sheet = None
    if cell.split.test:
        predictions = folder / _PREDICTIONS_NAME
        synthesize(heads, predictions, run, direction=recipe.direction, layout="synthrad", part="test")
        sheet = evaluate(predictions, heads, folder / _SCORES_NAME, protocols=cell.protocols, direction=recipe.direction)
    note = DoneCell(
        key=bench.keys[cell.folder],
        scores=_collect(cell, sheet, run),
        train=len(cell.split.train),
        validation=len(cell.split.validation),
        test=len(cell.split.test),
        seed=None if recipe.train is None else recipe.train.seed,
        seconds=round(time.monotonic() - began, 1),
        machine=_machine(),
        versions=package_versions(),
    )
    write_json(folder / _CELL_NAME, note.model_dump(mode="json"))
    return note


def _with_atlases(cell: Cell, bench: _Bench) -> Recipe:
    """The recipe of a cell; of one that builds on atlases, with the run that they are."""
    if cell.atlases is None:
        return cell.recipe
    if bench.find(cell.atlases) is None:
        raise DataError(f"{cell.atlases.as_posix()}: the atlases that it builds on were not made")
    run = bench.out / CELLS_NAME / cell.atlases / _RUN_NAME
    values = cell.recipe.model_dump(mode="json")
    return parse_recipe({**values, "method": {**values["method"], "atlases": str(run)}}, f"recipe {cell.arm.recipe}")


def _collect(cell: Cell, sheet: ScoreSheet | None, run: Path) -> CellScores:
    cases = {
        case.case: {f"{protocol}.{metric}": value for protocol, scores in case.scores.items() for metric, value in scores.values.items()}
        for case in (sheet.cases if sheet else ())
    }
    rows = [row for _, row in numbers(read_metrics(run / METRICS_NAME))]
    return CellScores(
        arm=cell.arm.name,
        subset=cell.subset,
        repeat=cell.repeat,
        fold=cell.fold,
        folds=cell.folds,
        cases=cases,
        people=cell.people,
        losses=mean_rows(rows[-WINDOW:]),
    )


def _machine() -> str:
    device = choose_device()
    accelerator = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {accelerator}"


def _write_results(laid: _Plan, failures: Mapping[Path, TransmodalError]) -> StudyResults:
    """Fill and write the tables with all cells that are done, in the order of the study, whatever the order in which they ended."""
    study, cells, out = laid.study, laid.cells, laid.bench.out
    done = [note for cell in cells if (note := laid.bench.find(cell.folder)) is not None]
    failed = [FailedCell(folder=cell.folder.as_posix(), message=str(failures[cell.folder])) for cell in cells if cell.folder in failures]
    ahead = len(cells) - len(done) - len(failed)
    tables = tuple(fill(table, [cell.scores for cell in done], laid.subsets, study.seed) for table in study.tables)
    results = StudyResults(
        study=study.model_dump(mode="json"),
        scaled=laid.record.settings["scaled"],
        assignments=tuple(laid.record.settings["assignments"]),
        remarks=(*laid.remarks, *([f"left out: {ahead} of {len(cells)} cells, which are not done yet"] if ahead else [])),
        preparation=tuple(dict.fromkeys(text for cell in cells if (text := other_preparation(cell.recipe, laid.manifest)))),
        record=laid.record,
        cells=tuple(done),
        failed=tuple(failed),
        tables=tables,
    )
    write_json(out / STUDY_NAME, results.model_dump(mode="json"))
    write_text(out / CSV_NAME, compose_csv(tables))
    write_text(out / MARKDOWN_NAME, compose_markdown(study.title, _introduce(study), tables, _making(study, laid.manifest, results)))
    return results


def _introduce(study: Study) -> list[str]:
    return [text for text in (study.description, study.reference and f"After: {study.reference}.") if text]


def _making(study: Study, manifest: Manifest, results: StudyResults) -> list[str]:
    """All that the numbers hold for, a line each."""
    seconds, paired = sum(cell.seconds for cell in results.cells), sum(subject.paired for subject in manifest.subjects)
    seeds = ", ".join(str(seed) for seed in sorted({cell.seed for cell in results.cells if cell.seed is not None})) or "none"
    return [
        _size_words(results),
        f"Data: {len(manifest.subjects)} subjects, {paired} of them with an MR and a CT (SHA-256 of the manifest: "
        f"{results.record.inputs['dataset']}). They are tested as the dataset holds them: on its grid, in what is mask of both images.",
        f"Division by people (seed {study.seed}): {study.division}; repeats: {study.repeats}; seeds of the trainings: {seeds}.",
        *_registration(manifest),
        *(f"{arm.name}: {_recipe_words(arm.recipe, arm.set)}" for arm in study.arms),
        *results.preparation,
        *(f"Protocol {note.name}: {statement(note)}" for note in _protocol_notes(study)),
        *study.notes,
        *results.remarks,
        *(f"Failed, and left out: {cell.folder}: {' '.join(cell.message.split())}" for cell in results.failed),
        f"Machines: {'; '.join(sorted({cell.machine for cell in results.cells})) or 'none'}; {seconds:.0f} s together.",
        f"Versions: {_version_words(results)}, Python {platform.python_version()}.",
    ]


def _size_words(results: StudyResults) -> str:
    given = f" Replaced in all recipes: {'; '.join(results.assignments)}." if results.assignments else ""
    if results.scaled:
        return f"Scaled down: these numbers show the form of the tables, not what the methods can do.{given}"
    return f"Not scaled down.{given}"


def _registration(manifest: Manifest) -> list[str]:
    """How the pairs were registered, and how well; nothing where none was."""
    found = registration_settings(manifest)
    if not found:
        return []
    metrics = {metric.name: metric for metric in find_protocol(FLOOR_PROTOCOL).note.metrics}
    floor = [f"{metrics[name].label} {with_unit(value, metrics[name].unit)}" for name, value in found["floor"].items() if name in metrics]
    return [
        f"The CTs were brought onto the MRs by {found['registration']}; the scores contain the error of this registration.",
        f"Registration floor, the true CTs against themselves as a second registration places them, by {FLOOR_PROTOCOL}: "
        f"{', '.join(floor) or 'not measured'}.",
    ]


def _version_words(results: StudyResults) -> str:
    """The versions of now, and all others that cells were made by."""
    found: dict[str, set[str]] = {}
    for versions in (results.record.versions, *(cell.versions for cell in results.cells)):
        for name, version in versions.items():
            found.setdefault(name, set()).add(version)
    return ", ".join(f"{name} {' and '.join(sorted(versions))}" for name, versions in found.items())


def _recipe_words(recipe: str, assignments: Sequence[str]) -> str:
    return f"recipe {recipe}" + (f" with {'; '.join(assignments)}" if assignments else "")


def _protocol_notes(study: Study) -> list[ProtocolNote]:
    names = dict.fromkeys((*study.protocols, *(name for arm in study.arms for name in arm.protocols or ())))
    return [find_protocol(name).note for name in names]
