"""Adversarial trainings on two processes: what one process does, on halves of each batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from transmodal.engine.checkpoint import load_tree
from transmodal.engine.logs import read_metrics

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "each_process.py"
SMALL = [
    "method.generator.channels=4",
    "method.generator.blocks=1",
    "method.discriminator.channels=4",
    "view.size=[32,32]",
    "intensity.mr.kind=percentile",
    "intensity.mr.lower=0",
    "intensity.mr.upper=99.5",
    "train.batch_size=2",
    "train.precision=fp32",
    "train.log_every=1",
    "train.validate_every=2",
    "train.validation_batches=1",
    "train.validation_fraction=0.25",
]
# "fcn-cyclegan" normalises over the batch, each process over its own half.
RECIPES = {"cyclegan": SMALL, "mrgan": [*SMALL, "method.discriminator.variant=D5"], "fcn-cyclegan": SMALL}
HEALTH = ("accuracy_real", "accuracy_synthetic", "saturation", "diversity", "histogram_distance", "edges")


def train(recipe, dataset, run, devices, *more, die_at=None):
    settings = [word for text in (*RECIPES[recipe], *more) for word in ("--set", text)]
    command = [
        sys.executable,
        SCRIPT,
        "train",
        recipe,
        dataset,
        run,
        *settings,
        "--devices",
        str(devices),
        "--accelerator",
        "cpu",
        "--resume",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **({"DIE_AT": str(die_at)} if die_at else {})}
    done = subprocess.run([str(word) for word in command], timeout=600, env=environment, capture_output=True, text=True)
    assert done.returncode == (1 if die_at else 0), done.stderr


def assert_same(one, two):
    """Nested dicts of the same tensors and values."""
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_same(one[key], two[key])
    else:
        assert torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two


def losses(run):
    """The losses and the norms of their gradients, at every step."""
    rows = [row for row in read_metrics(run / "metrics.csv") if row["split"] == "train"]
    return [{name: float(value) for name, value in row.items() if name != "split" and not name.endswith(HEALTH)} for row in rows]


@pytest.mark.parametrize("recipe", RECIPES)
def test_both_processes_have_the_same_weights(recipe, dataset, tmp_path):
    train(recipe, dataset, tmp_path, 2, "train.steps=4")
    first, second = (load_tree(tmp_path / f"step4-rank{rank}.safetensors") for rank in range(2))
    assert_same(first, second)


@pytest.mark.parametrize("recipe", ["cyclegan", "mrgan"])
def test_two_processes_take_the_steps_of_one(recipe, dataset, tmp_path):
    """Pools that are not yet full give back what they get, so that the halves of each batch are those of the whole.

    The second step tells what the first has made of the weights; of MR-GAN it is the one of pairs. Adam's first steps are as long for a
    rounding error as for any gradient, so that later ones drift apart.
    """
    for devices in (1, 2):
        train(recipe, dataset, tmp_path / str(devices), devices, "train.steps=2")
    one, two = (losses(tmp_path / name) for name in ("1", "2"))
    assert len(one) == len(two) == 2
    for expected, found in zip(one, two, strict=True):
        assert found == pytest.approx(expected, rel=5e-3)


def test_killed_processes_go_on_with_the_pools_of_each(dataset, tmp_path):
    """Both pools are full after one step, and then exchange images at random."""
    settings = ("train.steps=6", "train.checkpoint_every=3", "method.pool_size=1")
    train("cyclegan", dataset, tmp_path / "whole", 2, *settings)
    train("cyclegan", dataset, tmp_path / "parts", 2, *settings, die_at=3)
    train("cyclegan", dataset, tmp_path / "parts", 2, *settings)
    whole, parts = (load_tree(tmp_path / name / "checkpoints" / "step-00000006.safetensors") for name in ("whole", "parts"))
    assert_same(whole, parts)
    assert not torch.equal(*(whole["methods"][rank]["pool_ct"]["images"] for rank in ("0", "1")))
