"""A run as a model to pass on: what prediction needs, with weights in half precision, and nothing else."""

import shutil
from pathlib import Path

import torch
from torch import Tensor

from transmodal.contracts import LearnedMethod
from transmodal.core.errors import CheckpointError, ConfigError
from transmodal.core.files import atomic_folder, sha256
from transmodal.engine.checkpoint import save_tree
from transmodal.engine.run import read_run, write_run
from transmodal.engine.train import WEIGHTS_NAME
from transmodal.imaging.preparation import TEMPLATE_NAME
from transmodal.methods.builtin import HASH_NAME
from transmodal.methods.prior import ATLASES_NAME
from transmodal.methods.runs import load_method


def export(run: Path, out: Path) -> float:
    """Write the model of a run: ``run.json``, ``weights.safetensors`` and ``weights.sha256``, which `load_method` reads as a run.

    The atlases of a run that builds on some, and the files of a template, go with it as they are: atlases are scans of people.

    Parameters
    ----------
    run : Path
    out : Path
        The folder to write, which must be new or empty.

    Returns
    -------
    float
        Size of the weights in MB.

    Raises
    ------
    FileError
        If the folder is not a run, or the other one is not empty.
    ConfigError
        If the run has no networks.
    CheckpointError
        If the run has no weights yet, or they do not fit into half precision.
    """
    method = load_method(run, torch.device("cpu"))
    if not isinstance(method, LearnedMethod):
        raise ConfigError(f"{run}: the run has no networks whose weights could be halved; pass on the run itself")
    weights = {
        network: {name: _halved(tensor, f"{run}: {network}: {name}") for name, tensor in module.state_dict().items()}
        for network, module in method.networks.items()
    }
    with atomic_folder(out) as folder:
        save_tree(folder / WEIGHTS_NAME, weights)
        (folder / HASH_NAME).write_text(f"{sha256(folder / WEIGHTS_NAME)}  {WEIGHTS_NAME}\n")
        write_run(folder, read_run(run))
        for name in (ATLASES_NAME, TEMPLATE_NAME):
            if (run / name).is_dir():
                shutil.copytree(run / name, folder / name)
    return (out / WEIGHTS_NAME).stat().st_size / 1e6


def _halved(tensor: Tensor, where: str) -> Tensor:
    """Floating-point numbers in half precision; others as they are."""
    half = tensor.to(torch.float16) if tensor.is_floating_point() else tensor
    if not half.isfinite().all():
        raise CheckpointError(f"{where} holds {tensor.abs().max().item():g}; half precision ends at 65504")
    return half
