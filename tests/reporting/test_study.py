import csv
import io

from transmodal.core.config import validate
from transmodal.evaluation.studies import CellScores, LossTable, ScoreTable, fill
from transmodal.reporting.study import compose_csv, compose_markdown

MAE = {"label": "MAE", "protocol": "p", "metric": "mae", "decimals": 1}
PSNR = {"label": "PSNR", "protocol": "p", "metric": "psnr"}


def scores(form, statistic, rows, columns=(MAE, PSNR), **more):
    values = {"kind": "scores", "title": "T", "source": "table 1", "heads": ["Method"], "columns": columns, "rows": rows}
    return validate(ScoreTable, {**values, "form": form, "statistic": statistic, **more}, "table")


def cell(arm, repeat=1, fold=1, subset="", **cases):
    found = {case: {"p.mae": mae, "p.psnr": psnr} for case, (mae, psnr) in cases.items()}
    return CellScores(arm=arm, subset=subset, repeat=repeat, fold=fold, folds=1, cases=found)


CELLS = [cell("a", one=(70.04, 30.0), two=(80.0, 31.0), three=(90.0, None)), cell("b", one=(-1.0, 20.0))]


def first_table(table, cells=CELLS, subsets=("",)):
    text = compose_markdown("Study", [], [fill(table, cells, subsets)], ["a line"])
    return [line for line in text.splitlines() if line.startswith("|")]


def test_rows_of_arms_have_the_published_numbers_beside_ours():
    rows = [{"arm": "a", "labels": ["A|B"], "published": [[71.66, 13.8, 70.0]]}, {"arm": "b", "labels": ["C"]}]
    assert first_table(scores("arms", "mean_sd_median", rows)) == [
        "| Method | MAE | paper | PSNR |",
        "| --- | --- | --- | --- |",
        "| A\\|B | 80.0 (10.0), 80.0 | 71.66 (13.8), 70.0 | 30.50 (0.71), 30.50 |",
        "| C | −1.0, −1.0 | – | 20.00, 20.00 |",
    ]


def test_rows_of_metrics_have_the_published_numbers_below_ours():
    rows = [{"arm": "a", "labels": ["D1"], "published": [[21.07, 2.98]]}, {"arm": "b", "labels": ["D2"], "published": [[42.95, 3.0]]}]
    assert first_table(scores("metrics", "mean_sd", rows, heads=["Model"])) == [
        "| Model | D1 | D2 |",
        "| --- | --- | --- |",
        "| MAE | 80.0 ± 10.0 | −1.0 |",
        "| MAE, paper | 21.07 ± 2.98 | 42.95 ± 3.0 |",
        "| PSNR | 30.50 ± 0.71 | 20.00 |",
    ]


def test_rows_of_cases_have_the_arms_side_by_side_and_the_published_cases_after_them():
    rows = [
        {"arm": "a", "labels": ["A"], "published": [[73.7, 2.3]], "published_cases": [[70.3], [76.25]]},
        {"arm": "b", "labels": ["B"], "published": [[89.4, 6.8]], "published_cases": [[86.2], [98.8]]},
    ]
    assert first_table(scores("cases", "mean_sd", rows, heads=["Patient"])) == [
        "| Patient | MAE, A | MAE, B | PSNR, A | PSNR, B |",
        "| --- | --- | --- | --- | --- |",
        "| one | 70.0 | −1.0 | 30.00 | 20.00 |",
        "| three | 90.0 | – | – | – |",
        "| two | 80.0 | – | 31.00 | – |",
        "| All | 80.0 ± 10.0 | −1.0 | 30.50 ± 0.71 | 20.00 |",
        "| paper, 1 | 70.3 | 86.2 | – | – |",
        "| paper, 2 | 76.25 | 98.8 | – | – |",
        "| paper, all | 73.7 ± 2.3 | 89.4 ± 6.8 | – | – |",
    ]


def test_intervals_are_over_repeats_and_subsets_stand_before_the_arms():
    rows = [{"arm": "a", "labels": ["Light", "MAE"], "published": [[95.6, 94.4, 96.9]]}]
    table = scores("arms", "mean_interval", rows, columns=[MAE], heads=["Model", "Loss"])
    cells = [cell("a", repeat, subset="hospital A", one=(value, 1)) for repeat, value in enumerate((95.0, 96.0, 97.0), 1)]
    assert first_table(table, cells, ["hospital A", "hospital B"]) == [
        "| Tested on | Model | Loss | MAE | paper |",
        "| --- | --- | --- | --- | --- |",
        "| hospital A | Light | MAE | 96.0 (93.5–98.5) | 95.6 (94.4–96.9) |",
        "| hospital B | Light | MAE | – | 95.6 (94.4–96.9) |",
    ]


def test_no_table_of_intervals_over_repeats_leaves_out_what_they_do_not_tell():
    table = scores("arms", "mean_interval", [{"arm": "a", "labels": ["A"]}], columns=[MAE])
    assert "which says nothing of other patients) over the repeats" in compose_markdown("Study", [], [fill(table, CELLS)], [])


def losses():
    rows = [{"label": "G_losses", "terms": ["g"], "published": 2.029403}, {"label": "D_losses", "terms": ["d", "e"]}]
    values = {"kind": "losses", "title": "L", "source": "table 2", "arm": "a", "heads": ["Output losses", "Values"], "rows": rows}
    return validate(LossTable, values, "table")


LOSSES = [CellScores(arm="a", repeat=1, fold=1, folds=1, losses={"g": 12.335549, "d": 1e-5, "e": 2e-6})]


def test_losses_have_significant_digits():
    assert first_table(losses(), LOSSES) == [
        "| Output losses | Values | paper |",
        "| --- | --- | --- |",
        "| G_losses | 12.34 | 2.029403 |",
        "| D_losses | 1.2e−05 | – |",
    ]


def test_comparisons_stand_under_the_table_with_what_they_mean():
    rows = [{"arm": "a", "labels": ["A"]}, {"arm": "b", "labels": ["B"]}]
    values = {"a": (2.0, 1.0, 5.0, 7.0, 8.0), "b": (1.0, 3.0, 2.0, 7.0, 4.0)}
    cells = [cell(arm, **{f"c{k}": (value, 1.0) for k, value in enumerate(found)}) for arm, found in values.items()]
    text = compose_markdown("S", [], [fill(scores("arms", "mean_sd", rows, compare=[["a", "b"]]), cells)], [])
    lines = [line for line in text.splitlines() if line.startswith("| a − b")]
    # By hand: differences 1, -2, 3, 0, 4, so 1.2 ± 2.7764 · √5.7 / √5; t = 1.1239; and of PSNR none.
    assert lines[0].startswith("| a − b | MAE | 5 | 1.2 | −1.76 to 4.16 | ")
    assert lines[0].endswith(" | 0.3239 (0.3239) | 0.3750 (0.3750) | 0.50 | 0.60 |")
    assert lines[1] == "| a − b | PSNR | 5 | 0 | – | – | – | – | – | – |"
    assert "adjusted for all tests of their kind here (Holm)" in text


def test_the_text_begins_with_the_title_and_ends_with_how_the_numbers_were_made():
    text = compose_markdown("Study", ["What it is."], [fill(losses(), LOSSES)], ["first line", "second line"])
    assert text.startswith("# Study\n\nWhat it is.\n\n## L (table 2)\n\n| Output")
    assert text.endswith("\n\n## How the numbers were made\n\n- first line\n- second line\n")


def test_the_csv_has_every_number_on_a_line_of_its_own():
    rows = [{"arm": "a", "labels": ["A"], "published": [[73.7, 2.3]], "published_cases": [[70.3]]}]
    text = compose_csv([fill(scores("cases", "mean_sd", rows, columns=[MAE]), CELLS[:1]), fill(losses(), LOSSES)])
    found = [tuple(row.values()) for row in csv.DictReader(io.StringIO(text))]
    assert found == [
        ("T", "", "a", "A", "MAE", "", "mean", "3", repr((70.04 + 80 + 90) / 3), "73.7"),
        ("T", "", "a", "A", "MAE", "", "sd", "3", found[1][8], "2.3"),
        ("T", "", "a", "A", "MAE", "one", "value", "1", "70.04", ""),
        ("T", "", "a", "A", "MAE", "three", "value", "1", "90.0", ""),
        ("T", "", "a", "A", "MAE", "two", "value", "1", "80.0", ""),
        ("T", "", "a", "A", "MAE", "paper, 1", "value", "1", "", "70.3"),
        ("L", "", "a", "G_losses", "Values", "", "mean", "1", "12.335549", "2.029403"),
        ("L", "", "a", "D_losses", "Values", "", "mean", "1", repr(1e-5 + 2e-6), ""),
    ]
