import json
import shutil

import numpy as np
import pytest

from dicom_series import straight, write_slices
from transmodal.core.errors import ConfigError
from transmodal.core.files import read_json, sha256
from transmodal.imaging.scan import read_scan
from transmodal.methods.recipe import load_recipe
from transmodal.workflows.evaluate import evaluate
from transmodal.workflows.synthesize import synthesize
from transmodal.workflows.train import train

TINY = ["method.network.channels=[4,8]", "view.size=[32,32]", "train.steps=2", "train.batch_size=2", "train.validation_fraction=0"]


@pytest.fixture(scope="module")
def runs(dataset, tmp_path_factory):
    """Two runs that were trained on other halves of the subjects."""
    folder = tmp_path_factory.mktemp("runs")
    settings = ["train.steps=1", "train.batch_size=1", "train.test_fraction=0.5"]
    return [
        train(load_recipe("baseline-constant", [*settings, f"train.seed={k}"]), dataset, folder / f"run{k}", quiet=True) for k in range(2)
    ]


@pytest.fixture(scope="module")
def bone_run(dataset, tmp_path_factory):
    recipe = load_recipe("bone-unet2d", [*TINY, "predict.patch=[32,32]", "predict.flip=[0]"])
    return train(recipe, dataset, tmp_path_factory.mktemp("runs") / "bone", quiet=True)


@pytest.fixture
def scan(heads):
    return heads / "Task1" / "brain" / "head0" / "mr.nii.gz"


def test_several_runs_give_their_mean_and_their_spread(runs, scan, tmp_path):
    one, two = (read_scan(synthesize(scan, tmp_path / f"{k}.nii.gz", run)[0], "ct").array.astype(float) for k, run in enumerate(runs))
    synthesize(scan, tmp_path / "sct.nii.gz", runs, uncertainty=True)
    np.testing.assert_array_equal(read_scan(tmp_path / "sct.nii.gz", "ct").array, np.round((one + two) / 2))
    spread = read_scan(tmp_path / "sct_uncertainty.nii.gz", "uncertainty")
    np.testing.assert_allclose(spread.array, np.abs(one - two) / 2, atol=1e-3)
    assert spread.grid.matches(read_scan(scan, "mr").grid)
    settings = read_json(tmp_path / "sct.json")["settings"]
    assert settings["runs"] == [{"model": run.name, "weights": sha256(run / "weights.safetensors")} for run in runs]
    assert settings["model"] == "run0, run1"
    assert settings["title"] == "Mean of 2 runs: Baseline: one value for the whole head"


def test_what_was_done_is_done_again_only_for_other_runs_or_for_its_uncertainty(runs, heads, tmp_path):
    def stamps(models, **choices):
        return [path.stat().st_mtime_ns for path in synthesize(heads, tmp_path, models, **choices)]

    first = stamps(runs)
    assert not list(tmp_path.rglob("*uncertainty*"))
    second = stamps(runs, uncertainty=True)
    assert not set(first) & set(second)
    assert stamps(runs, uncertainty=True) == stamps(runs) == second
    (tmp_path / "head2" / "sct_uncertainty.nii.gz").unlink()
    assert [a == b for a, b in zip(stamps(runs, uncertainty=True), second, strict=True)] == [True, True, False, True]
    stamps(runs[:1])
    assert not list(tmp_path.rglob("*uncertainty*"))  # which were not of that run


def test_the_uncertainty_is_not_scored(runs, heads, tmp_path):
    synthesize(heads, tmp_path / "out", runs, uncertainty=True)
    assert len(evaluate(tmp_path / "out", heads, tmp_path / "scores", protocols=["tissue"]).cases) == 4
    for path in list((tmp_path / "out").glob("*/*.nii.gz")):
        (tmp_path / "flat").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "flat" / f"{path.parent.name}_{path.name}")
    assert len(list((tmp_path / "flat").iterdir())) == 8
    assert len(evaluate(tmp_path / "flat", heads, tmp_path / "scores", protocols=["tissue"]).cases) == 4


def test_a_part_is_what_all_runs_have_in_it(runs, heads, tmp_path):
    splits = [set(read_json(run / "run.json")["split"]["test"]) for run in runs]
    both = splits[0] & splits[1]
    if both:
        assert {path.parent.name for path in synthesize(heads, tmp_path, runs, part="test")} == both
    else:
        with pytest.raises(ConfigError, match="the 2 runs were trained without such subjects"):
            synthesize(heads, tmp_path, runs, part="test")


def test_refusals(runs, bone_run, scan, tmp_path):
    with pytest.raises(ConfigError, match="predicts each voxel once; give several runs"):
        synthesize(scan, tmp_path / "sct.nii.gz", runs[0], uncertainty=True)
    with pytest.raises(ConfigError, match="do not make the same thing"):
        synthesize(scan, tmp_path / "sct.nii.gz", [runs[0], bone_run])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_model_that_segments_writes_masks_beside_what_others_made(runs, bone_run, heads, tmp_path):
    synthesize(heads, tmp_path / "out", runs[0])
    done = synthesize(heads, tmp_path / "out", bone_run, uncertainty=True)
    assert [path.relative_to(tmp_path / "out").as_posix() for path in done] == [f"head{k}/bone.nii.gz" for k in range(4)]
    stamps = [path.stat().st_mtime_ns for path in done]
    assert [path.stat().st_mtime_ns for path in synthesize(heads, tmp_path / "out", bone_run)] == stamps
    assert json.loads((tmp_path / "out" / "head0" / "record.json").read_text())["settings"]["model"] == "run0"
    read_scan(done[0], "mask")
    assert read_scan(done[0].with_name("bone_uncertainty.nii.gz"), "uncertainty").array.max() <= 0.5


def test_a_cycle_needs_a_model_that_goes_both_ways(runs, scan, tmp_path):
    with pytest.raises(ConfigError, match=r"--cycle: the model .* does mr2ct alone"):
        synthesize(scan, tmp_path / "sct.nii.gz", runs[0], cycle=True)


def test_from_dicom_masks_are_scan_files_and_the_uncertainty_too(runs, bone_run, scan, tmp_path):
    array = np.rint(read_scan(scan, "mr").array).astype(np.int16)
    positions = straight(array.shape[2], 4.5, start=(-90, -108, -99))
    series = write_slices(tmp_path / "mr", array, positions, modality="MR", PixelSpacing=["4.5", "4.5"])
    with pytest.raises(ConfigError, match=r"not written as a CT series; name a scan file, such as bone\.nii\.gz"):
        synthesize(series, tmp_path / "bone", bone_run)
    assert not (tmp_path / "bone").exists()
    bone = read_scan(synthesize(series, tmp_path / "bone.nii.gz", bone_run)[0], "mask")
    synthesize(series, tmp_path / "sct", runs, uncertainty=True)
    assert read_scan(tmp_path / "sct_uncertainty.nii.gz", "uncertainty").grid.matches(bone.grid)
    assert len(list((tmp_path / "sct").iterdir())) == array.shape[2]


def test_masks_of_a_run_are_scored(bone_run, heads, tmp_path):
    synthesize(heads, tmp_path / "out", bone_run)
    sheet = evaluate(tmp_path / "out", heads, tmp_path / "scores")
    assert (sheet.product, sheet.label) == ("bone", "Bone from MR directly, 2D U-Net")
    assert [list(case.scores) for case in sheet.cases] == [["bone"]] * 4
