"""Training state in one safetensors file: tensors, and everything else as JSON in its header. Nothing is ever unpickled."""

import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from transmodal.core.errors import CheckpointError
from transmodal.core.files import atomic_path

_TREE = "transmodal"
_DIGEST = "sha256"
_TENSOR = "$tensor"
KEPT = 2


def save_tree(path: Path, tree: Mapping[str, Any]) -> None:
    """Write nested dicts and lists of tensors and plain values, whole or not at all.

    Parameters
    ----------
    path : Path
    tree : dict
        Leaves are tensors, numbers, strings, booleans or None. Dict keys are strings or integers.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = json.dumps(_flatten(tree, "", tensors))
    with atomic_path(path) as temporary:
        try:
            safetensors.torch.save_file(tensors, temporary, metadata={_TREE: skeleton, _DIGEST: _digest(skeleton, tensors)})
        except safetensors.SafetensorError as error:  # its only class, for a full disk as well
            raise OSError(str(error)) from error


def load_tree(path: Path) -> Any:
    """Read what `save_tree` wrote, on the CPU.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, or something else.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            if notes.get(_DIGEST) not in (None, _digest(notes[_TREE], tensors)):
                raise ValueError("its contents have changed since it was written")
            return _unflatten(json.loads(notes[_TREE]), tensors)
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: missing, damaged, or not a file of transmodal ({error})") from error


def _digest(skeleton: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of all that is stored: the format has no checksum of its own."""
    digest = hashlib.sha256(skeleton.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _flatten(node: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, Tensor):
        tensors[path] = node.detach().cpu().contiguous()
        return {_TENSOR: path}
    if isinstance(node, Mapping):
        # JSON knows only string keys: the pairs keep the integers of an optimiser's state.
        return {"$dict": [[key, _flatten(value, f"{path}/{key}", tensors)] for key, value in node.items()]}
    if isinstance(node, list | tuple):
        return [_flatten(value, f"{path}/{k}", tensors) for k, value in enumerate(node)]
    return node


def _unflatten(node: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(node, list):
        return [_unflatten(value, tensors) for value in node]
    if isinstance(node, dict) and _TENSOR in node:
        return tensors[node[_TENSOR]]
    if isinstance(node, dict):
        return {key: _unflatten(value, tensors) for key, value in node["$dict"]}
    return node


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read weights that another program wrote, as safetensors or as a state dict of torch, without running code from the file.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, or holds anything but named tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file of weights")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: damaged, or neither safetensors nor a state dict of torch ({error})") from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(f"{path}: holds something else than named tensors; save the state dict of the network")
    return weights


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Put weights into a network, in place.

    Raises
    ------
    CheckpointError
        If names or shapes are not those of the network; the message lists the first few.
    """
    own = network.state_dict()
    faults = [f"{name} is missing" for name in own if name not in weights]
    faults += [f"{name} is not known" for name in weights if name not in own]
    faults += [
        f"{name} is {tuple(weights[name].shape)} and should be {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if faults:
        more = f" (and {len(faults) - 5} more)" if len(faults) > 5 else ""
        raise CheckpointError(f"{where}: the weights belong to another architecture: {'; '.join(faults[:5])}{more}")
    network.load_state_dict(dict(weights))


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Put back the state of an optimiser, each moment in the memory layout of its parameter.

    Without that the moments of channels-last weights would be laid out otherwise than in a run that was never interrupted, and
    the same additions could be rounded in another order.
    """
    optimizer.load_state_dict(dict(state))
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def checkpoint_path(run: Path, step: int) -> Path:
    """Where the training state after `step` steps is kept."""
    return run / "checkpoints" / f"step-{step:08d}.safetensors"


def save_checkpoint(run: Path, step: int, tree: Mapping[str, Any]) -> None:
    """Write the training state after `step` steps, and drop all but the latest ones; later ones are of no training that goes on."""
    path = checkpoint_path(run, step)
    save_tree(path, tree)
    there = sorted(path.parent.glob("step-*.safetensors"))
    latest = there.index(path) + 1
    for other in [*there[: max(latest - KEPT, 0)], *there[latest:]]:
        other.unlink()


def load_latest(run: Path, warn: Any) -> Any | None:
    """The latest training state of a run that is whole; None if it has none.

    Parameters
    ----------
    run : Path
    warn : callable
        Called with a message for each damaged file that is passed over.

    Raises
    ------
    CheckpointError
        If it has some, and none is whole.
    """
    damage = []
    for path in sorted(run.glob("checkpoints/step-*.safetensors"), reverse=True):
        try:
            found = load_tree(path)
        except CheckpointError as error:
            damage.append(str(error))
            continue
        for message in damage:
            warn(f"{message}; taking the one before it")
        return found
    if damage:
        raise CheckpointError(f"{damage[0]}; no other is whole: begin another run with the best weights of this one (--from {run})")
    return None
