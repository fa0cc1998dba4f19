import re
from xml.etree import ElementTree

import pytest

from transmodal.core.errors import FileError
from transmodal.evaluation.protocols import PROTOCOLS
from transmodal.reporting.curves import Curve, read_curves
from transmodal.reporting.figures import DARK, LIGHT, curve_chart, strip_chart

MAE = PROTOCOLS["synthrad2023"].note.metrics[0]


def test_charts_are_drawn_for_both_themes_and_are_reproducible():
    groups = [("A", [1.0, 2.0, 3.0, 4.0, 9.0]), ("B", [5.0]), ("C", [])]
    chart = strip_chart(MAE, groups)
    assert chart == strip_chart(MAE, groups)
    for svg, theme in ((chart.light, LIGHT), (chart.dark, DARK)):
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        assert theme.first.encode() in svg


def test_every_case_is_a_point():
    svg = strip_chart(MAE, [("A", [1.0, 2.0, 3.0])]).light.decode()
    points = svg.split('id="PathCollection_1"')[1].split("</g>\n   </g>")[0]
    assert points.count("<use") == 3


def test_a_title_wider_than_its_chart_goes_on_in_another_line():
    """Matplotlib notes each line of text beside its outlines."""
    metric = next(metric for metric in PROTOCOLS["uncertainty"].note.metrics if metric.label.startswith("Coverage of the 95"))
    svg = strip_chart(metric, [("A", [0.1])]).light.decode()
    lines = [text for text in re.findall("<!-- (.*?) -->", svg) if not text.lstrip("−").replace(".", "").isdigit()]
    assert " ".join(lines) == metric.label
    assert len(lines) == 2


def test_a_training_curve_is_drawn():
    curves = {"train": Curve((1.0, 2.0), (0.5, 0.25)), "validation": Curve((2.0,), (0.3,))}
    assert ElementTree.fromstring(curve_chart("loss", curves).light).tag.endswith("svg")


def test_curves_are_read_by_metric_and_split(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,split,loss,mae_hu\n1,train,0.5,\n2,train,nan,\n2,validation,0.4,60\n")
    assert read_curves(path) == {
        "loss": {"train": Curve((1.0,), (0.5,)), "validation": Curve((2.0,), (0.4,))},
        "mae_hu": {"validation": Curve((2.0,), (60.0,))},
    }


def test_long_curves_are_averaged(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,split,loss\n" + "".join(f"{step},train,{step % 2}\n" for step in range(1000)))
    curve = read_curves(path)["loss"]["train"]
    assert len(curve.steps) == 250
    assert set(curve.values) == {0.5}
    assert curve.steps[0] == 1.5


def test_a_damaged_table_is_named(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,split,loss\n1,train,zero\n")
    with pytest.raises(FileError, match=r"metrics.csv, line 2, loss: 'zero'"):
        read_curves(path)
