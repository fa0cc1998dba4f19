"""The page of a report, composed from scores, slices and training curves."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from transmodal.core.record import Record
from transmodal.evaluation.agreement import Agreement
from transmodal.evaluation.protocol import ProtocolNote
from transmodal.evaluation.results import CaseScores, ScoreSheet
from transmodal.reporting.agreement import bland_altman_chart, error_chart, joint_chart
from transmodal.reporting.curves import Curve
from transmodal.reporting.figures import Chart, curve_chart, strip_chart
from transmodal.reporting.health import Row, final_losses, health_words, is_adversarial
from transmodal.reporting.html import Page, Picture, Section, Tile, data_uri
from transmodal.reporting.slices import CaseSlices, error_limit, side_by_side, slice_figure
from transmodal.reporting.tables import badness, cases_table, differences_table, methods_table, number, statement, with_unit
from transmodal.reporting.viewer import ViewedCase, make_viewer
from transmodal.reporting.words import cautions, lead, leading, product_of, without_folders


@dataclass(frozen=True)
class Shown:
    """A case that is shown: its place among the cases (``Best``, ``Median``, ``Worst``), its scores and its slices."""

    place: str
    case: CaseScores
    slices: CaseSlices


@dataclass(frozen=True)
class Scored:
    """The scores of one method, with the cases that are shown, and what kept others from being shown.

    `agreement` is that over all cases that could be read, in `unit`, which for MRs is grey levels.
    """

    name: str
    sheet: ScoreSheet
    record: Record | None = None
    shown: Sequence[Shown] = field(default=())
    unseen: Sequence[str] = field(default=())
    agreement: Agreement | None = None
    unit: str = "HU"


@dataclass(frozen=True)
class Compared:
    """A case to look into: its volumes, and its slices by every method that made it."""

    viewed: ViewedCase
    slices: Sequence[tuple[str, CaseSlices]]


@dataclass(frozen=True)
class Trained:
    """A training run: metric, then split, to its curve; the rows of its log; and the last picture of what it made, as PNG."""

    name: str
    curves: dict[str, dict[str, Curve]]
    record: Record | None = None
    rows: Sequence[tuple[int, Row]] = field(default=())
    preview: bytes | None = None


def compose(
    scored: Sequence[Scored],
    trained: Sequence[Trained],
    made: Record,
    title: str | None = None,
    compared: Sequence[Compared] = (),
    unseen: Sequence[str] = (),
    *,
    viewer: bool = True,
) -> Page:
    """Lay out a report.

    Parameters
    ----------
    scored : sequence of Scored
        One a method; each with a name of its own.
    trained : sequence of Trained
    made : Record
        Of the report itself.
    title : str, optional
        By default made from the names.
    compared : sequence of Compared
        The cases to look into.
    unseen : sequence of str
        What kept others from being shown.
    viewer : bool
        Whether the cases to look into come with the viewer.
    """
    sheets = [(method.name, method.sheet) for method in scored]
    sections = [
        *_methods(scored),
        *_agreement(scored),
        *_compared(compared, scored, viewer),
        *_cases(scored),
        *_slices(scored),
        *_training(trained),
        *_provenance(scored, trained, made),
    ]
    return Page(
        title=title or _title(scored, trained, compared),
        lead=_lead(scored, trained, compared),
        tiles=_tiles(scored),
        cautions=[*(without_folders(problem) for problem in unseen), *cautions(sheets)],
        sections=sections,
        footer=f"Made {made.created} by transmodal {made.versions.get('transmodal', '')}. For research; not for diagnostic use.",
    )


def _title(scored: Sequence[Scored], trained: Sequence[Trained], compared: Sequence[Compared]) -> str:
    if not scored and compared:
        return f"Synthetic images: {', '.join(name for name, _ in compared[0].slices)}"
    if not scored:
        return f"Training of {', '.join(run.name for run in trained)}"
    product = product_of(scored[0].sheet)
    return f"{product[0].upper()}{product[1:]}: {', '.join(method.name for method in scored)}"


def _lead(scored: Sequence[Scored], trained: Sequence[Trained], compared: Sequence[Compared]) -> list[str]:
    if not scored and compared:
        return ["These images have no true ones beside them: they can be looked at, and nothing is known of their errors."]
    if not scored:
        return ["Training curves only: no scores were given, so nothing is said here of the quality of the images."] if trained else []
    return [*_comparison(scored), *(" ".join(lead(method.name, method.sheet)) for method in scored)]


def _comparison(scored: Sequence[Scored]) -> Iterator[str]:
    best = _best(scored)
    if len(scored) > 1 and best:
        protocol, metric = leading(best.sheet)
        mean = best.sheet.summary[protocol][metric.name].mean
        yield f"Of {len(scored)} methods, {best.name} has the best mean {metric.label}: {with_unit(mean, metric.unit)}."


def _best(scored: Sequence[Scored]) -> Scored | None:
    """Find the method with the best mean of the metric that leads the first one's protocol."""
    protocol, metric = leading(scored[0].sheet)
    means = [(method.sheet.summary.get(protocol, {}).get(metric.name), method) for method in scored]
    known = [(badness(metric, summary.mean), index) for index, (summary, _) in enumerate(means) if summary and summary.mean is not None]
    return scored[min(known)[1]] if known else None


def _tiles(scored: Sequence[Scored]) -> list[Tile]:
    best = _best(scored) if scored else None
    if best is None:
        return []
    protocol = best.sheet.protocols[0]
    prefix = f"{best.name}, " if len(scored) > 1 else ""
    tiles = []
    for metric in protocol.metrics:
        summary = best.sheet.summary[protocol.name][metric.name]
        spread = f"SD {number(summary.sd, metric.unit)}, median {number(summary.median, metric.unit)}"
        tiles.append(Tile(f"{prefix}{metric.label} ({protocol.title})", number(summary.mean, metric.unit), metric.unit, spread))
    return tiles


def _protocols(scored: Sequence[Scored]) -> list[tuple[ProtocolNote, list[Scored]]]:
    """Every protocol that occurs, in the order of appearance, with the methods scored by it."""
    notes = {note.name: note for method in reversed(scored) for note in reversed(method.sheet.protocols)}
    return [(notes[name], [m for m in scored if name in m.sheet.summary]) for name in reversed(notes)]


def _methods(scored: Sequence[Scored]) -> Iterator[Section]:
    letters = _letters(scored)
    for note, methods in _protocols(scored):
        named = [(f"{letters[m.name]}  {m.name}" if len(scored) > 1 else m.name, m.sheet) for m in methods]
        charts = []
        for metric in note.metrics:
            groups = [(letters[m.name], _values(m.sheet, note.name, metric.name)) for m in methods]
            if any(values for _, values in groups):
                alt = f"{metric.label} of every case" + "".join(f"; {name}: {_range(values, metric.unit)}" for name, values in groups)
                charts.append(_picture(strip_chart(metric, groups), alt))
        by_letter = [(letters[m.name], m.sheet) for m in methods]
        tables = [methods_table(note, named), *([differences_table(note, by_letter)] if len(methods) > 1 else [])]
        yield Section(title=note.title, paragraphs=[statement(note)], tables=tables, charts=charts)


def _values(sheet: ScoreSheet, protocol: str, metric: str) -> list[float]:
    values = (case.scores[protocol].values[metric] for case in sheet.cases)
    return [value for value in values if value is not None]


def _range(values: Sequence[float], unit: str) -> str:
    return f"{number(min(values), unit)} to {with_unit(max(values), unit)}" if values else "no value"


def _picture(chart: Chart, alt: str) -> Picture:
    return Picture(light=data_uri(chart.light, "image/svg+xml"), dark=data_uri(chart.dark, "image/svg+xml"), alt=alt)


def _cases(scored: Sequence[Scored]) -> Iterator[Section]:
    for method in scored:
        tables = [cases_table(note, method.name, method.sheet) for note in method.sheet.protocols if method.sheet.cases]
        failures = [(failure.case, without_folders(failure.message, failure.paths)) for failure in method.sheet.failures]
        facts = [("Cases that could not be scored", failures)] if failures else []
        yield Section(title=f"Case by case: {method.name}", tables=tables, facts=facts)


_HOW_THEY_AGREE = (
    "Every voxel inside the masks of all cases. In the joint histograms, true against synthetic value, what agrees lies on the line; "
    "colours go from one voxel to many on a logarithmic scale. In the Bland–Altman plots, the difference over the mean of both, stand the "
    "bias and, dashed, the limits that 95 % of the differences would lie within if they were normally distributed."
)


def _agreement(scored: Sequence[Scored]) -> Iterator[Section]:
    letters = _letters(scored)
    for unit in dict.fromkeys(method.unit for method in scored if method.agreement is not None):
        known = {m.name: m.agreement for m in scored if m.agreement is not None and m.unit == unit}
        lines = [(letters[name], found) for name, found in known.items()]
        charts = [
            _picture(error_chart(lines, unit, absolute), f"{kind} along the true value, in {unit}: {_key(letters, known)}")
            for absolute, kind in ((True, "Mean absolute error"), (False, "Mean error"))
        ]
        for name, found in known.items():
            low, high = found.limits_of_agreement
            words = f"bias {number(found.bias, unit)}, limits of agreement {number(low, unit)} to {with_unit(high, unit)}"
            charts.append(_picture(joint_chart(found, letters[name], unit), f"{name}: joint histogram of true and synthetic; {words}"))
            charts.append(_picture(bland_altman_chart(found, letters[name], unit), f"{name}: Bland–Altman plot; {words}"))
        key = [f"{_key(letters, known)}."] if len(scored) > 1 else []
        yield Section(title="Agreement, voxel by voxel", paragraphs=[_HOW_THEY_AGREE, *key], charts=charts)


def _letters(scored: Sequence[Scored]) -> dict[str, str]:
    """A letter for each method, which figures have room for; its name, where it is the only one."""
    return {method.name: chr(ord("A") + index) if len(scored) > 1 else method.name for index, method in enumerate(scored)}


def _key(letters: dict[str, str], names: Iterable[str]) -> str:
    return ", ".join(f"{letters[name]} {name}" if letters.get(name, name) != name else name for name in names)


_ERRORS = ", and the error of each: red where it is too low, blue where it is too high."


def _compared(compared: Sequence[Compared], scored: Sequence[Scored], viewer: bool) -> Iterator[Section]:
    letters, shown = _letters(scored), {shown.case.case for method in scored for shown in method.shown}
    for one in compared:
        limit = error_limit([slices for _, slices in one.slices]) if one.viewed.reference is not None else None
        joined, case = side_by_side([(letters.get(name, name), slices) for name, slices in one.slices]), one.viewed.case
        names = _key(letters, [name for name, _ in one.slices])
        picture = Picture(
            light=data_uri(slice_figure(joined, limit or 1.0), "image/png"),
            alt=f"Axial, coronal and sagittal slices of {case} in columns: {', '.join(column.title for column in joined.columns)}",
            caption=f"{case} by {names}{_ERRORS if one.viewed.reference is not None else '.'}",
        )
        pictures = [picture] if len(one.slices) > 1 or case not in shown else []
        viewers = [make_viewer(one.viewed, limit)] if viewer else []
        if viewers or pictures:
            yield Section(title=f"Look into {case}", viewers=viewers, pictures=pictures)


_HOW_TO_LOOK = (
    "Slices through the centre of the mask, in radiological convention: the patient's right is on the left. Errors are shown inside "
    "the mask, whose outline is drawn: red where the synthetic image is too low, blue where it is too high, on one scale for all cases."
)


def _slices(scored: Sequence[Scored]) -> Iterator[Section]:
    limits = {
        direction: error_limit([shown.slices for method in scored if method.sheet.direction == direction for shown in method.shown])
        for direction in {method.sheet.direction for method in scored}
    }
    for method in scored:
        if method.shown or method.unseen:
            text = [_HOW_TO_LOOK] if method.shown else []
            pictures = [_slice_picture(method, shown, limits[method.sheet.direction]) for shown in method.shown]
            yield Section(title=f"Slices: {method.name}", paragraphs=[*text, *map(without_folders, method.unseen)], pictures=pictures)


def _slice_picture(method: Scored, shown: Shown, limit: float) -> Picture:
    protocol = method.sheet.protocols[0]
    values = shown.case.scores[protocol.name].values
    scores = ", ".join(f"{metric.label}\u00a0{with_unit(values[metric.name], metric.unit)}" for metric in protocol.metrics)
    place = "The only case" if len(method.sheet.cases) == 1 else f"{shown.place} case"
    columns = ", ".join(column.title for column in shown.slices.columns)
    return Picture(
        light=data_uri(slice_figure(shown.slices, limit), "image/png"),
        alt=f"Axial, coronal and sagittal slices of {shown.case.case} in columns: {columns}",
        caption=f"{place}: {shown.case.case} by {method.name}. {protocol.title}: {scores}.",
    )


def _training(trained: Sequence[Trained]) -> Iterator[Section]:
    for run in trained:
        charts = []
        for metric, curves in run.curves.items():
            drawn = {split: curve for split, curve in curves.items() if curve.steps}
            if drawn:
                ends = "; ".join(
                    f"{split} ends at {curve.values[-1]:.4g} after step {curve.steps[-1]:.0f}" for split, curve in drawn.items()
                )
                charts.append(_picture(curve_chart(metric, drawn), f"{metric} along the training, at its end: {ends}"))
        words = [] if charts else ["No measurement was written yet."]
        adversarial = is_adversarial(run.rows)
        yield Section(
            title=f"Training: {run.name}",
            charts=charts,
            paragraphs=[*words, *(health_words(run.rows) if adversarial else [])],
            tables=[final_losses(run.rows, run.name, _cycle_source(run.record))] if adversarial else [],
            pictures=[_preview(run.name, run.preview)] if run.preview else [],
        )


def _cycle_source(record: Record | None) -> str | None:
    """Of a CycleGAN, the modality that it goes from."""
    recipe = record.settings if record else {}
    method = recipe.get("method")
    is_cycle = isinstance(method, dict) and method.get("name") == "cyclegan"
    return str(recipe.get("direction", "mr2ct"))[:2] if is_cycle else None


def _preview(name: str, picture: bytes) -> Picture:
    return Picture(
        light=data_uri(picture, "image/png"),
        alt=f"Images of {name} at the last validation, a sample in each row; the titles of the columns are in the picture",
        caption=f"What {name} made at its last validation, of subjects that it was not trained on.",
    )


def _provenance(scored: Sequence[Scored], trained: Sequence[Trained], made: Record) -> Iterator[Section]:
    records = [
        *((f"{method.name}: predictions", method.sheet.made_by) for method in scored),
        *((f"{method.name}: scores", method.record) for method in scored),
        *((f"{run.name}: training", run.record) for run in trained),
        ("This report", made),
    ]
    absent = [f"No record: {name}." for name, record in records if record is None]
    facts = [(name, _facts(record)) for name, record in records if record is not None]
    yield Section(title="Provenance", paragraphs=absent, facts=facts)


def _facts(record: Record) -> list[tuple[str, str]]:
    settings = record.settings.items()
    return [
        ("Command", record.command),
        ("Made", record.created),
        ("Seed", "none" if record.seed is None else str(record.seed)),
        ("Platform", record.platform),
        *((f"{name} version", version) for name, version in record.versions.items()),
        *((key, without_folders(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))) for key, value in settings),
        *((f"SHA-256 of {without_folders(name)}", digest) for name, digest in record.inputs.items()),
    ]
