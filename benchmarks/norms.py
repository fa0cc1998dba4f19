"""Time instance normalisation on the CPU, forward and backward, by layout and kernel: python benchmarks/norms.py [--rounds N].

torch's group norm and its batch norm of a single image compute the same; `transmodal.networks.layers.InstanceNorm` takes the one or the
other by the layout of the image, with sums of its own for the latter, because torch's lose digits. Interleaved rounds after one that does
not count; the table has medians, and each as a multiple of group norm of contiguous images of the same number format.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from speed import machine
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from transmodal.engine.hardware import keep_memory
from transmodal.networks.layers import CHANNELS_LAST, InstanceNorm

SHAPES = {
    "whole heads": (1, 16, 160, 192, 160),
    "volumes": (1, 16, 96, 96, 96),
    "small volumes": (1, 64, 24, 24, 24),
    "slices": (1, 64, 256, 256),
}
FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16}
Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]


def group_norm(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.group_norm(image, image.shape[1], weight, bias)


def batch_norm(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.batch_norm(image, None, None, weight, bias, training=True)


def instance_norm(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return functional_call(InstanceNorm(image.shape[1]), {"weight": weight, "bias": bias}, image)


def seconds(kernel: Kernel, image: Tensor, weight: Tensor, bias: Tensor, gradient: Tensor) -> float:
    began = time.perf_counter()
    kernel(image, weight, bias).backward(gradient)
    return time.perf_counter() - began


def contenders(shape: tuple[int, ...], kind: torch.dtype) -> dict[tuple[str, str], Callable[[], float]]:
    """What is timed, by kernel and layout."""
    weight, bias = (torch.rand(shape[1], requires_grad=True) for _ in range(2))
    found = {}
    for name, layout in (("contiguous", torch.contiguous_format), ("channels-last", CHANNELS_LAST[len(shape) - 2])):
        image, gradient = (torch.randn(shape).to(kind).contiguous(memory_format=layout) for _ in range(2))
        for kernel in (group_norm, batch_norm, instance_norm):
            found[kernel.__name__, name] = partial(seconds, kernel, image.requires_grad_(), weight, bias, gradient)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    keep_memory()
    print(f"{machine()}\n\n| images | precision | kernel | layout | ms | × group norm, contiguous |\n{'|---' * 6}|")
    for title, shape in SHAPES.items():
        for precision, kind in FORMATS.items():
            runs = contenders(shape, kind)
            times = [{key: run() for key, run in runs.items()} for _ in range(rounds + 1)][1:]
            for key in runs:
                median = statistics.median(one[key] for one in times)
                ratio = statistics.median(one[key] / one["group_norm", "contiguous"] for one in times)
                print(f"| {title} | {precision} | {key[0]} | {key[1]} | {1e3 * median:.1f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
