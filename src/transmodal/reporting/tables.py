"""Tables of scores, as plain text cells that the template lays out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from transmodal.evaluation.cases import person_of
from transmodal.evaluation.protocol import MetricNote, ProtocolNote
from transmodal.evaluation.results import ScoreSheet
from transmodal.evaluation.statistics import PairedComparison, Summary, compare, holm

ABSENT = "–"
_DECIMALS = {"HU": 1, "HU²": 0, "grey levels": 1, "dB": 2, "mm": 2, "": 3}


@dataclass(frozen=True)
class Cell:
    """One value: its text, a second line, the number to sort by, and whether it is the best of its column."""

    text: str
    detail: str = ""
    sort: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Parameters
    ----------
    caption : str
    heads : sequence of (label, unit)
        One for each column, the first included.
    rows : sequence of (name, cells)
    notes : sequence of str
        Lines under the table.
    """

    caption: str
    heads: Sequence[tuple[str, str]]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    notes: Sequence[str] = field(default=())


def number(value: float | None, unit: str) -> str:
    """Write a value with the decimals that its unit deserves and a true minus sign (none at zero), or a dash for None."""
    return ABSENT if value is None else f"{value:z.{_DECIMALS.get(unit, 3)}f}".replace("-", "−")


def with_unit(value: float | None, unit: str) -> str:
    """Write a value and its unit, joined by a space that does not break."""
    return f"{number(value, unit)}\u00a0{unit}" if unit else number(value, unit)


def mean_sd(summary: Summary, unit: str) -> str:
    """``mean (SD)``; the mean alone where there is no standard deviation."""
    mean = number(summary.mean, unit)
    return mean if summary.sd is None else f"{mean} ({number(summary.sd, unit)})"


def methods_table(protocol: ProtocolNote, sheets: Sequence[tuple[str, ScoreSheet]]) -> Table:
    """One row a method: mean (SD), and the median under it; the best mean of each column is marked where there are several.

    Parameters
    ----------
    protocol : ProtocolNote
    sheets : sequence of (name, sheet)
        Each scored by `protocol`.
    """
    summaries = [sheet.summary[protocol.name] for _, sheet in sheets]
    best = {metric.name: _best(metric, [summary[metric.name].mean for summary in summaries]) for metric in protocol.metrics}
    rows = []
    for name, sheet in sheets:
        cells = [_summary_cell(metric, sheet.summary[protocol.name][metric.name], best[metric.name]) for metric in protocol.metrics]
        rows.append((name, [Cell(str(len(sheet.cases)), sort=float(len(sheet.cases))), *cells]))
    caption = f"{protocol.title}: mean (standard deviation) and median over the cases"
    return Table(caption, [("Method", ""), ("Cases", ""), *_heads(protocol)], rows)


def differences_table(protocol: ProtocolNote, sheets: Sequence[tuple[str, ScoreSheet]]) -> Table:
    """One row a pair of methods: how far they are apart by the protocol's first metric, over the cases that both have done.

    Of a person with several sessions the mean counts as one case: the test asks for independent ones.

    Of a metric whose best value is zero, such as a bias, the size is compared. Tested by Wilcoxon's signed ranks, with p values adjusted
    for the number of pairs by Holm's procedure.

    Parameters
    ----------
    protocol : ProtocolNote
    sheets : sequence of (name, sheet)
        At least two, each scored by `protocol`.
    """
    metric = protocol.metrics[0]
    values = {name: _values(sheet, protocol.name, metric) for name, sheet in sheets}
    pairs = list(combinations(values, 2))
    found = [_compare(values[first], values[second]) for first, second in pairs]
    adjusted = holm([comparison.p_wilcoxon for comparison in found])
    rows = [
        (f"{first} − {second}", _difference_cells(comparison, p, metric.unit))
        for (first, second), comparison, p in zip(pairs, found, adjusted, strict=True)
    ]
    label = f"|{metric.label}|" if metric.better == "zero" else metric.label
    heads = [("Methods", ""), ("Cases", ""), (f"Difference of {label}", metric.unit), ("95 % interval", metric.unit)]
    heads += [("p, adjusted", ""), ("Rank-biserial", "")]
    note = (
        "Wilcoxon signed-rank test over the cases, two-sided, adjusted by Holm's procedure for the pairs of this table; interval of the "
        "mean by Student's t. The sessions of one person (BIDS) are averaged first, and count as one case."
    )
    return Table(f"{protocol.title}: differences in {label} between methods, case by case", heads, rows, [note])


def cases_table(protocol: ProtocolNote, name: str, sheet: ScoreSheet) -> Table:
    """One row a case, and under the table why values are missing."""
    rows, notes = [], []
    for case in sheet.cases:
        scores = case.scores[protocol.name]
        rows.append((case.case, [Cell(number(scores.values[m.name], m.unit), sort=scores.values[m.name]) for m in protocol.metrics]))
        notes += [f"{case.case}, {m.label}: {scores.reasons[m.name]}" for m in protocol.metrics if m.name in scores.reasons]
    return Table(f"{protocol.title}: every case of {name}", [("Case", ""), *_heads(protocol)], rows, notes)


def statement(protocol: ProtocolNote) -> str:
    """Say what the numbers of a protocol hold for."""
    return f"Voxels: {protocol.mask}. Clipping: {protocol.clip}."


def badness(metric: MetricNote, value: float) -> float:
    """Give a number that is smaller for a better value."""
    return {"lower": value, "higher": -value, "zero": abs(value)}[metric.better]


def _values(sheet: ScoreSheet, protocol: str, metric: MetricNote) -> dict[str, float]:
    """By case, where it has one."""
    values = {case.case: case.scores[protocol].values[metric.name] for case in sheet.cases}
    return {case: abs(value) if metric.better == "zero" else value for case, value in values.items() if value is not None}


def _compare(first: dict[str, float], second: dict[str, float]) -> PairedComparison:
    common = sorted(first.keys() & second.keys())
    people: dict[str, list[str]] = {}
    for case in common:
        people.setdefault(person_of(case), []).append(case)
    of_each = [[float(np.mean([values[case] for case in cases])) for cases in people.values()] for values in (first, second)]
    return compare(of_each[0], of_each[1])


def _difference_cells(comparison: PairedComparison, p: float | None, unit: str) -> list[Cell]:
    low, high = comparison.interval.low, comparison.interval.high
    interval = ABSENT if low is None or high is None else f"{number(low, unit)} to {number(high, unit)}"
    return [
        Cell(str(comparison.cases), sort=float(comparison.cases)),
        Cell(number(comparison.difference, unit), sort=comparison.difference),
        Cell(interval),
        Cell(ABSENT if p is None else f"{p:.2g}", sort=p),
        Cell(number(comparison.rank_biserial, ""), sort=comparison.rank_biserial),
    ]


def _heads(protocol: ProtocolNote) -> list[tuple[str, str]]:
    return [(metric.label, metric.unit) for metric in protocol.metrics]


def _best(metric: MetricNote, means: Sequence[float | None]) -> float | None:
    known = [mean for mean in means if mean is not None]
    return min(known, key=lambda mean: badness(metric, mean)) if len(known) > 1 else None


def _summary_cell(metric: MetricNote, summary: Summary, best: float | None) -> Cell:
    detail = f"median {number(summary.median, metric.unit)}" + (f", {summary.left_out} left out" if summary.left_out else "")
    return Cell(mean_sd(summary, metric.unit), detail, summary.mean, best is not None and summary.mean == best)
