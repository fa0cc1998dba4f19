from pathlib import Path

import pytest

from transmodal.methods.recipe import load_recipe
from transmodal.workflows.train import train


@pytest.fixture(scope="session")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is fitted in no time."""
    recipe = load_recipe("baseline-threshold", ["train.steps=1", "train.batch_size=1"])
    return train(recipe, dataset, tmp_path_factory.mktemp("model") / "run", quiet=True)
