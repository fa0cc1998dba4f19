import statistics

import pytest

from transmodal.core.config import validate
from transmodal.core.errors import ConfigError
from transmodal.evaluation.statistics import compare
from transmodal.evaluation.studies import CellScores, LossTable, ScoreTable, fill


def table(**more):
    values = {
        "kind": "scores",
        "title": "A table",
        "source": "table 1",
        "statistic": "mean_sd_median",
        "heads": ["Method"],
        "columns": [{"label": "MAE", "protocol": "p", "metric": "mae"}, {"label": "MSE", "protocol": "p", "metric": "mse", "scale": 0.001}],
        "rows": [{"arm": "a", "labels": ["A"]}, {"arm": "b", "labels": ["B"]}],
    }
    return validate(ScoreTable, {**values, **more}, "table")


def cell(arm, repeat, fold, subset="", folds=2, people=None, **cases):
    scores = {case: {"p.mae": mae, "p.mse": mse} for case, (mae, mse) in cases.items()}
    return CellScores(arm=arm, subset=subset, repeat=repeat, fold=fold, folds=folds, cases=scores, people=people or {})


def test_folds_are_pooled_and_repeats_averaged_case_by_case():
    cells = [
        cell("a", 1, 1, one=(10, 1000), two=(20, None)),
        cell("a", 1, 2, three=(30, 3000)),
        cell("a", 2, 1, one=(14, 2000), two=(20, None)),
        cell("a", 2, 2, three=(38, 3000)),
    ]
    row, empty = fill(table(), cells).rows
    assert row.cases == {"one": (12, 1.5), "three": (34, 3.0), "two": (20, None)}
    mae, mse = row.entries
    assert (mae.count, mae.values) == (3, (22, pytest.approx(statistics.stdev([12, 34, 20])), 20))
    assert (mse.count, mse.values) == (2, (2.25, pytest.approx(statistics.stdev([1.5, 3])), 2.25))
    assert empty.entries[0].count == 0
    assert empty.entries[0].values == (None, None, None)


def test_the_interval_is_over_the_means_of_whole_repeats():
    """Means of 15 and 17, so 16 ± 12.706 (√2 / √2); the third repeat lacks a fold."""
    cells = [
        cell("a", 1, 1, one=(10, 1)),
        cell("a", 1, 2, two=(20, 1)),
        cell("a", 2, 1, one=(12, 1)),
        cell("a", 2, 2, two=(22, 1)),
        cell("a", 3, 1, one=(90, 1)),
    ]
    mae, mse = fill(table(statistic="mean_interval"), cells).rows[0].entries
    assert (mae.count, mae.values) == (2, (16, pytest.approx(16 - 12.7062, abs=1e-4), pytest.approx(16 + 12.7062, abs=1e-4)))
    assert mse.values == (0.001, None, None)  # the same in both repeats


def test_subsets_have_rows_of_their_own():
    cells = [cell("a", 1, 1, "x", 1, one=(1, 1)), cell("a", 1, 1, "y", 1, one=(3, 1)), cell("b", 1, 1, "y", 1, one=(5, 1))]
    rows = fill(table(statistic="mean_sd"), cells, ["x", "y"]).rows
    assert [(row.subset, row.arm, row.entries[0].values[0]) for row in rows] == [
        ("x", "a", 1),
        ("x", "b", None),
        ("y", "a", 3),
        ("y", "b", 5),
    ]


def test_comparisons_are_of_the_cases_that_both_have_and_adjusted_together():
    maes = {"a": [10.0, 20.0, 30.0, 44.0], "b": [11.0, 23.0, 37.0, 49.0]}
    cells = [cell(arm, 1, 1, folds=1, **{f"c{k}": (v, v * v) for k, v in enumerate(values)}) for arm, values in maes.items()]
    cells[1] = cells[1].model_copy(update={"cases": {**cells[1].cases, "alone": {"p.mae": 0.0, "p.mse": 0.0}}})
    found = fill(table(compare=[["a", "b"]]), cells).comparisons
    assert [comparison.column for comparison in found] == ["MAE", "MSE"]
    assert found[0].result == compare(maes["a"], maes["b"])
    low, high = sorted(comparison.result.p_t for comparison in found)
    assert sorted(comparison.p_t_holm for comparison in found) == pytest.approx([2 * low, max(2 * low, high)])


SESSIONS = {"one-a": "one", "one-b": "one"}


def test_the_sessions_of_a_person_count_once():
    cells = [cell("a", 1, 1, folds=1, people=SESSIONS, **{"one-a": (10, 1), "one-b": (20, 1), "two": (21, 1)})]
    row = fill(table(), cells).rows[0]
    assert row.cases == {"one-a": (10, 0.001), "one-b": (20, 0.001), "two": (21, 0.001)}
    assert (row.entries[0].count, row.entries[0].values) == (2, (18, pytest.approx(statistics.stdev([15, 21])), 18))
    assert fill(table(statistic="mean_interval"), cells).rows[0].entries[0].values[0] == 18


def test_a_comparison_is_person_by_person():
    maes = {"a": [10.0, 20.0, 30.0, 44.0], "b": [11.0, 23.0, 37.0, 49.0]}
    cells = [
        cell(arm, 1, 1, folds=1, people=SESSIONS, **{name: (v, 1) for name, v in zip([*SESSIONS, "two", "three"], values, strict=True)})
        for arm, values in maes.items()
    ]
    found = fill(table(compare=[["a", "b"]]), cells).comparisons[0]
    assert found.result == compare([15.0, 44.0, 30.0], [17.0, 49.0, 37.0])  # one, three, two


def test_arms_are_compared_over_the_repeats_that_both_have():
    cells = [cell("a", 1, 1, folds=1, one=(10, 1), two=(20, 1)), cell("a", 2, 1, folds=1, one=(90, 1), two=(80, 1))]
    cells.append(cell("b", 1, 1, folds=1, one=(13, 1), two=(22, 1)))
    found = fill(table(compare=[["a", "b"]]), cells).comparisons[0]
    assert found.result == compare([10.0, 20.0], [13.0, 22.0])


def test_what_says_the_same_as_another_column_is_not_tested():
    columns = [{"label": "MAE", "protocol": "p", "metric": "mae"}, {"label": "MSE", "protocol": "p", "metric": "mse", "tested": False}]
    assert [found.column for found in fill(table(columns=columns, compare=[["a", "b"]]), []).comparisons] == ["MAE"]


def test_published_cases_are_tested_as_ours_are():
    rows = [
        {"arm": "a", "labels": ["A"], "published_cases": [[1.0], [2.0], [4.0]]},
        {"arm": "b", "labels": ["B"], "published_cases": [[2.0], [4.0], [5.0]]},
    ]
    ours, other, theirs = fill(table(rows=rows, compare=[["a", "b"]]), []).comparisons
    assert (ours.published, other.published, theirs.published) == (False, False, True)
    assert theirs.result == compare([1.0, 2.0, 4.0], [2.0, 4.0, 5.0])
    assert theirs.p_t_holm == theirs.result.p_t  # the only one


def test_losses_are_sums_of_the_terms_of_the_log():
    rows = [{"label": "D", "terms": ["x", "y"], "published": 3.0}, {"label": "G", "terms": ["z"]}]
    values = {"kind": "losses", "title": "L", "source": "s", "arm": "a", "heads": ["Loss", "Value"], "rows": rows}
    cells = [CellScores(arm=arm, repeat=1, fold=1, folds=1, losses={"x": 0.25, "y": 0.5}) for arm in ("a", "b")]
    first, second = fill(validate(LossTable, values, "table"), cells).losses
    assert (first.values, first.published, second.values, second.published) == ((0.75,), (3.0,), (None,), ())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"rows": [{"arm": "a", "labels": []}]}, "a has 0 labels, and the table 1 heads"),
        ({"rows": [{"arm": "a", "labels": ["A"], "published": [[1, 2]]}]}, "published has not 3 numbers for each of at most 2 columns"),
        ({"rows": [{"arm": "a", "labels": ["A"], "published": [[1, 2, 3]] * 3}]}, "published has not 3 numbers"),
        ({"rows": [{"arm": "a", "labels": ["A"], "published_cases": [[1, 2, 3]]}]}, "more values than the table columns"),
        (
            {"rows": [{"arm": "a", "labels": ["A"], "published_cases": [[1]]}, {"arm": "b", "labels": ["B"]}]},
            "not of the same cases and columns",
        ),
        ({"compare": [["a", "c"]]}, "compare: c is no row of the table"),
    ],
)
def test_a_table_that_does_not_fit_together_is_refused(more, message):
    with pytest.raises(ConfigError, match=message):
        table(**more)
