"""The tables of a study: their form as a paper has it, and the numbers that fill it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Annotated, Literal

from pydantic import Field, model_validator

from transmodal.core.config import Config
from transmodal.evaluation.statistics import PairedComparison, compare, holm, mean_interval, summarize

# How many numbers an entry of a table has.
Statistic = Literal["mean_sd_median", "mean_sd", "mean_interval"]
SIZES: dict[Statistic, int] = {"mean_sd_median": 3, "mean_sd": 2, "mean_interval": 3}
PARTS: dict[Statistic, tuple[str, ...]] = {
    "mean_sd_median": ("mean", "sd", "median"),
    "mean_sd": ("mean", "sd"),
    "mean_interval": ("mean", "low", "high"),
}

Numbers = tuple[float, ...]
# A case and a repeat, to the value of a metric.
_Values = dict[tuple[str, int], float]


class Column(Config):
    """A metric of a table.

    Parameters
    ----------
    label : str
        As the paper has it.
    protocol, metric : str
        What it is measured by.
    decimals : int
        That ours are printed with.
    scale : float
        What values are multiplied by first, such as 0.001 for a column in thousands.
    tested : bool
        Whether arms are compared by it; not if it says the same as another column.
    """

    label: str
    protocol: str
    metric: str
    decimals: int = Field(default=2, ge=0)
    scale: float = 1.0
    tested: bool = True

    @property
    def key(self) -> str:
        """The name of the metric in scores of cases."""
        return f"{self.protocol}.{self.metric}"


class Row(Config):
    """An arm of a table.

    Parameters
    ----------
    arm : str
    labels : tuple of str
        What the paper calls it, one for each of the table's heads.
    published : tuple of tuple of float
        For each of the first columns, the numbers of the table's statistic.
    published_cases : tuple of tuple of float
        For each of the paper's cases, its value in the first columns.
    """

    arm: str
    labels: tuple[str, ...]
    published: tuple[Numbers, ...] = ()
    published_cases: tuple[Numbers, ...] = ()


class ScoreTable(Config):
    """A table of scores.

    Parameters
    ----------
    title, source : str
        What it shows, and which table of the paper it is.
    form : {"arms", "metrics", "cases"}
        A row an arm; a row a metric, with the arms as columns; or a row a case, with the arms beside one another, and a last one of all.
    statistic : {"mean_sd_median", "mean_sd", "mean_interval"}
        Over the people, of each the mean over his or her cases; or the mean over all people of each repeat, and over the repeats its mean
        with the 95 % interval.
    heads : tuple of str
        Of the columns that name the rows.
    columns : tuple of Column
    rows : tuple of Row
    compare : tuple of pairs of arms
        Which are tested against each other.
    note : str
        What else is to be said under it.
    """

    kind: Literal["scores"]
    title: str
    source: str
    form: Literal["arms", "metrics", "cases"] = "arms"
    statistic: Statistic
    heads: tuple[str, ...]
    columns: tuple[Column, ...] = Field(min_length=1)
    rows: tuple[Row, ...] = Field(min_length=1)
    compare: tuple[tuple[str, str], ...] = ()
    note: str = ""

    @model_validator(mode="after")
    def _fits_together(self) -> "ScoreTable":
        arms = self.arms
        for row in self.rows:
            if len(row.labels) != len(self.heads):
                raise ValueError(f"{row.arm} has {len(row.labels)} labels, and the table {len(self.heads)} heads")
            if len(row.published) > len(self.columns) or any(len(numbers) != SIZES[self.statistic] for numbers in row.published):
                raise ValueError(
                    f"{row.arm}: published has not {SIZES[self.statistic]} numbers for each of at most {len(self.columns)} columns"
                )
            if any(len(values) > len(self.columns) for values in row.published_cases):
                raise ValueError(f"{row.arm}: published_cases has more values than the table columns")
        if len({tuple(len(values) for values in row.published_cases) for row in self.rows}) > 1:
            raise ValueError("published_cases are not of the same cases and columns in all rows")
        unknown = [arm for pair in self.compare for arm in pair if arm not in arms]
        if unknown:
            raise ValueError(f"compare: {', '.join(unknown)} is no row of the table")
        return self

    @property
    def arms(self) -> list[str]:
        """The arms that it shows."""
        return [row.arm for row in self.rows]


class LossRow(Config):
    """A loss as the paper names it, the metrics of the training log that it is the sum of, and its published value."""

    label: str
    terms: tuple[str, ...] = Field(min_length=1)
    published: float | None = None


class LossTable(Config):
    """A table of the losses at the end of the trainings of one arm, with as many significant digits as `digits`."""

    kind: Literal["losses"]
    title: str
    source: str
    arm: str
    heads: tuple[str, str]
    rows: tuple[LossRow, ...] = Field(min_length=1)
    digits: int = Field(default=4, ge=1)
    note: str = ""

    @property
    def arms(self) -> list[str]:
        """The arm that it shows."""
        return [self.arm]


Table = Annotated[ScoreTable | LossTable, Field(discriminator="kind")]


class CellScores(Config):
    """What one training of a study came to.

    Parameters
    ----------
    arm : str
    subset : str
        The part of the dataset that was tested, such as ``"hospital A"``; empty for all of it.
    repeat, fold : int
        From 1.
    folds : int
        How many there are in a repeat.
    cases : dict
        Case, then ``protocol.metric``, to the value, or None where it is not defined.
    people : dict
        Case to the person whose it is; a case that it lacks is of a person by itself.
    losses : dict
        Metric of the training log to its mean over the last rows.
    """

    arm: str
    subset: str = ""
    repeat: int
    fold: int
    folds: int
    cases: dict[str, dict[str, float | None]] = {}
    people: dict[str, str] = {}
    losses: dict[str, float] = {}


class Entry(Config):
    """The numbers in one place of a table.

    Parameters
    ----------
    count : int
        How many people, or repeats, they are of.
    values : tuple of float or None
        As many as the statistic has.
    published : tuple of float
        The paper's, where it has them.
    """

    count: int
    values: tuple[float | None, ...]
    published: Numbers = ()


class FilledRow(Config):
    """A row with its numbers.

    Parameters
    ----------
    arm : str
    labels : tuple of str
    subset : str
    entries : tuple of Entry
        One for each column.
    cases : dict
        Case to its value in each column, over all repeats.
    published_cases : tuple of tuple of float
    """

    arm: str
    labels: tuple[str, ...]
    subset: str
    entries: tuple[Entry, ...]
    cases: dict[str, tuple[float | None, ...]]
    published_cases: tuple[Numbers, ...]


class Comparison(Config):
    """Two arms by one metric.

    Parameters
    ----------
    first, second : str
        Arms.
    subset : str
    column : str
        Label of the metric.
    published : bool
        Whether of the paper's cases.
    result : PairedComparison
        In the unit of the table.
    p_t_holm, p_wilcoxon_holm : float or None
        Adjusted for all tests under the table of this kind.
    """

    first: str
    second: str
    subset: str
    column: str
    published: bool
    result: PairedComparison
    p_t_holm: float | None = None
    p_wilcoxon_holm: float | None = None


class FilledTable(Config):
    """A table with its numbers; of losses, one value a row."""

    form: Table
    rows: tuple[FilledRow, ...] = ()
    losses: tuple[Entry, ...] = ()
    comparisons: tuple[Comparison, ...] = ()


def fill(table: ScoreTable | LossTable, cells: Sequence[CellScores], subsets: Sequence[str] = ("",), seed: int = 0) -> FilledTable:
    """Put numbers into a table.

    Parameters
    ----------
    table : ScoreTable or LossTable
    cells : sequence of CellScores
        Those that are done; an entry without any has no values.
    subsets : sequence of str
        The rows are repeated for each.
    seed : int
        Of the bootstrap.
    """
    if isinstance(table, LossTable):
        return FilledTable(form=table, losses=tuple(_loss(row, [cell for cell in cells if cell.arm == table.arm]) for row in table.rows))
    rows = [
        _fill_row(table, row, subset, [cell for cell in cells if cell.arm == row.arm and cell.subset == subset])
        for subset in subsets
        for row in table.rows
    ]
    comparisons = [
        comparison
        for subset in subsets
        for comparison in _compare_arms(table, subset, [cell for cell in cells if cell.subset == subset], seed)
    ]
    return FilledTable(form=table, rows=tuple(rows), comparisons=tuple(_adjust(comparisons) + _adjust(_compare_published(table, seed))))


def _loss(row: LossRow, cells: Sequence[CellScores]) -> Entry:
    sums = [sum(cell.losses[term] for term in row.terms) for cell in cells if set(row.terms) <= cell.losses.keys()]
    return Entry(count=len(sums), values=(summarize(sums).mean,), published=() if row.published is None else (row.published,))


def _fill_row(table: ScoreTable, row: Row, subset: str, cells: Sequence[CellScores]) -> FilledRow:
    people = _people(cells)
    by_case = [_over_repeats(_values(cells, column)) for column in table.columns]
    names = sorted({name for found in by_case for name in found})
    entries = []
    for k, column in enumerate(table.columns):
        published = row.published[k] if k < len(row.published) else ()
        values = _repeat_means(cells, column) if table.statistic == "mean_interval" else _over_cases(by_case[k], people)
        entries.append(Entry(count=len(values), values=_STATISTICS[table.statistic](values), published=published))
    return FilledRow(
        arm=row.arm,
        labels=row.labels,
        subset=subset,
        entries=tuple(entries),
        cases={name: tuple(found.get(name) for found in by_case) for name in names},
        published_cases=row.published_cases,
    )


def _people(cells: Sequence[CellScores]) -> dict[str, str]:
    return {case: person for cell in cells for case, person in cell.people.items()}


def _values(cells: Sequence[CellScores], column: Column) -> _Values:
    """What is defined."""
    scores = {(case, cell.repeat): scores.get(column.key) for cell in cells for case, scores in cell.cases.items()}
    return {key: value * column.scale for key, value in sorted(scores.items()) if value is not None}


def _over_repeats(values: _Values) -> dict[str, float]:
    """The mean of each case over the repeats."""
    return _means((case, value) for (case, _), value in values.items())


def _over_cases(by_case: Mapping[str, float], people: Mapping[str, str]) -> list[float]:
    """The mean of each person over his or her cases, which are not independent of one another."""
    return list(_means((people.get(case, case), value) for case, value in by_case.items()).values())


def _repeat_means(cells: Sequence[CellScores], column: Column) -> list[float]:
    """The mean over the people of each repeat whose folds are all there."""
    means = []
    for repeat in sorted({cell.repeat for cell in cells}):
        parts = [cell for cell in cells if cell.repeat == repeat]
        values = _over_cases(_over_repeats(_values(parts, column)), _people(parts))
        if len(parts) == parts[0].folds and values:
            means.append(fmean(values))
    return means


def _means(named: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The mean of the values of each name."""
    found: dict[str, list[float]] = {}
    for name, value in named:
        found.setdefault(name, []).append(value)
    return {name: fmean(values) for name, values in found.items()}


def _mean_sd_median(values: Sequence[float]) -> tuple[float | None, ...]:
    summary = summarize(values)
    return summary.mean, summary.sd, summary.median


def _mean_sd(values: Sequence[float]) -> tuple[float | None, ...]:
    return _mean_sd_median(values)[:2]


def _mean_interval(values: Sequence[float]) -> tuple[float | None, ...]:
    interval = mean_interval(values)
    return summarize(values).mean, interval.low, interval.high


_STATISTICS: dict[Statistic, Callable[[Sequence[float]], tuple[float | None, ...]]] = {
    "mean_sd_median": _mean_sd_median,
    "mean_sd": _mean_sd,
    "mean_interval": _mean_interval,
}


def _compare_arms(table: ScoreTable, subset: str, cells: Sequence[CellScores], seed: int) -> list[Comparison]:
    people, found = _people(cells), []
    for first, second in table.compare:
        one, two = ([cell for cell in cells if cell.arm == arm] for arm in (first, second))
        for _, column in _tested(table):
            result = compare(*_matched(_values(one, column), _values(two, column), people), seed)
            found.append(_comparison(first, second, subset, column, result, published=False))
    return found


def _matched(first: _Values, second: _Values, people: Mapping[str, str]) -> tuple[list[float], list[float]]:
    """The values of two arms, person by person, over the cases and repeats that both have."""
    one, two = ({key: value for key, value in values.items() if key in first and key in second} for values in (first, second))
    return _over_cases(_over_repeats(one), people), _over_cases(_over_repeats(two), people)


def _compare_published(table: ScoreTable, seed: int) -> list[Comparison]:
    """The same tests on the paper's own cases, where it gives them."""
    by_arm = {row.arm: row.published_cases for row in table.rows}
    found = []
    for first, second in table.compare:
        for k, column in _tested(table):
            if by_arm[first] and k < len(by_arm[first][0]):
                result = compare([values[k] for values in by_arm[first]], [values[k] for values in by_arm[second]], seed)
                found.append(_comparison(first, second, "", column, result, published=True))
    return found


def _tested(table: ScoreTable) -> list[tuple[int, Column]]:
    return [(k, column) for k, column in enumerate(table.columns) if column.tested]


def _comparison(first: str, second: str, subset: str, column: Column, result: PairedComparison, *, published: bool) -> Comparison:
    return Comparison(first=first, second=second, subset=subset, column=column.label, published=published, result=result)


def _adjust(comparisons: Sequence[Comparison]) -> list[Comparison]:
    by_t, by_ranks = (holm([getattr(found.result, name) for found in comparisons]) for name in ("p_t", "p_wilcoxon"))
    return [
        found.model_copy(update={"p_t_holm": t, "p_wilcoxon_holm": ranks})
        for found, t, ranks in zip(comparisons, by_t, by_ranks, strict=True)
    ]
