"""Runs: the folder that training writes and prediction reads. It holds everything that prediction needs."""

from pathlib import Path

import torch

from transmodal.contracts import FittedMethod, LearnedMethod, Method
from transmodal.core.errors import CheckpointError, about
from transmodal.core.files import sha256
from transmodal.core.jobs import HERE, Workers
from transmodal.engine.checkpoint import load_tree, load_weights, save_tree
from transmodal.engine.run import RUN_NAME, read_run
from transmodal.engine.train import WEIGHTS_NAME
from transmodal.methods.recipe import build_method, parse_recipe


def save_fitted(folder: Path, method: FittedMethod) -> None:
    """Write what a fitted method has learned."""
    save_tree(folder / WEIGHTS_NAME, {name: torch.from_numpy(array) for name, array in method.state().items()})


def load_method(folder: Path, device: torch.device, workers: Workers = HERE) -> Method:
    """The method of a run with its best weights, ready to synthesize on `device`, and to share among `workers` what can be shared.

    Raises
    ------
    FileError, ConfigError
        If the folder is not a run.
    CheckpointError
        If the weights are missing, damaged, or belong to another architecture.
    """
    run = read_run(folder)
    setting = run.setting.model_copy(update={"preparation": run.setting.preparation.located(Path(folder).resolve())})
    method = build_method(parse_recipe(run.recipe, f"{RUN_NAME}, recipe"), setting)
    path = Path(folder) / WEIGHTS_NAME
    if not path.is_file():
        raise CheckpointError(f"{folder}: the run has no {WEIGHTS_NAME} yet; train it on: transmodal train ... --resume")
    tree = load_tree(path)
    if isinstance(method, FittedMethod):
        with about(path):
            method.load_state({name: tensor.numpy() for name, tensor in tree.items() if isinstance(tensor, torch.Tensor)})
    if isinstance(method, LearnedMethod):
        for name, network in method.networks.items():
            load_weights(network, tree.get(name, {}), f"{path}: {name}")
            network.to(device)
    method.folder, method.workers = Path(folder), workers
    return method


def weights_hash(folder: Path) -> str:
    """SHA-256 of the weights of a run."""
    return sha256(Path(folder) / WEIGHTS_NAME)
