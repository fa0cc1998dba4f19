"""Time a training step of CycleGAN and MR-GAN on the CPU, beside plain PyTorch: python benchmarks/gan_steps.py [--only RECIPE ...].

A step moves all four networks once; of MR-GAN it is an iteration of Algorithm 1, of an unpaired and a paired step, which moves them twice.
The package takes it as in training: the method's own `training_step`, networks that Fabric has wrapped, an optimiser for each update, the
norm of its gradients, and weights as the engine lays them out. Beside it stand the published algorithms written plainly
(`published_gans.py`), in float32 and in bfloat16; each time is also given as a multiple of the plain one of the same number format. Before
that, the losses of a step with the same weights are shown to be the same: in float64, for the first step of Adam makes of a rounding error
in a gradient a step as long as any other, and MR-GAN's later losses show it.

Rounds are interleaved, after one that does not count, in a process of its own for each recipe and batch; the table has the median, and the
least and the most. The peak of memory is that of a process that takes a single step.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from contenders import Variant, setting_of
from published_gans import MRGAN, CycleGAN, Losses
from speed import Timing, alone, machine, peak_cell, race
from torch import Tensor, nn

from transmodal.contracts import LearnedMethod
from transmodal.core.volume import Modality
from transmodal.data.sampling import Batch
from transmodal.engine.hardware import optimize_layout
from transmodal.engine.train import make_fabric
from transmodal.methods.recipe import Recipe, build_method, load_recipe

PUBLISHED = {"cyclegan": CycleGAN, "mrgan": MRGAN}
BATCHES = (1, 4)
CHECKED_SIZE, CHECKED_BATCH, TOLERANCE = 64, 2, 1e-8
Maker = Literal["transmodal", "plain"]
MAKERS: tuple[Maker, Maker] = ("transmodal", "plain")
VARIANTS = (Variant("fp32", channels_last=False), Variant("bf16", channels_last=False))
HEAD = ["recipe", "batch", "", "precision", "rounds", "s (least–most)", "× plain", "peak, GiB"]
# By whether they are pairs, and by modality.
Images = dict[bool, dict[Modality, Tensor]]


@dataclass(frozen=True)
class Contender:
    """One of those that are timed beside each other."""

    recipe: str
    size: int
    batch: int
    maker: Maker
    variant: Variant


class Work(NamedTuple):
    """Networks by name, and a step of theirs."""

    networks: nn.ModuleDict
    run: Callable[[], Losses]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PUBLISHED, default=list(PUBLISHED), metavar="RECIPE", help=", ".join(PUBLISHED))
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--size", type=int, default=256, help="pixels a side")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--limit", type=float, default=300, metavar="SECONDS", help="for the rounds of a recipe and batch; there is always one"
    )
    arguments = parser.parse_args()
    print(machine())
    for recipe in arguments.only:
        print(f"`{recipe}`: the losses of a step agree to {alone(check, recipe):.0e}", flush=True)
    print(f"\nTraining: one step, {arguments.size}×{arguments.size} pixels\n\n| {' | '.join(HEAD)} |\n{'|---' * len(HEAD)}|", flush=True)
    for recipe in arguments.only:
        for batch in arguments.batches:
            print_rows(recipe, arguments.size, batch, arguments.rounds, arguments.limit)


def check(recipe: str) -> float:
    """The largest relative difference between the losses of both makers in the first step with the same weights, all in float64."""
    torch.set_default_dtype(torch.float64)
    ours, plain = (step_of(Contender(recipe, CHECKED_SIZE, CHECKED_BATCH, maker, VARIANTS[0])) for maker in MAKERS)
    with torch.no_grad():
        for name, network in plain.networks.items():
            for theirs, own in zip(network.parameters(), ours.networks[name].parameters(), strict=True):
                theirs.copy_(own)
    found, expected = ours.run(), plain.run()
    assert found.keys() == expected.keys()
    largest = max(float((found[name] / expected[name] - 1).abs()) for name in found)
    assert largest < TOLERANCE, f"{recipe}: the losses differ by {largest}"
    return largest


def print_rows(recipe: str, size: int, batch: int, rounds: int, limit: float) -> None:
    contenders = [Contender(recipe, size, batch, maker, variant) for variant in VARIANTS for maker in MAKERS]
    timings: list[Timing] | None = alone(race, step_of, contenders, rounds, limit)
    if timings is None:
        print(f"| `{recipe}` | {batch} | the process ended, probably for want of memory |", flush=True)
        return
    plain = {t.contender.variant.precision: statistics.median(t.seconds) for t in timings if t.contender.maker == "plain"}
    for timing in timings:
        contender, median = timing.contender, statistics.median(timing.seconds)
        cells = [
            f"`{recipe}`",
            str(batch),
            contender.maker,
            contender.variant.precision,
            str(len(timing.seconds)),
            f"{median:.3g} ({min(timing.seconds):.3g}–{max(timing.seconds):.3g})",
            f"{median / plain[contender.variant.precision]:.2f}",
            peak_cell(step_of, timing),
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


def step_of(contender: Contender) -> Work:
    """A step on random images, which are the same for all."""
    torch.manual_seed(0)
    shape = (contender.batch, 1, contender.size, contender.size)
    kinds = (False, True) if contender.recipe == "mrgan" else (False,)  # unpaired, paired
    images: Images = {paired: {m: torch.rand(shape) * 2 - 1 for m in ("mr", "ct")} for paired in kinds}
    return (our_step if contender.maker == "transmodal" else plain_step)(contender, images)


def our_step(contender: Contender, images: Images) -> Work:
    """What the engine does with batches once they are there; learning rates and logs, which cost next to nothing, are left out."""
    size, precision = f"view.size=[{contender.size},{contender.size}]", f"train.precision={contender.variant.precision}"
    recipe = load_recipe(contender.recipe, [size, precision])
    method, losses = build_method(recipe, setting_of(recipe)), {}
    assert isinstance(method, LearnedMethod)
    assert recipe.train is not None
    fabric = make_fabric(recipe.train, accelerator="cpu")
    bare = {name: optimize_layout(network) for name, network in method.networks.items()}
    for name, network in bare.items():
        method.networks[name] = fabric.setup_module(network)
    optimizations = method.optimizers()

    def update(paired: bool, name: str, loss: Tensor) -> None:
        optimizer, networks = optimizations[name].optimizer, optimizations[name].networks
        parameters = [p for network in networks for p in bare[network].parameters()]
        optimizer.zero_grad()
        fabric.backward(loss, inputs=parameters)
        nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        optimizer.step()
        losses[f"{name}, {paired=}"] = loss.detach()

    def run() -> Losses:
        for paired, shown in images.items():
            method.training_step(batch_of(recipe, shown, paired), partial(update, paired))
        return losses

    return Work(nn.ModuleDict(bare), run)


def plain_step(contender: Contender, images: Images) -> Work:
    """The same by the published algorithm."""
    published = PUBLISHED[contender.recipe](bf16=contender.variant.precision == "bf16")

    def run() -> Losses:
        steps = {paired: published.step(shown["mr"], shown["ct"], paired) for paired, shown in images.items()}
        return {f"{name}, {paired=}": loss for paired, losses in steps.items() for name, loss in losses.items()}

    return Work(published.networks, run)


def batch_of(recipe: Recipe, images: dict[Modality, Tensor], paired: bool) -> Batch:
    source, target = (images[m] for m in (("mr", "ct") if recipe.direction == "mr2ct" else ("ct", "mr")))
    inside = torch.ones_like(source, dtype=torch.bool)
    return Batch(source, target, inside, inside, paired=paired)


if __name__ == "__main__":
    main()
