import pickle

import pytest
import torch
from torch import nn

from transmodal.core.errors import CheckpointError
from transmodal.engine.checkpoint import (
    KEPT,
    checkpoint_path,
    load_latest,
    load_optimizer,
    load_tree,
    load_weights,
    save_checkpoint,
    save_tree,
)


def test_trees_come_back_as_they_were(tmp_path):
    tree = {
        "a": torch.arange(6).reshape(2, 3),
        "b": [1, 2.5, "text", None, True, {"c": torch.tensor(1.5, dtype=torch.bfloat16)}],
        "state": {0: {"step": torch.tensor(3.0)}, 1: {}},
        "empty": torch.zeros(0, 3),
    }
    save_tree(tmp_path / "tree", tree)
    back = load_tree(tmp_path / "tree")
    assert torch.equal(back["a"], tree["a"])
    assert back["b"][:5] == tree["b"][:5]
    assert back["b"][5]["c"].dtype == torch.bfloat16
    assert list(back["state"]) == [0, 1]
    assert back["empty"].shape == (0, 3)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was run",))


@pytest.mark.parametrize("content", [b"", b"<html>", pickle.dumps({"weights": Bomb()})], ids=["empty", "html", "pickle"])
def test_what_is_no_checkpoint_is_refused_and_never_unpickled(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        load_tree(path)


def test_a_missing_or_truncated_file_is_named(tmp_path):
    path = tmp_path / "weights.safetensors"
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        load_tree(path)
    save_tree(path, {"a": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        load_tree(path)


def test_no_flipped_bit_goes_unnoticed(tmp_path):
    tree = {"step": 7, "weights": torch.arange(6.0), "counter": torch.tensor(3), "none": torch.zeros(0, 3)}
    path = tmp_path / "weights.safetensors"
    save_tree(path, tree)
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x04]) + content[position + 1 :])
        try:
            back = load_tree(path)
        except CheckpointError as error:
            assert "weights.safetensors" in str(error)
            continue
        assert back["step"] == 7 and torch.equal(back["weights"], tree["weights"]), position


def test_only_the_latest_checkpoints_are_kept(tmp_path):
    for step in range(5):
        save_checkpoint(tmp_path, step, {"step": step})
    assert len(list(tmp_path.glob("checkpoints/*"))) == KEPT
    assert load_latest(tmp_path, pytest.fail)["step"] == 4


def test_a_training_that_began_again_keeps_what_it_writes(tmp_path):
    for step in (30, 40, 12):
        save_checkpoint(tmp_path, step, {"step": step})
    assert [path.name for path in tmp_path.glob("checkpoints/*")] == ["step-00000012.safetensors"]


def test_one_damaged_checkpoint_is_passed_over_and_of_all_it_is_said(tmp_path):
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"step": step})
    one, two = (checkpoint_path(tmp_path, step) for step in (1, 2))
    two.write_bytes(two.read_bytes()[:-9])
    said = []
    assert load_latest(tmp_path, said.append)["step"] == 1
    assert len(said) == 1 and "step-00000002" in said[0] and "the one before it" in said[0]
    one.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"step-00000002.*no other is whole: begin another run with .*--from"):
        load_latest(tmp_path, pytest.fail)


def test_weights_of_another_architecture_are_explained():
    weights = nn.Conv2d(1, 2, 3).state_dict()
    with pytest.raises(CheckpointError, match=r"run: .* weight is \(2, 1, 3, 3\) and should be \(2, 1, 5, 5\)"):
        load_weights(nn.Conv2d(1, 2, 5), weights, "run")
    with pytest.raises(CheckpointError, match="bias is not known"):
        load_weights(nn.Conv2d(1, 2, 3, bias=False), weights, "run")


def test_moments_take_the_layout_of_their_parameters():
    layer = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.randn(1, 4, 8, 8)).sum().backward()
    optimizer.step()
    state = dict(optimizer.state_dict())
    state["state"] = {k: {n: t.contiguous() for n, t in moments.items()} for k, moments in state["state"].items()}
    fresh = torch.optim.Adam(layer.parameters())
    load_optimizer(fresh, state)
    assert fresh.state[layer.weight]["exp_avg"].stride() == layer.weight.stride()
    assert torch.equal(fresh.state[layer.weight]["exp_avg"], optimizer.state[layer.weight]["exp_avg"])
