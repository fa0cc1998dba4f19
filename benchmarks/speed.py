"""Time training and synthesis by every paired recipe on the CPU, beside MONAI's BasicUNet: python benchmarks/speed.py [--only ROW ...].

In every variant of number format, memory layout and compilation: a step of training, and one head, by default of 181x217x181 voxels. The
peaks of memory are those of whole processes that do it once. Everything takes its turn in interleaved rounds, in a process of its own for
each row; the tables have the median, and the least and the most. The limit is the rate at which the machine multiplies large matrices of
that number format, measured beside; the share of it that a network reaches counts the multiply-adds of its convolutions and of nothing
else. A share above 100 % says that other work ran beside the measurement.
"""

import argparse
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import monai
import torch
from contenders import BATCHES, DEFAULT, PEER_FEATURES, PLAIN, Contender, Variant, Work, synthesis, training_step
from torch.nn.functional import conv2d
from torch.utils.flop_counter import FlopCounterMode

from transmodal.engine.hardware import keep_memory
from transmodal.networks.summary import count_parameters

HEAD_SHAPE = (181, 217, 181)
MATRIX_SIZES = (1024, 2048, 4096)
MATRIX_REPEATS = 3
EAGER = [Variant(precision, channels_last) for precision in ("fp32", "bf16") for channels_last in (False, True)]
COMPILED = [replace(variant, compiled=True) for variant in EAGER]
FIRST_HEAD = ["recipe", "network, parameters", "precision", "channels-last"]
TRAINING_HEAD = ["batch", "compiled", "first step, s", "peak, GiB"]
SYNTHESIS_HEAD = ["compiled", "peak, GiB"]
LAST_HEAD = ["rounds", "s (least–most)", "× ours by default", "G multiply-adds", "share of the limit"]
Builder: TypeAlias = Callable[[Contender], Work]


@dataclass
class Timing:
    """What became of a contender; without `seconds`, `failure` tells why."""

    contender: Contender
    parameters: int
    rate: float  # multiply-adds a second, of large matrices
    multiply_adds: int = 0
    first: float = 0.0
    seconds: list[float] = field(default_factory=list)
    failure: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=BATCHES, default=list(BATCHES), metavar="ROW", help=", ".join(BATCHES))
    parser.add_argument("--part", choices=("train", "synthesize"), help="by default both")
    parser.add_argument("--shape", type=int, nargs=3, default=HEAD_SHAPE, metavar="VOXELS", help="of the head; by default 181 217 181")
    parser.add_argument("--eager", action="store_true", help="leave the compiled variants out, which take minutes to compile")
    parser.add_argument("--no-peer", action="store_true", help="leave MONAI's networks out")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--limit", type=float, default=120, metavar="SECONDS", help="for the rounds of a row; there is always one")
    arguments = parser.parse_args()
    peers = () if arguments.no_peer else tuple(PEER_FEATURES)
    variants = EAGER if arguments.eager else EAGER + COMPILED
    print(machine())
    if arguments.part != "synthesize":
        print_head("Training: one step", TRAINING_HEAD)
        for recipe in arguments.only:
            print_training(recipe, variants, recipe in peers, arguments.rounds, arguments.limit)
    if arguments.part != "train":
        print_head(f"Synthesis: {'×'.join(map(str, arguments.shape))} voxels", SYNTHESIS_HEAD)
        build = partial(synthesis, tuple(arguments.shape))
        for recipe in arguments.only:
            print_synthesis(build, recipe, variants, recipe in peers, arguments.rounds, arguments.limit)


def machine() -> str:
    """The machine and the versions, but not whose machine it is."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.is_file() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, MONAI {monai.__version__}"
    return f"{name}, {cores}; {versions}; by default {DEFAULT.precision}"


def print_head(title: str, own_head: Sequence[str]) -> None:
    head = [*FIRST_HEAD, *own_head, *LAST_HEAD]
    print(f"\n{title}\n\n| {' | '.join(head)} |\n{'|---' * len(head)}|", flush=True)


def print_training(recipe: str, variants: Sequence[Variant], peer: bool, rounds: int, limit: float) -> None:
    contenders = [Contender(recipe, "transmodal", variant) for variant in variants]
    if peer:
        contenders.extend(Contender(recipe, "MONAI", variant) for variant in EAGER)

    def own_cells(timing: Timing) -> list[str]:
        first = f"{timing.first:.1f}" if timing.seconds else f"not available: {timing.failure}"
        return [str(BATCHES[recipe]), yes_no(timing.contender.variant.compiled), first, peak_cell(training_step, timing)]

    print_rows(recipe, alone(race, training_step, contenders, rounds, limit), own_cells)


def print_synthesis(build: Builder, recipe: str, variants: Sequence[Variant], peer: bool, rounds: int, limit: float) -> None:
    contenders = [Contender(recipe, "transmodal", variant) for variant in variants]
    if peer:
        contenders.extend(Contender(recipe, "MONAI", variant) for variant in (DEFAULT, PLAIN))

    def own_cells(timing: Timing) -> list[str]:
        return [yes_no(timing.contender.variant.compiled), peak_cell(build, timing)]

    print_rows(recipe, alone(race, build, contenders, rounds, limit), own_cells)


def print_rows(recipe: str, timings: Sequence[Timing] | None, own_cells: Callable[[Timing], list[str]]) -> None:
    """A row for each contender, with the cells that only this table has in the middle."""
    if timings is None:
        print(f"| `{recipe}` | the process ended, probably for want of memory |", flush=True)
        return
    for timing in timings:
        contender = timing.contender
        network = f"{contender.maker}, {timing.parameters / 1e6:.2f} M"
        cells = [f"`{recipe}`", network, contender.variant.precision, yes_no(contender.variant.channels_last), *own_cells(timing)]
        print(f"| {' | '.join([*cells, *shared_cells(timing, timings)])} |", flush=True)


def yes_no(value: bool) -> str:
    return "yes" if value else "no"


def peak_cell(build: Builder, timing: Timing) -> str:
    peak = alone(peak_gib, build, timing.contender) if timing.seconds else None
    return "–" if peak is None else f"{peak:.2f}"


def shared_cells(timing: Timing, timings: Sequence[Timing]) -> list[str]:
    """Rounds, time, ratio to what the product does, work, and share of the limit."""
    if not timing.seconds:
        return ["–"] * 5
    default = next(t for t in timings if (t.contender.maker, t.contender.variant) == ("transmodal", DEFAULT))
    median = statistics.median(timing.seconds)
    return [
        str(len(timing.seconds)),
        f"{median:.3g} ({min(timing.seconds):.3g}–{max(timing.seconds):.3g})",
        f"{median / statistics.median(default.seconds):.2f}",
        f"{timing.multiply_adds / 1e9:.4g}",
        f"{timing.multiply_adds / median / timing.rate:.0%}",
    ]


def alone(function: Callable[..., Any], *arguments: object) -> Any:
    """The result of a function in a fresh process with an empty cache of compiled code; None if the system ended the process.

    This process never does the work itself and stays small: a new process takes over the peak memory of the one that starts it.
    """
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            try:
                return pool.submit(function, *arguments).result()
            except BrokenProcessPool:
                return None


def race(build: Builder, contenders: Sequence[Contender], rounds: int, limit: float) -> list[Timing]:
    """Time the contenders in turn, in at most `rounds` rounds of together about `limit` seconds, after one that does not count."""
    keep_memory()
    rates = {precision: matrix_rate(dtype) for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))}
    timings, ready, round_seconds = [], [], 0.0
    counts: dict[str, int] = {}
    for contender in contenders:
        network, run = build(contender)
        timing = Timing(contender, count_parameters(network), rates[contender.variant.precision])
        timings.append(timing)
        try:
            round_seconds += warm_up(timing, run, counts)
        except Exception as error:  # those of the compiler have no class in common
            if not contender.variant.compiled:
                raise
            print(f"{contender}: {error}", file=sys.stderr)
            timing.failure = type(error).__name__
            continue
        ready.append((timing, run))
    for _ in range(max(1, min(rounds, int(limit / round_seconds)))):
        for timing, run in ready:
            timing.seconds.append(seconds(run))
    return timings


def warm_up(timing: Timing, run: Callable[[], object], counts: dict[str, int]) -> float:
    """Run once, and again if that compiled; return how long a turn then takes. An eager run of each maker counts the multiply-adds."""
    contender = timing.contender
    if contender.maker not in counts:
        assert not contender.variant.compiled, "what is compiled cannot be counted"
        with FlopCounterMode(display=False) as counter:
            timing.first = seconds(run)
        counts[contender.maker] = counter.get_total_flops() // 2
    else:
        timing.first = seconds(run)
    timing.multiply_adds = counts[contender.maker]
    return seconds(run) if contender.variant.compiled else timing.first


def peak_gib(build: Builder, contender: Contender) -> float:
    """Peak memory of this whole process, with Python and torch, after one run."""
    keep_memory()
    build(contender).run()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def matrix_rate(dtype: torch.dtype) -> float:
    """Multiply-adds a second in the product of two large square matrices, of the sizes and repeats the best.

    As a product, and as a 1x1 convolution, which is the same: torch leaves them to two libraries, of which either may be the faster.
    """
    rates = []
    for size in MATRIX_SIZES:
        one, two = (torch.rand(size, size).to(dtype) for _ in range(2))
        image = one.reshape(1, size, size // 32, 32).to(memory_format=torch.channels_last)
        ways = (partial(torch.mm, one, two), partial(conv2d, image, two.reshape(size, size, 1, 1)))
        rates.extend(size**3 / min(seconds(way) for _ in range(1 + MATRIX_REPEATS)) for way in ways)
    return max(rates)


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
