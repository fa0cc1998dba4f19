"""Atlases through the command line."""

import json
import shutil

import numpy as np
import pytest

from command_line import call
from transmodal import cli
from transmodal.imaging.scan import read_scan, write_scan
from transmodal.methods import atlas_registration
from transmodal.methods.recipe import load_recipe
from transmodal.workflows.atlas import build_atlases


def _not_wanted(*_):
    raise AssertionError("not wanted here")


@pytest.fixture(scope="module")
def atlases(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("atlases") / "set"
    build_atlases(load_recipe("atlas-affine"), dataset, out, subjects=["head1", "head2"])
    return out


def test_a_set_is_built_and_what_to_check_of_it_is_told(dataset, tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["atlas", "build", str(dataset), str(tmp_path / "set"), "--subjects", "head1", "head2"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("atlas")
    assert [line.split()[0] for line in lines[1:3]] == ["head1", "head2"]
    assert "given" in lines[1]
    assert (tmp_path / "set" / "weights.safetensors").is_file()


def test_one_scan_with_a_mask_of_its_brain(atlases, heads, tmp_path, monkeypatch, capsys):
    """No mask has to be found, which would take registrations by intensities."""
    monkeypatch.setattr(atlas_registration, "register", _not_wanted)
    head = heads / "Task1" / "brain" / "head0"
    out = tmp_path / "sct.nii.gz"
    words = ("--brain", head / "brain.nii.gz", "--uncertainty", "--model", atlases)
    assert call(capsys, "synthesize", head / "mr.nii.gz", out, *words)[0] == 0
    made, true = read_scan(out, "ct"), read_scan(head / "ct.nii.gz", "ct")
    inside = read_scan(head / "mask.nii.gz", "mask").array > 0
    assert np.abs(made.array - true.array.astype(float))[inside].mean() < 120  # shells of bone, a voxel or two thick, that differ in size
    assert read_scan(tmp_path / "sct_uncertainty.nii.gz", "uncertainty").array.max() > 0
    assert set(json.loads((tmp_path / "sct.json").read_text())["inputs"]) == {"mr", "brain"}


def test_masks_that_lie_beside_the_scans_of_a_folder_are_taken(atlases, heads, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(atlas_registration, "register", _not_wanted)
    for name in ("head0", "head3"):
        shutil.copytree(heads / "Task1" / "brain" / name, tmp_path / "scans" / name)
    assert call(capsys, "synthesize", tmp_path / "scans", tmp_path / "out", "--model", atlases)[0] == 0
    made = tmp_path / "out" / "head0" / "sct.nii.gz"
    before = made.stat().st_mtime_ns
    brain = read_scan(tmp_path / "scans" / "head3" / "brain.nii.gz", "mask")
    write_scan(brain.with_array(brain.array & (np.indices(brain.shape)[0] < 14)), tmp_path / "scans" / "head3" / "brain.nii.gz")
    code, said = call(capsys, "synthesize", tmp_path / "scans", tmp_path / "out", "--model", atlases)
    assert code == 2  # a slice of a brain is none
    assert "head3" in said
    assert "brain" in said
    assert made.stat().st_mtime_ns == before


def test_a_mask_that_nobody_uses_is_refused(atlases, dataset, heads, tmp_path, capsys):
    call(capsys, "train", "baseline-constant", dataset, tmp_path / "run")
    mr, brain = (heads / "Task1" / "brain" / "head0" / f"{name}.nii.gz" for name in ("mr", "brain"))
    code, said = call(capsys, "synthesize", mr, tmp_path / "sct.nii.gz", "--brain", brain, "--model", tmp_path / "run")
    assert code == 6
    assert "has no use for a mask of the brain" in said
    code, said = call(capsys, "synthesize", heads, tmp_path / "out", "--brain", brain, "--model", atlases)
    assert code == 6
    assert "beside each scan" in said
