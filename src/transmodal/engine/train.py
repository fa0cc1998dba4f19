"""The training loop: the same for every method, and for one CPU, one GPU, or many of them."""

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from pydantic import Field
from torch import Tensor, nn

from transmodal.contracts import LearnedMethod, Metrics, Optimization
from transmodal.core.config import Config
from transmodal.core.errors import ConfigError, Interrupted, TrainingError
from transmodal.core.files import write_json
from transmodal.data.sampling import Batch, Sampler
from transmodal.engine.checkpoint import load_latest, load_optimizer, load_weights, save_checkpoint, save_tree
from transmodal.engine.hardware import Precision, choose_device, keep_memory, optimize_layout, use_bf16
from transmodal.engine.health import Finding, HealthWatch
from transmodal.engine.logs import TrainingLog
from transmodal.engine.processes import average_gradients, gather, share_buffers
from transmodal.engine.stop import Stop

WEIGHTS_NAME = "weights.safetensors"
POLYNOMIAL_POWER = 0.9


class Training(Config):
    """How long and how to train: the ``[train]`` table of a recipe.

    Parameters
    ----------
    steps, batch_size : int
        A step is one batch; the batch is that of all processes together.
    schedule : {"constant", "linear", "polynomial"}
        ``linear`` holds the learning rate until `decay_from` and then lowers it in a straight line to 0 at the last step;
        ``polynomial`` takes that line to the power of 0.9, as nnU-Net does from the first step.
    decay_from : int
    clip_norm : float, optional
        Largest norm of the gradient.
    ema : float, optional
        Decay of a moving average of the weights, which is then what is validated and kept.
    precision : {"auto", "fp32", "bf16"}
    validation_fraction, test_fraction : float
        Shares of the subjects that are kept aside, to choose the best weights by and for the final test; 0 for none.
    validate_every, validation_batches : int
        How often, in steps, and on how many batches: always the same ones.
    patience : int, optional
        Validations without improvement after which training ends.
    checkpoint_every, log_every : int
        In steps.
    workers : int
        Threads that prepare batches ahead.
    seed : int
    """

    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    schedule: Literal["constant", "linear", "polynomial"] = "constant"
    decay_from: int = Field(default=0, ge=0)
    clip_norm: float | None = Field(default=None, gt=0)
    ema: float | None = Field(default=None, gt=0, lt=1)
    precision: Precision = "auto"
    validation_fraction: float = Field(default=0.15, ge=0, lt=1)
    test_fraction: float = Field(default=0.0, ge=0, lt=1)
    validate_every: int = Field(default=500, gt=0)
    validation_batches: int = Field(default=8, gt=0)
    patience: int | None = Field(default=None, gt=0)
    checkpoint_every: int = Field(default=500, gt=0)
    log_every: int = Field(default=10, gt=0)
    workers: int = Field(default=2, gt=0)
    seed: int = Field(default=0, ge=0)

    def rate(self, step: int) -> float:
        """The factor on every learning rate at a step."""
        if self.schedule == "constant" or step < self.decay_from:
            return 1.0
        left = (self.steps - step) / (self.steps - self.decay_from)
        return left**POLYNOMIAL_POWER if self.schedule == "polynomial" else left


@dataclass
class Progress:
    """How far training is, and the best that it has seen."""

    step: int = 0
    best_loss: float = math.inf
    best_step: int = 0
    stale: int = 0
    done: bool = False


@dataclass
class _Loop:
    fabric: Fabric
    method: LearnedMethod
    settings: Training
    run: Path
    bare: dict[str, nn.Module]
    optimizations: dict[str, Optimization]
    rates: dict[str, list[float]]
    progress: Progress
    averages: dict[str, dict[str, Tensor]]
    pending: list[Metrics] = field(default_factory=list)


def make_fabric(settings: Training, devices: int | str = "auto", nodes: int = 1, accelerator: str = "auto") -> Fabric:
    """The processes and devices to train on; joins those that torchrun or SLURM started.

    Parameters
    ----------
    settings : Training
    devices : int or "auto"
        Per node; several on one CPU are processes, which is meant for tests.
    nodes : int
    accelerator : str
        ``auto``, ``cpu``, ``cuda`` ...
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    device = choose_device("auto" if accelerator == "gpu" else accelerator, "--accelerator")
    precision = "bf16-mixed" if use_bf16(settings.precision, device) else "32-true"
    if device.type == "cpu" and devices == "auto":
        devices = 1
    try:
        return Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, precision=precision)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"--accelerator {accelerator} --devices {devices} --nodes {nodes}: not available here ({error})") from error


def train(
    fabric: Fabric, method: LearnedMethod, sampler: Sampler, validation: Sampler | None, settings: Training, run: Path, quiet: bool = False
) -> Progress:
    """Train a method, from the run's latest checkpoint if it has one, until the last step or until validation stops improving.

    Parameters
    ----------
    fabric : Fabric
        Launched.
    method : LearnedMethod
    sampler : Sampler
        Of the training subjects.
    validation : Sampler, optional
        Of the validation subjects; without it the last weights are the best.
    settings : Training
    run : Path
        Takes ``weights.safetensors``, ``metrics.csv``, ``tensorboard/`` and ``checkpoints/``.
    quiet : bool
        No progress bar.

    Raises
    ------
    Interrupted
        On SIGINT or SIGTERM, after the step in hand has been finished and saved.
    TrainingError
        If a loss is not a number; the best weights are left as they were.
    """
    keep_memory()
    loop = _set_up(fabric, method, settings, run)
    with TrainingLog(run, settings.steps, loop.progress.step, quiet or not fabric.is_global_zero) as log, Stop() as stop:
        _fit(loop, sampler, validation, log, stop)
    return loop.progress


def _set_up(fabric: Fabric, method: LearnedMethod, settings: Training, run: Path) -> _Loop:
    if settings.batch_size % fabric.world_size:
        raise ConfigError(f"train.batch_size = {settings.batch_size} cannot be divided among {fabric.world_size} processes")
    bare = {name: optimize_layout(network) for name, network in method.networks.items()}
    for name, network in bare.items():
        method.networks[name] = fabric.setup_module(network)
    optimizations = method.optimizers()
    rates = {name: [group["lr"] for group in o.optimizer.param_groups] for name, o in optimizations.items()}
    averages = {name: _copies(_floats(network)) for name, network in bare.items()} if settings.ema else {}
    loop = _Loop(fabric, method, settings, run, bare, optimizations, rates, Progress(), averages)
    _resume(loop)
    return loop


def _fit(loop: _Loop, sampler: Sampler, validation: Sampler | None, log: TrainingLog, stop: Stop) -> None:
    settings, progress = loop.settings, loop.progress
    fixed = _validation_batches(validation, settings) if validation else []
    watch = HealthWatch()
    for row in log.recorded("train"):  # what was told before an interruption is not told again
        watch.look(row)
    for step, batch in _batches(loop, sampler):
        _step(loop, step, batch)
        progress.step = step + 1
        log.advance(progress.step)
        last = progress.step == settings.steps
        stopping = stop.requested(loop.fabric)
        due = last or stopping or progress.step % settings.checkpoint_every == 0
        if due or progress.step % settings.log_every == 0:
            _warn_of(loop, watch.look(_log(loop, log)))
        if fixed and (last or progress.step % settings.validate_every == 0):
            _validate(loop, fixed, log)
        progress.done = last or (settings.patience is not None and progress.stale >= settings.patience)
        if (due or progress.done) and not fixed:
            _keep_weights(loop)
        if due or progress.done:
            _save(loop, log)
        if progress.done:
            return
        if stopping:
            raise Interrupted(f"stopped after step {progress.step} of {settings.steps}; go on with: transmodal train ... --resume")


def _step(loop: _Loop, step: int, batch: Batch) -> None:
    """One training step, with random numbers that depend on the seed, the step and the process alone."""
    torch.manual_seed(int(np.random.SeedSequence((loop.settings.seed, step, loop.fabric.global_rank)).generate_state(1)[0]))
    for name, optimization in loop.optimizations.items():
        for group, rate in zip(optimization.optimizer.param_groups, loop.rates[name], strict=True):
            group["lr"] = rate * loop.settings.rate(step)
    for network in loop.method.networks.values():
        network.train()

    norms: dict[str, Tensor] = {}

    def update(name: str, loss: Tensor) -> None:
        optimizer, networks = loop.optimizations[name].optimizer, loop.optimizations[name].networks
        parameters = [p for network in networks for p in loop.bare[network].parameters()]
        optimizer.zero_grad()
        # A generator's loss goes through the discriminator, whose own gradients are not wanted.
        loop.fabric.backward(loss, inputs=parameters)
        average_gradients(loop.fabric, parameters)
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        norms[f"gradient_norm_{name}"] = norm
        if loop.settings.clip_norm:
            nn.utils.clip_grads_with_norm_(parameters, loop.settings.clip_norm, norm)
        optimizer.step()

    with ExitStack() as apart:  # every update averages its gradients itself
        for network in loop.method.networks.values():
            apart.enter_context(loop.fabric.no_backward_sync(network))  # pyright: ignore[reportArgumentType]
        metrics = loop.method.training_step(batch.to(loop.fabric.device), update)
    share_buffers(loop.fabric, loop.bare.values())
    loop.pending.append({**metrics, **norms})
    for name, average in loop.averages.items():
        torch._foreach_lerp_(list(average.values()), list(_floats(loop.bare[name]).values()), 1 - (loop.settings.ema or 0))


def _log(loop: _Loop, log: TrainingLog) -> dict[str, float]:
    """Record the means since the last time, of each metric over the steps that had it; stop if one is not a number."""
    means = _means(loop.pending)
    loop.pending.clear()
    values = {name: float(loop.fabric.all_reduce(value)) for name, value in means.items()}  # pyright: ignore[reportArgumentType]
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise TrainingError(
            f"step {loop.progress.step}: {', '.join(bad)} is not a finite number; lower the learning rate, set train.clip_norm, "
            "or look for broken images in the dataset. The best weights so far are kept"
        )
    log.record(loop.progress.step, "train", values)
    return values


def _means(rows: Sequence[Metrics]) -> dict[str, Tensor]:
    """The mean of each metric over the rows that have it: pairs can be scored by what strangers cannot."""
    names = dict.fromkeys(name for metrics in rows for name in metrics)
    return {name: torch.stack([metrics[name].float() for metrics in rows if name in metrics]).mean() for name in names}


def _warn_of(loop: _Loop, findings: list[Finding]) -> None:
    """Tell of what is wrong, once for all processes, whose numbers are the same."""
    for finding in findings if loop.fabric.is_global_zero else []:
        warnings.warn(finding.message, stacklevel=2)


@torch.no_grad()
def _validate(loop: _Loop, batches: list[Batch], log: TrainingLog) -> None:
    """Score the same batches as ever, on every process, and keep the weights if they are the best so far."""
    with _averaged(loop):
        for network in loop.method.networks.values():
            network.eval()
        results = [loop.method.validation_step(batch.to(loop.fabric.device)) for batch in batches]
        values = {name: float(value) for name, value in _means(results).items()}
        log.record(loop.progress.step, "validation", values)
        columns = loop.method.preview(batches[0].to(loop.fabric.device))  # on every process, because networks talk to one another
        if loop.fabric.is_global_zero:
            log.show(loop.progress.step, columns)
            log.flush()
        progress = loop.progress
        if "loss" not in values:
            progress.best_step = progress.step
            _write_weights(loop)
        elif values["loss"] < progress.best_loss:
            progress.best_loss, progress.best_step, progress.stale = values["loss"], progress.step, 0
            _write_weights(loop)
        else:
            progress.stale += 1


def _keep_weights(loop: _Loop) -> None:
    with _averaged(loop):
        loop.progress.best_step = loop.progress.step
        _write_weights(loop)


def _write_weights(loop: _Loop) -> None:
    """Write the weights that are to be used for prediction, with a readable note of what they are."""
    if not loop.fabric.is_global_zero:
        return
    save_tree(loop.run / WEIGHTS_NAME, {name: network.state_dict() for name, network in loop.bare.items()})
    note = {"step": loop.progress.step, "validation_loss": loop.progress.best_loss if loop.progress.best_loss < math.inf else None}
    write_json(loop.run / "weights.json", note)


def _save(loop: _Loop, log: TrainingLog) -> None:
    """Write all that an exact resume needs. What was logged goes first: a checkpoint never knows more than the table."""
    states = gather(loop.fabric, loop.method.state())  # each process has seen images of its own
    if loop.fabric.is_global_zero:
        log.flush()
        tree: dict[str, Any] = {
            "progress": vars(loop.progress),
            "networks": {name: network.state_dict() for name, network in loop.bare.items()},
            "optimizers": {name: o.optimizer.state_dict() for name, o in loop.optimizations.items()},
            "averages": loop.averages,
            "methods": {str(rank): state for rank, state in enumerate(states)},
        }
        save_checkpoint(loop.run, loop.progress.step, tree)
    loop.fabric.barrier()


def _resume(loop: _Loop) -> None:
    tree = load_latest(loop.run, lambda message: warnings.warn(message, stacklevel=2))
    if tree is None:
        return
    where = f"{loop.run}: the checkpoint of step {tree['progress']['step']}"
    for name, network in loop.bare.items():
        load_weights(network, tree["networks"].get(name, {}), where)
    for name, optimization in loop.optimizations.items():
        load_optimizer(optimization.optimizer, tree["optimizers"][name])
    for name, average in loop.averages.items():
        for key, value in tree["averages"][name].items():
            average[key].copy_(value)
    states = tree["methods"]
    loop.method.load_state(states.get(str(loop.fabric.global_rank), states["0"]))
    loop.progress = Progress(**tree["progress"])


def _batches(loop: _Loop, sampler: Sampler) -> Iterator[tuple[int, Batch]]:
    """The batches of this process from the present step to the last, made ahead of time by threads."""
    size = loop.settings.batch_size // loop.fabric.world_size
    first = size * loop.fabric.global_rank
    steps = iter(range(loop.progress.step, 0 if loop.progress.done else loop.settings.steps))
    with ThreadPoolExecutor(loop.settings.workers) as pool:
        ahead: list[tuple[int, Future[Batch]]] = []
        try:
            for step in islice(steps, loop.settings.workers + 1):
                ahead.append((step, pool.submit(sampler.batch, step, size, first)))
            while ahead:
                step, future = ahead.pop(0)
                batch = future.result()
                for following in islice(steps, 1):
                    ahead.append((following, pool.submit(sampler.batch, following, size, first)))
                yield step, batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _validation_batches(validation: Sampler, settings: Training) -> list[Batch]:
    """The same samples at every validation: steps of their own, which training with this seed also has, but of other subjects."""
    return [validation.batch(step, settings.batch_size) for step in range(settings.validation_batches)]


def _floats(network: nn.Module) -> dict[str, Tensor]:
    """The weights that can be averaged: all but counters."""
    return {name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()}


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


class _averaged:
    """While the block lasts, the networks hold their averaged weights, if averages are kept."""

    def __init__(self, loop: _Loop) -> None:
        self._loop = loop
        self._own: dict[str, dict[str, Tensor]] = {}

    def __enter__(self) -> None:
        self._own = {name: _copies(_floats(self._loop.bare[name])) for name in self._loop.averages}
        self._put(self._loop.averages)

    def __exit__(self, *_: object) -> None:
        self._put(self._own)

    @torch.no_grad()
    def _put(self, weights: Mapping[str, dict[str, Tensor]]) -> None:
        for name, tensors in weights.items():
            for key, tensor in _floats(self._loop.bare[name]).items():
                tensor.copy_(tensors[key])
