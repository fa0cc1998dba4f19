import numpy as np
import pytest
from scipy import stats

from transmodal.evaluation.protocol import MetricNote, ProtocolNote, Scores
from transmodal.evaluation.protocols import PROTOCOLS
from transmodal.reporting.tables import badness, cases_table, differences_table, mean_sd, methods_table, number, with_unit

NOTE = PROTOCOLS["synthrad2023"].note
BIAS = MetricNote(name="bias_hu", label="Bias", unit="HU", better="zero")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(45.249, "HU", "45.2"), (-3.0, "HU", "−3.0"), (31.005, "dB", "31.00"), (0.9, "", "0.900"), (None, "HU", "–"), (-0.01, "HU", "0.0")],
)
def test_numbers_have_the_decimals_of_their_unit(value, unit, text):
    assert number(value, unit) == text


def test_units_stay_with_their_number():
    assert with_unit(1.0, "HU") == "1.0\u00a0HU"
    assert with_unit(0.5, "") == "0.500"


def test_methods_are_compared_by_their_means(sheet_of):
    sheets = [("one", sheet_of({"a": 50.0, "b": 70.0})), ("two", sheet_of({"a": 40.0, "b": None}))]
    table = methods_table(NOTE, sheets)
    (_, one), (_, two) = table.rows
    assert [cell.text for cell in one] == ["2", "60.0 (14.1)", "30.00 (0.00)", "0.900 (0.000)"]
    assert (two[1].text, two[1].detail) == ("40.0", "median 40.0, 1 left out")
    assert [one[1].best, two[1].best] == [False, True]
    assert table.heads == [("Method", ""), ("Cases", ""), ("MAE", "HU"), ("PSNR", "dB"), ("SSIM", "")]


def test_nothing_is_best_of_one(sheet_of):
    ((_, cells),) = methods_table(NOTE, [("one", sheet_of({"a": 50.0}))]).rows
    assert not any(cell.best for cell in cells)
    assert mean_sd(sheet_of({"a": 50.0}).summary["synthrad2023"]["mae_hu"], "HU") == "50.0"


def test_missing_values_are_explained_under_the_table(sheet_of):
    table = cases_table(NOTE, "one", sheet_of({"a": None, "b": 3.0}))
    assert [(name, cells[0].text, cells[0].sort) for name, cells in table.rows] == [("a", "–", None), ("b", "3.0", 3.0)]
    assert table.notes == ["a, MAE: no voxel inside the mask"]


def test_better_is_less_bad():
    for better, good, bad in (("lower", 1.0, 2.0), ("higher", 2.0, 1.0), ("zero", -1.0, 2.0)):
        metric = MetricNote(name="m", label="M", unit="", better=better)
        assert badness(metric, good) < badness(metric, bad)


def test_differences_between_methods_are_tested_over_common_cases(sheet_of):
    rng = np.random.default_rng(0)
    base = {f"c{k}": float(value) for k, value in enumerate(rng.uniform(50, 100, 8))}
    sheets = [
        ("A", sheet_of(base)),
        ("B", sheet_of({case: value - 5 - rank for rank, (case, value) in enumerate(base.items())} | {"other": 1.0})),
        ("C", sheet_of({**base, "c0": None})),
    ]
    table = differences_table(PROTOCOLS["synthrad2023"].note, sheets)
    rows = dict(table.rows)
    assert list(rows) == ["A − B", "A − C", "B − C"]
    cases, difference, interval, p, effect = rows["A − B"]
    assert (cases.text, difference.text, effect.text) == ("8", "8.5", "1.000")
    expected = stats.t.interval(0.95, 7, 8.5, stats.sem(np.arange(5, 13)))
    assert interval.text == f"{expected[0]:.1f} to {expected[1]:.1f}"
    assert p.sort == pytest.approx(2 * 2 / 2**8)  # the least that 8 cases allow, of two tests
    assert rows["B − C"][0].text == "7"  # the other cases are not of both
    assert [cell.text for cell in rows["A − C"]] == ["7", "0.0", "–", "–", "–"]  # no difference anywhere


def test_sessions_of_one_person_are_one_case_of_the_test(sheet_of):
    maes = {f"sub-{person}_ses-{session}": 10.0 * person + session for person in (1, 2, 3) for session in range(6)}
    other = {case: mae + (3, 2, 4)[int(case[4]) - 1] for case, mae in maes.items()}
    ((_, cells),) = differences_table(PROTOCOLS["synthrad2023"].note, [("A", sheet_of(maes)), ("B", sheet_of(other))]).rows
    assert (cells[0].text, cells[1].text) == ("3", "-3.0".replace("-", cells[1].text[0]))
    assert cells[3].sort == pytest.approx(0.25)  # the least that three cases allow


def test_of_a_bias_the_size_is_compared(sheet_of):
    note = ProtocolNote(name="p", title="P", modality="ct", mask="", clip="", metrics=(BIAS,))
    sheets = []
    for name, values in (("A", (10.0, 12.0, -11.0)), ("B", (-10.0, -12.0, 11.0))):
        sheet = sheet_of({f"c{k}": value for k, value in enumerate(values)})
        cases = tuple(
            case.model_copy(update={"scores": {"p": Scores(protocol="p", mask="", clip="", values={"bias_hu": value}, reasons={})}})
            for case, value in zip(sheet.cases, values, strict=True)
        )
        sheets.append((name, sheet.model_copy(update={"cases": cases})))
    (row,) = differences_table(note, sheets).rows
    assert row[1][1].text == "0.0"
    assert differences_table(note, sheets).heads[2] == ("Difference of |Bias|", "HU")
