"""Weights, recipes, links and names."""

import pickle
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import torch

from reliability.rows import CHECKPOINT, CONFIG, FILE, VALID, Make, Row, head, subject
from transmodal.engine.checkpoint import save_tree
from transmodal.imaging.scan import write_scan


class Bomb:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("the-pickle-was-run"),)


def _run_with(change: Callable[[Path], None]) -> Make:
    """The run, which the caller has put into the folder, with its weights changed."""

    def make(folder: Path) -> Path:
        _named("mr")(folder)
        change(folder / "run" / "weights.safetensors")
        return folder / "run" / "weights.safetensors"

    return make


def _other_weights(path: Path) -> None:
    save_tree(path, {"generator": {"weight": torch.zeros(3)}})


def _recipe(old: str, new: str) -> Make:
    def make(folder: Path) -> Path:
        text = (files("transmodal") / "recipes" / "unet2d-quick.toml").read_text()
        assert old in text
        (folder / "mine.toml").write_text(text.replace(old, new))
        return folder / "mine.toml"

    return make


def _named(stem: str, parent: str = "") -> Make:
    def make(folder: Path) -> Path:
        path = folder / parent / f"{stem}.nii.gz"
        write_scan(head()["mr"], path)
        return path

    return make


def _link_to_itself(folder: Path) -> Path:
    (folder / "mr.nii.gz").symlink_to("mr.nii.gz")
    return folder / "mr.nii.gz"


def _loop_beside_scans(folder: Path) -> Path:
    (folder / "again").symlink_to(folder, target_is_directory=True)
    return subject()(folder)


OTHER = {
    "pickle for weights": Row(
        _run_with(lambda path: path.write_bytes(pickle.dumps({"medians": Bomb()})) and None), CHECKPOINT, "missing, damaged, or not a file"
    ),
    "weights of another architecture": Row(_run_with(_other_weights), CHECKPOINT, "another architecture"),
    "truncated weights": Row(_run_with(lambda path: path.write_bytes(path.read_bytes()[:-4]) and None), CHECKPOINT, "damaged"),
    "recipe with an unknown table": Row(
        _recipe("[train]", "[training]\nepochs = 3\n\n[train]"), CONFIG, "training: there is no such", "train"
    ),
    "recipe with a misspelt key": Row(_recipe("batch_size", "batchsize"), CONFIG, "batchsize: there is no such setting", "train"),
    "recipe with a wrong type": Row(_recipe("steps = 600", 'steps = "many"'), CONFIG, "train.steps = 'many'", "train"),
    "recipe with an impossible value": Row(_recipe("steps = 600", "steps = -1"), CONFIG, "train.steps = -1", "train"),
    "recipe that is no TOML": Row(_recipe("[train]", "[train"), CONFIG, "not valid TOML", "train"),
    "link to itself": Row(_link_to_itself, FILE, "no such file"),
    "loop of links beside scans": Row(_loop_beside_scans, VALID, command="prepare"),
    "name with spaces": Row(_named("my mr of  today", "a folder"), VALID),
    "name in Unicode": Row(_named("頭部 tête [é]*", "Ærø ß"), VALID),
    "name of 200 characters": Row(_named("x" * 193, "y" * 200), VALID),
    "subject in spaces and Unicode": Row(_named("mr", "頭 ß [1]*"), VALID, command="prepare"),
    "subject of 200 characters": Row(_named("mr", "s" * 200), VALID, command="prepare"),
}
