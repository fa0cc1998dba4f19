"""The tables of a study as text: in the paper's form for people, and a number a line for scripts."""

import csv
import io
from collections.abc import Iterator, Sequence

from transmodal.evaluation.statistics import Interval
from transmodal.evaluation.studies import PARTS, Column, Comparison, Entry, FilledRow, FilledTable, LossTable, ScoreTable, Statistic

ABSENT = "–"
_PAPER = "paper"
_STATISTIC_WORDS: dict[Statistic, str] = {
    "mean_sd_median": "mean (standard deviation), median, over the people",
    "mean_sd": "mean ± standard deviation over the people",
    "mean_interval": "mean (95 % confidence interval by Student's t: how far the training is a matter of chance, which says nothing of "
    "other patients) over the repeats, of the mean over all people of each",
}
_COMPARED = (
    "Differences are first minus second, person by person, of the means over the subjects and repeats that both have. Intervals of 95 %: "
    "of the mean by Student's t, and by the bootstrap (BCa). P values are two-sided; in brackets, adjusted for all tests of their kind "
    "here (Holm). Effect sizes: Cohen's d_z, and the matched-pairs rank-biserial correlation. They are about other people, not about other "
    "trainings."
)

Grid = list[list[str]]


def compose_markdown(title: str, introduction: Sequence[str], tables: Sequence[FilledTable], making: Sequence[str]) -> str:
    """Write all tables of a study as Markdown.

    Parameters
    ----------
    title : str
    introduction : sequence of str
        Paragraphs before the tables.
    tables : sequence of FilledTable
    making : sequence of str
        How the numbers were made, a line each, after the tables.
    """
    blocks = [f"# {title}", *introduction, *(block for table in tables for block in _blocks(table))]
    return "\n\n".join([*blocks, "## How the numbers were made", "\n".join(f"- {line}" for line in making)]) + "\n"


def compose_csv(tables: Sequence[FilledTable]) -> str:
    """Write every number of the tables on a line of its own: where it stands, how many people or repeats it is of, ours, and the paper's.

    A value of one case has the statistic ``value``.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["table", "subset", "arm", "row", "column", "case", "statistic", "count", "ours", "published"])
    for table in tables:
        writer.writerows(_lines(table))
    return stream.getvalue()


def _blocks(table: FilledTable) -> Iterator[str]:
    form = table.form
    yield f"## {form.title} ({form.source})"
    yield _layout(_grid(table))
    if isinstance(form, ScoreTable):
        yield f"Entries: {_STATISTIC_WORDS[form.statistic]}{_counts(table)}. The columns of the {_PAPER} are of its own data."
    if form.note:
        yield form.note
    if table.comparisons:
        yield _layout(_comparison_grid(table.comparisons))
        yield _COMPARED


def _counts(table: FilledTable) -> str:
    counts = sorted({entry.count for row in table.rows for entry in row.entries})
    return f" (n = {' to '.join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))})"


def _grid(table: FilledTable) -> Grid:
    if isinstance(table.form, LossTable):
        return _loss_grid(table.form, table.losses)
    if table.form.form == "cases":
        return _case_grid(table.form, table.rows)
    return _metric_grid(table.form, table.rows) if table.form.form == "metrics" else _arm_grid(table.form, table.rows)


def _loss_grid(form: LossTable, losses: Sequence[Entry]) -> Grid:
    rows = [
        [row.label, _significant(entry.values[0], form.digits), str(_known(entry.published, 0) or ABSENT).replace("-", "−")]
        for row, entry in zip(form.rows, losses, strict=True)
    ]
    return [[*form.heads, _PAPER], *rows]


def _arm_grid(form: ScoreTable, rows: Sequence[FilledRow]) -> Grid:
    """A row an arm, and before it the subset where there are several."""
    subsets = any(row.subset for row in rows)
    pairs = [(k, column, any(row.entries[k].published for row in rows)) for k, column in enumerate(form.columns)]
    head = [title for _, column, published in pairs for title in ([column.label, _PAPER] if published else [column.label])]
    body = []
    for row in rows:
        cells = []
        for k, column, published in pairs:
            ours, theirs = _entry(form, column, row.entries[k])
            cells += [ours, theirs] if published else [ours]
        body.append([*([row.subset] if subsets else []), *row.labels, *cells])
    return [[*(["Tested on"] if subsets else []), *form.heads, *head], *body]


def _metric_grid(form: ScoreTable, rows: Sequence[FilledRow]) -> Grid:
    """A row a metric, ours above the paper's."""
    body = []
    for k, column in enumerate(form.columns):
        entries = [_entry(form, column, row.entries[k]) for row in rows]
        body.append([column.label, *(ours for ours, _ in entries)])
        if any(row.entries[k].published for row in rows):
            body.append([f"{column.label}, {_PAPER}", *(theirs for _, theirs in entries)])
    return [[" ".join(form.heads), *(" ".join(row.labels) for row in rows)], *body]


def _case_grid(form: ScoreTable, rows: Sequence[FilledRow]) -> Grid:
    """A row a case, the arms beside one another under each metric, and all cases last; then the same of the paper."""
    names = sorted({name for row in rows for name in row.cases})
    head = [f"{column.label}, {' '.join(row.labels)}" for column in form.columns for row in rows]
    places = [(k, column.decimals, row) for k, column in enumerate(form.columns) for row in rows]
    body = [[name, *(_fixed(_known(row.cases.get(name, ()), k), decimals) for k, decimals, row in places)] for name in names]
    entries = [_entry(form, column, row.entries[k]) for k, column in enumerate(form.columns) for row in rows]
    body.append(["All", *(ours for ours, _ in entries)])
    for number in range(len(rows[0].published_cases)):
        values = [_printed(_known(row.published_cases[number], k), decimals) for k, decimals, row in places]
        body.append([f"{_PAPER}, {number + 1}", *values])
    if any(theirs != ABSENT for _, theirs in entries):
        body.append([f"{_PAPER}, all", *(theirs for _, theirs in entries)])
    return [[" ".join(form.heads), *head], *body]


def _comparison_grid(comparisons: Sequence[Comparison]) -> Grid:
    head = ["Compared", "Metric", "n", "Difference", "Interval", "Bootstrap", "p, t test", "p, Wilcoxon", "d_z", "Rank-biserial"]
    return [head, *(_comparison(found) for found in comparisons)]


def _comparison(found: Comparison) -> list[str]:
    result, of = found.result, _PAPER if found.published else found.subset
    return [
        f"{found.first} − {found.second}" + (f" ({of})" if of else ""),
        found.column,
        str(result.cases),
        _significant(result.difference, 3),
        _interval(result.interval),
        _interval(result.bootstrap),
        _p(result.p_t, found.p_t_holm),
        _p(result.p_wilcoxon, found.p_wilcoxon_holm),
        _fixed(result.cohen_dz, 2),
        _fixed(result.rank_biserial, 2),
    ]


def _lines(table: FilledTable) -> Iterator[list[object]]:
    title, form = table.form.title, table.form
    if isinstance(form, LossTable):
        for row, entry in zip(form.rows, table.losses, strict=True):
            published = _plain(_known(entry.published, 0))
            yield [title, "", form.arm, row.label, form.heads[1], "", "mean", entry.count, _plain(entry.values[0]), published]
        return
    for row in table.rows:
        label = " ".join(row.labels)
        for column, entry in zip(form.columns, row.entries, strict=True):
            for k, part in enumerate(PARTS[form.statistic]):
                published = _plain(_known(entry.published, k))
                yield [title, row.subset, row.arm, label, column.label, "", part, entry.count, _plain(entry.values[k]), published]
        for name, values in row.cases.items():
            for column, value in zip(form.columns, values, strict=True):
                yield [title, row.subset, row.arm, label, column.label, name, "value", 1, _plain(value), ""]
        for number, values in enumerate(row.published_cases):
            for column, value in zip(form.columns, values, strict=False):
                yield [title, row.subset, row.arm, label, column.label, f"{_PAPER}, {number + 1}", "value", 1, "", value]


def _entry(form: ScoreTable, column: Column, entry: Entry) -> tuple[str, str]:
    """Ours and the paper's, in the statistic of the table."""
    ours = [_fixed(value, column.decimals) for value in entry.values]
    theirs = [_printed(value, column.decimals) for value in entry.published]
    return _phrase(form.statistic, ours), _phrase(form.statistic, theirs) if theirs else ABSENT


def _phrase(statistic: Statistic, numbers: Sequence[str]) -> str:
    """The numbers as the papers print them; what is not defined is left out."""
    first, second = numbers[0], numbers[1]
    if statistic == "mean_sd":
        return first if second == ABSENT else f"{first} ± {second}"
    if statistic == "mean_interval":
        return first if second == ABSENT else f"{first} ({second}–{numbers[2]})"
    if first == ABSENT:
        return ABSENT
    return f"{first if second == ABSENT else f'{first} ({second})'}, {numbers[2]}"


def _interval(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return ABSENT
    return f"{_significant(interval.low, 3)} to {_significant(interval.high, 3)}"


def _p(raw: float | None, adjusted: float | None) -> str:
    return ABSENT if raw is None or adjusted is None else f"{_probability(raw)} ({_probability(adjusted)})"


def _probability(p: float) -> str:
    return "<0.0001" if p < 0.0001 else f"{p:.4f}"


def _known(values: Sequence[float | None], k: int) -> float | None:
    return values[k] if k < len(values) else None


def _fixed(value: float | None, decimals: int) -> str:
    return ABSENT if value is None else f"{value:z.{decimals}f}".replace("-", "−")


def _printed(value: float | None, decimals: int) -> str:
    """A published number with the digits that it was published with, zeros filled up."""
    printed = 0 if value is None else len(repr(value).partition(".")[2].rstrip("0"))
    return _fixed(value, max(decimals, printed))


def _significant(value: float | None, digits: int) -> str:
    return ABSENT if value is None else f"{value:z.{digits}g}".replace("-", "−")


def _plain(value: float | None) -> str:
    return "" if value is None else repr(value)


def _layout(grid: Grid) -> str:
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in grid]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *body])
