"""The guard, as `synthesize` asks it: only by models whose recipe does, and past it by force."""

import json

import numpy as np
import pytest

from command_line import call
from simulated_heads import simulated_head
from transmodal.core.errors import CasesFailed, DataError
from transmodal.core.volume import Volume
from transmodal.imaging.scan import write_scan
from transmodal.methods.recipe import load_recipe
from transmodal.simulation.contrast import MR_PRESETS, simulate_mr
from transmodal.workflows.synthesize import synthesize
from transmodal.workflows.train import train


@pytest.fixture(scope="module")
def runs(dataset, tmp_path_factory):
    folder, settings = tmp_path_factory.mktemp("runs"), ["train.steps=1", "train.batch_size=1"]
    return {
        guarded: train(load_recipe("baseline-threshold", [*settings, f"guarded={guarded}"]), dataset, folder / guarded, quiet=True)
        for guarded in ("true", "false")
    }


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    head = simulate_mr(simulated_head(40, 3), MR_PRESETS["t1w"], np.random.default_rng(0))
    write_scan(head, folder / "good" / "mr.nii.gz")
    write_scan(Volume(head.array, np.diag([-1.0, 1.0, -1.0, 1.0]) @ head.affine, "mr"), folder / "upside_down" / "mr.nii.gz")
    return folder


def test_a_refused_scan_leaves_no_result_and_force_goes_on_and_notes_why(runs, scans, tmp_path, capsys):
    scan, result = scans / "upside_down" / "mr.nii.gz", tmp_path / "sct.nii.gz"
    with pytest.raises(DataError, match=r"upside_down/mr\.nii\.gz: .*looks like the bottom.*correct the orientation.*--force"):
        synthesize(scan, result, runs["true"])
    assert not result.exists()
    code, said = call(capsys, "synthesize", scan, result, "--model", runs["true"], "--force")
    assert code == 0
    assert "looks like the bottom" in said
    found = json.loads((tmp_path / "sct.json").read_text())["settings"]["guard"]
    assert found["outcome"] == "refuse"
    assert found["checks"]["orientation"]["value"] > 0.02


def test_a_good_scan_is_noted_and_of_several_only_the_bad_one_fails(runs, scans, tmp_path):
    with pytest.raises(CasesFailed, match=r"1 of 2 scans could not be synthesized:\nupside_down: "):
        synthesize(scans, tmp_path, runs["true"])
    checks = json.loads((tmp_path / "good" / "record.json").read_text())["settings"]["guard"]["checks"]
    assert {"slice distance", "pixel size", "head", "orientation", "cranium seen", "scalp", "bone", "distance"} == set(checks)


def test_a_model_that_does_not_ask_takes_any_scan(runs, scans, tmp_path):
    synthesize(scans / "upside_down" / "mr.nii.gz", tmp_path / "sct.nii.gz", runs["false"])
    assert "guard" not in json.loads((tmp_path / "sct.json").read_text())["settings"]
