"""The model that comes with the package, as a user meets it."""

import json

import numpy as np
import pytest

from command_line import call
from transmodal.evaluation.metrics import dice
from transmodal.imaging.scan import read_scan, write_scan
from transmodal.simulation.contrast import MR_PRESETS, CTConfig, simulate_ct, simulate_mr
from transmodal.simulation.head import head_grid, simulate_anatomy
from transmodal.simulation.parameters import draw_head
from transmodal.simulation.tissues import BRAIN
from transmodal.workflows import demo as walkthrough
from transmodal.workflows.demo import demo


def test_a_head_becomes_a_ct_without_any_training(tmp_path, capsys):
    config, rng = draw_head(np.random.default_rng(3), 40), np.random.default_rng(0)
    labels = simulate_anatomy(config, head_grid((96, 112, 96), config, 2.0), 3)
    write_scan(simulate_mr(labels, MR_PRESETS["t1w"], rng), tmp_path / "mr.nii.gz")
    code, said = call(capsys, "synthesize", tmp_path / "mr.nii.gz", tmp_path / "sct.nii.gz", "--uncertainty")
    assert code == 0, said
    made, true = read_scan(tmp_path / "sct.nii.gz", "ct"), simulate_ct(labels, CTConfig(noise_hu=0), rng)
    assert dice(np.asarray(made.array) > 250, np.asarray(true.array) > 250) > 0.6
    brain = np.isin(labels.array, BRAIN)
    assert abs(np.median(made.array[brain]) - 34) < 30
    sd = read_scan(tmp_path / "sct_uncertainty.nii.gz", "ct").array
    assert np.median(sd[made.array > 250]) > 3 * np.median(sd[brain])
    settings = json.loads((tmp_path / "sct.json").read_text())["settings"]
    assert settings["model"] == "any-mr"
    assert settings["guard"]["outcome"] == "proceed"


@pytest.mark.slow
def test_the_demo_ends_with_a_picture_and_a_report(tmp_path):
    page = demo(tmp_path / "demo")
    assert page.stat().st_size > 100_000
    assert (tmp_path / "demo" / "head.png").read_bytes().startswith(b"\x89PNG")
    (case,) = json.loads((tmp_path / "demo" / "scores" / "scores.json").read_text())["cases"]
    assert set(case["scores"]) == {"synthrad2023", "tissue", "uncertainty"}
    assert 0 < case["scores"]["synthrad2023"]["values"]["mae_hu"] < 250


@pytest.mark.slow
def test_the_walk_ends_with_three_methods_on_the_same_heads(tmp_path, monkeypatch):
    training = walkthrough._training
    monkeypatch.setattr(walkthrough, "SUBJECTS", 4)
    monkeypatch.setattr(walkthrough, "_training", lambda name: [*training(name), "train.steps=5"])
    page = walkthrough.walk(tmp_path / "walk")
    assert page.stat().st_size > 100_000
    scored = [json.loads((tmp_path / "walk" / "scores" / name / "scores.json").read_text())["cases"] for name in walkthrough.RECIPES]
    assert [[case["case"] for case in cases] for cases in scored] == [[scored[0][0]["case"]]] * 3
