import hashlib

import pytest
import torch

from transmodal.core.errors import CheckpointError, ConfigError, FileError
from transmodal.engine.checkpoint import load_tree, save_tree
from transmodal.methods.builtin import HASH_NAME
from transmodal.methods.recipe import load_recipe
from transmodal.methods.runs import load_method
from transmodal.workflows.export import export
from transmodal.workflows.train import train

SHORT = ["train.steps=1", "train.batch_size=1", "train.validate_every=1", "train.validation_batches=1"]


@pytest.fixture
def run(dataset, tmp_path):
    settings = ["method.network.channels=[4,8]", "view.size=[32,32]", *SHORT]
    train(load_recipe("unet2d-quick", settings), dataset, tmp_path / "run", quiet=True)
    return tmp_path / "run"


def test_a_model_makes_what_its_run_makes_but_for_the_rounding_of_weights(run, tmp_path):
    size = export(run, tmp_path / "model")
    names = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert names == ["run.json", "weights.safetensors", HASH_NAME]
    file = tmp_path / "model" / "weights.safetensors"
    assert size == pytest.approx(file.stat().st_size / 1e6)
    assert (tmp_path / "model" / HASH_NAME).read_text() == f"{hashlib.sha256(file.read_bytes()).hexdigest()}  weights.safetensors\n"
    first, second = (load_method(folder, torch.device("cpu")).networks["generator"].eval() for folder in (run, tmp_path / "model"))
    image = torch.randn(1, 1, 32, 32)
    assert all(weight.dtype == torch.float32 for weight in second.parameters())
    torch.testing.assert_close(second(image), first(image), rtol=0, atol=5e-3)


def test_what_cannot_be_a_model_is_refused(run, dataset, tmp_path):
    with pytest.raises(FileError, match="something already"):
        export(run, run)
    weights = load_tree(run / "weights.safetensors")
    weights["generator"]["output.bias"] += 1e6
    save_tree(run / "weights.safetensors", weights)
    with pytest.raises(CheckpointError, match=r"generator: output\.bias holds 1e\+06; half precision ends at 65504"):
        export(run, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    train(load_recipe("baseline-constant", ["train.steps=1", "train.batch_size=1"]), dataset, tmp_path / "fitted", quiet=True)
    with pytest.raises(ConfigError, match="no networks"):
        export(tmp_path / "fitted", tmp_path / "model")
