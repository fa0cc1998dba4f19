import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from transmodal.core.errors import BusyError, CheckpointError, ConfigError, DataError, FileError
from transmodal.core.files import LOCK_NAME, folder_lock, sha256
from transmodal.data.manifest import Manifest, read_manifest, write_manifest
from transmodal.engine.checkpoint import load_tree
from transmodal.engine.run import read_run
from transmodal.engine.train import WEIGHTS_NAME
from transmodal.methods.recipe import load_recipe
from transmodal.methods.runs import load_method
from transmodal.workflows.train import train

TINY = [
    "method.network.channels=[4,4,8,8]",
    "view.size=[32,32]",
    "train.steps=40",
    "train.batch_size=4",
    "train.validate_every=10",
    "train.validation_batches=1",
    "train.validation_fraction=0.25",
    "train.checkpoint_every=3",
]


def tiny(*more):
    return load_recipe("unet2d-quick", [*TINY, *more])


def command(dataset, run, *more):
    settings = [word for assignment in TINY for word in ("--set", assignment)]
    return [sys.executable, "-m", "transmodal.cli", "train", "unet2d-quick", str(dataset), str(run), *settings, *more]


def assert_same_weights(one, two):
    for file in (WEIGHTS_NAME, "checkpoints/step-00000040.safetensors"):
        first, second = (load_tree(run / file) for run in (one, two))
        first, second = (tree.get("networks", tree)["generator"] for tree in (first, second))
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            assert torch.equal(tensor, second[name]), (file, name)


@pytest.mark.slow
def test_a_training_killed_at_random_moments_ends_with_the_same_weights(dataset, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    subprocess.run(command(dataset, whole), check=True)
    process = subprocess.Popen(command(dataset, parts, "--resume"))
    while process.poll() is None and not list(parts.glob("checkpoints/*")):
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert (parts / LOCK_NAME).exists()  # left behind, and no obstacle
    delays = random.Random(0)
    for _ in range(3):  # in the middle of a step, or before the first or after the last
        process = subprocess.Popen(command(dataset, parts, "--resume"))
        time.sleep(delays.uniform(1, 4))
        process.kill()
        process.wait()
    subprocess.run(command(dataset, parts, "--resume"), check=True)
    assert_same_weights(whole, parts)
    assert not list(parts.rglob("*partial*"))


def test_a_signal_ends_with_the_documented_code_and_a_resumable_run(dataset, tmp_path):
    process = subprocess.Popen(command(dataset, tmp_path / "run", "--set", "train.steps=100000"), stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("run/checkpoints/*")):
        time.sleep(0.02)
        assert process.poll() is None
    process.terminate()
    _, message = process.communicate()
    assert process.returncode == 130
    assert "--resume" in message
    assert "Traceback" not in message
    assert not (tmp_path / "run" / LOCK_NAME).exists()


@pytest.mark.slow
def test_two_processes_train_the_same_network_on_halves_of_each_batch(dataset, tmp_path):
    """Without batch norm the mean gradient of two halves is that of the whole batch, to rounding."""
    same = ["--set", "method.network.norm=none", "--set", "train.steps=4", "--set", "train.precision=fp32"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for devices in ("1", "2"):
        run = tmp_path / devices
        subprocess.run(command(dataset, run, *same, "--devices", devices, "--accelerator", "cpu"), check=True, timeout=120, env=environment)
    one, two = (load_tree(tmp_path / n / WEIGHTS_NAME)["generator"] for n in ("1", "2"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["view.size=[30,32]"], r"view.size = \[30, 32\]: the network needs multiples of 4; set it to \[32, 32\]"),
        (["view.first_size=[16,18]", "view.first_steps=2"], r"view.first_size = \[16, 18\].*set it to \[16, 20\]"),
        (["method.network.channels=[4,8,8,8,8]"], r"view.size = \[24, 24\].*multiples of 16; set it to \[32, 32\]"),
    ],
)
def test_patches_that_the_network_cannot_halve_are_refused(dataset, tmp_path, changes, message):
    given = ["method.network.channels=[4,8,8]", "view.size=[24,24]", "train.steps=1", *changes]
    with pytest.raises(ConfigError, match=message):
        train(load_recipe("unet2d-quick", given), dataset, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_training_begins_with_the_weights_of_another(dataset, tmp_path):
    small = ["method.network.channels=[4,8]", "view.size=[16,16]", "train.steps=1", "train.validation_fraction=0"]
    first = train(load_recipe("unet2d-quick", [*small, "train.seed=1"]), dataset, tmp_path / "first", quiet=True)
    still = load_recipe("unet2d-quick", [*small, "method.optimizer.learning_rate=1e-12"])
    second = train(still, dataset, tmp_path / "second", begin=first, quiet=True)
    before, after = (load_tree(run / WEIGHTS_NAME)["generator"] for run in (first, second))
    learned = [name for name, _ in load_method(first, torch.device("cpu")).networks["generator"].named_parameters()]
    for name in learned:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-6)
    assert json.loads((second / "record.json").read_text())["inputs"][str(first)] == sha256(first / WEIGHTS_NAME)
    wider = load_recipe("unet2d-quick", [*small, "method.network.channels=[8,8]"])
    with pytest.raises(CheckpointError, match=r"--from .*first: generator: the weights belong to another architecture"):
        train(wider, dataset, tmp_path / "third", begin=first, quiet=True)
    with pytest.raises(FileError, match="nowhere: no folder of a run, and no built-in model, of which there are any-mr"):
        train(still, dataset, tmp_path / "third", begin=Path("nowhere"), quiet=True)
    with pytest.raises(ConfigError, match="the recipe baseline-constant trains no networks"):
        train(load_recipe("baseline-constant"), dataset, tmp_path / "third", begin=first, quiet=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match=r"--from .*empty: neither a run with weights.safetensors nor one of the built-in models: any-mr"):
        train(still, dataset, tmp_path / "third", begin=tmp_path / "empty", quiet=True)
    assert not (tmp_path / "third").exists()


def test_a_run_goes_on_from_where_it_began_alone(dataset, tmp_path):
    first = train(tiny("train.steps=1"), dataset, tmp_path / "first", quiet=True)
    second = train(tiny("train.steps=1", "train.seed=1"), dataset, tmp_path / "second", begin=first, quiet=True)
    shutil.rmtree(second / "checkpoints")  # as if it had been killed before the first one
    for run, begin, message in (
        (second, None, "give the same --from"),
        (second, second, "give the same"),
        (first, second, "leave --from out"),
    ):
        recipe = tiny("train.steps=1", f"train.seed={int(run == second)}")
        with pytest.raises(ConfigError, match=message):
            train(recipe, dataset, run, resume=True, begin=begin, quiet=True)


def test_a_run_that_was_killed_while_it_began_begins_anew(dataset, tmp_path):
    run = tmp_path / "run"
    train(tiny("train.steps=1"), dataset, run, quiet=True)
    for path in (run / "checkpoints", run / "tensorboard"):
        shutil.rmtree(path)
    for path in list(run.iterdir()):
        if path.name != "record.json":
            path.unlink()
    (run / ".999999.transmodal-partial.run.json.x").write_text("{")
    train(tiny("train.steps=1"), dataset, run, resume=True, quiet=True)
    assert {"run.json", "record.json", "weights.safetensors"} <= {path.name for path in run.iterdir()}
    assert not list(run.glob(".*partial*"))


@pytest.mark.parametrize(("choices", "message"), [({"devices": 0}, "--devices 0"), ({"accelerator": "tpu"}, "--accelerator tpu")])
def test_devices_that_are_not_there_are_refused(dataset, tmp_path, choices, message):
    with pytest.raises(ConfigError, match=message):
        train(tiny("train.steps=1"), dataset, tmp_path / "run", quiet=True, **choices)


def test_a_run_is_not_overwritten(dataset, tmp_path):
    train(tiny("train.steps=2"), dataset, tmp_path / "run", quiet=True)
    with pytest.raises(ConfigError, match="--resume"):
        train(tiny("train.steps=2"), dataset, tmp_path / "run", quiet=True)
    with pytest.raises(ConfigError, match="recipe is not what the run began with"):
        train(tiny("train.steps=3"), dataset, tmp_path / "run", resume=True, quiet=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("")
    with pytest.raises(FileError, match="neither empty nor a run"):
        train(tiny(), dataset, tmp_path / "other", quiet=True)


def test_a_second_process_is_refused(dataset, tmp_path):
    with folder_lock(tmp_path / "run"), pytest.raises(BusyError, match=str(os.getpid())):
        train(tiny(), dataset, tmp_path / "run", quiet=True)


def test_no_subject_is_in_two_parts(dataset, tmp_path):
    train(tiny("train.steps=1", "train.test_fraction=0.25"), dataset, tmp_path / "run", quiet=True)
    split = read_run(tmp_path / "run").split
    assert sorted(split.train + split.validation + split.test) == ["head0", "head1", "head2", "head3"]
    assert len(split.test) == len(split.validation) == 1


def test_a_person_is_in_one_part_only(dataset, tmp_path):
    sessions = shutil.copytree(dataset, tmp_path / "dataset")
    manifest = read_manifest(sessions)
    subjects = [
        subject.model_copy(update={"attributes": {"person": str(subject.id in ("head0", "head3"))}}) for subject in manifest.subjects
    ]
    write_manifest(sessions, manifest.model_copy(update={"subjects": tuple(subjects)}))
    recipe = load_recipe(
        "baseline-threshold", ["train.steps=1", "train.batch_size=1", "train.validation_fraction=0", "train.test_fraction=0.5"]
    )
    split = read_run(train(recipe, sessions, tmp_path / "run", quiet=True)).split
    assert {frozenset(split.train), frozenset(split.test)} == {frozenset({"head0", "head3"}), frozenset({"head1", "head2"})}


def test_subjects_without_a_pair_are_left_out_or_missed(dataset, tmp_path):
    manifest = read_manifest(dataset)
    lonely = [s.model_copy(update={"images": {k: v for k, v in s.images.items() if k.startswith("mr")}}) for s in manifest.subjects]
    write_manifest(tmp_path, Manifest(preparation=manifest.preparation, subjects=tuple(lonely)))
    with pytest.raises(DataError, match="no subject of the dataset has both"):
        train(tiny(), tmp_path, tmp_path / "run", quiet=True)


def test_a_run_without_weights_says_what_to_do(dataset, tmp_path):
    train(tiny("train.steps=1"), dataset, tmp_path, quiet=True)
    (tmp_path / WEIGHTS_NAME).unlink()
    with pytest.raises(CheckpointError, match=r"has no weights\.safetensors yet"):
        load_method(tmp_path, torch.device("cpu"))
