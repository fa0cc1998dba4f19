"""Layers in two and three dimensions, by the number of dimensions; the blocks and the first weights that networks share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise, product
from math import ceil, prod
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["none", "batch", "instance"]
# Where windows begin and end along each axis, as shares of its size, which hold at every level of a network.
Windows = tuple[tuple[tuple[float, float], ...], ...]
# By the number of dimensions.
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
# Of how many voxels at most torch's kernel may sum one after the other in float32: of 4.9 million, the SD was 0.3 % off on one thread.
_SUMMED_VOXELS = 2**17


class Conv3d(nn.Conv3d):
    """A convolution of volumes that is right in bfloat16 too.

    On CPUs, the gradient of the weights of a 3x3x3 convolution in bfloat16 is garbage, up to not a number, where the first size of the
    volume is 2 (torch 2.13, oneDNN). Such small volumes at the bottom of a network are computed in float32, which costs nothing.
    """

    def forward(self, input: Float[Tensor, "b c *s"]) -> Float[Tensor, "b d *t"]:
        """Convolve."""
        if input.device.type != "cpu" or input.shape[2] != 2:
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.to(self.weight.dtype))


class OutputConv2d(nn.Conv2d):
    """The last convolution of slices, in float32 whatever the others are in: bfloat16 holds HU in steps of 4 to 8."""

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Convolve."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(self.weight.dtype))


class OutputConv3d(nn.Conv3d):
    """The same of volumes."""

    def forward(self, input: Float[Tensor, "b c *s"]) -> Float[Tensor, "b d *s"]:
        """Convolve."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(self.weight.dtype))


class InstanceNorm(nn.GroupNorm):
    """Instance normalisation, as groups of one channel: a kernel several times faster on CPUs than that of torch's own layer.

    Its gradient is slow where images are stored channels-last, which is what convolutions want (``benchmarks/norms.py``).
    There each image is normalised as a batch of its own, which is the same function. Images larger than those that a network has learned
    from can be normalised in windows of that size, see `normalized_in_windows`.
    """

    windows: Windows | None = None

    def __init__(self, channels: int, affine: bool = True) -> None:
        super().__init__(channels, channels, affine=affine)

    def forward(self, input: Float[Tensor, "b c *s"]) -> Float[Tensor, "b c *s"]:
        """Normalise every channel of every image by its own mean and SD, or by those of the windows."""
        channels_last = not input.is_contiguous() and input.is_contiguous(memory_format=CHANNELS_LAST[input.ndim - 2])
        if not channels_last and self.windows is None:
            return super().forward(input)
        if len(input) > 1:
            return torch.cat([self(image) for image in input.split(1)])
        if self.windows is not None:
            return self._overwrite(input, *_moments(input, self.windows))
        if input.device.type != "cpu":
            return F.batch_norm(input, None, None, self.weight, self.bias, training=True, eps=self.eps)
        return _BatchNormOfOne.apply(input, self.weight, self.bias, self.eps)

    def _overwrite(
        self, image: Float[Tensor, "1 c *s"], mean: Float[Tensor, " c"], variance: Float[Tensor, " c"]
    ) -> Float[Tensor, "1 c *s"]:
        """Normalise in place, slab by slab: fresh memory for a whole head takes as long to get as the arithmetic does."""
        for slab, _ in _slabs(image):
            slab.copy_(F.batch_norm(slab, mean, variance, self.weight, self.bias, eps=self.eps))
        return image


@contextmanager
def normalized_in_windows(network: nn.Module, windows: Windows) -> Iterator[None]:
    """Let the instance normalisation of a network take mean and variance of the voxels of windows, each as often as windows hold it.

    Without gradients, and in place: what is normalised must be nobody else's, as the result of a convolution is.
    """
    norms = [module for module in network.modules() if isinstance(module, InstanceNorm)]
    try:
        for norm in norms:
            norm.windows = windows
        yield
    finally:
        for norm in norms:
            norm.windows = None


def windows_over(size: int, inner: int, window: int) -> tuple[tuple[float, float], ...]:
    """As few windows of one length as cover the inner part of an axis, evenly spread, as shares of the whole axis.

    Where the inner part is no longer than a window, that is one in the middle.
    """
    count, first = ceil(inner / window), (size - inner) // 2
    starts = [(size - window) // 2] if count == 1 else [first + k * (inner - window) // (count - 1) for k in range(count)]
    return tuple((start / size, (start + window) / size) for start in starts)


class _BatchNormOfOne(torch.autograd.Function):
    """Batch normalisation of a single image by torch's kernels for CPUs, with a mean and a variance that keep their digits."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        mean, variance = _moments(image)
        ctx.save_for_backward(image, weight, mean, (variance + eps).rsqrt())
        ctx.eps = eps
        return F.batch_norm(image, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        image, weight, mean, factor = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad[:3])
        backward = torch.ops.aten.native_batch_norm_backward
        return *backward(*grad_outputs, image, weight, None, None, mean, factor, True, ctx.eps, wanted), None


def _moments(image: Float[Tensor, "1 c *s"], windows: Windows | None = None) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
    """Mean and variance of every channel: of slabs by the kernel, then of the slabs together (Chan, Golub & LeVeque 1983)."""
    # The kernel's results have the number format of the running mean and variance that it updates besides.
    kind = torch.promote_types(image.dtype, torch.float32)
    unused, found, weights = torch.zeros(2, image.shape[1], dtype=kind, device=image.device), [], []
    for slab, weight in _slabs(image, windows):
        dense = slab.contiguous(memory_format=CHANNELS_LAST[image.ndim - 2])
        found.append(torch.stack(torch.batch_norm_update_stats(dense, *unused, momentum=0.0)))
        weights.append(weight * prod(slab.shape[2:]))
    means, variances = torch.stack(found, dim=1)
    shares = torch.tensor(weights, dtype=kind, device=image.device)[:, None] / sum(weights)
    # Not a product of matrices, which autocast would take in bfloat16.
    mean = (shares * means).sum(dim=0)
    return mean, (shares * (variances + (means - mean) ** 2)).sum(dim=0)


def _slabs(image: Float[Tensor, "1 c *s"], windows: Windows | None = None) -> Iterator[tuple[Float[Tensor, "1 c *t"], int]]:
    """Parts of an image that the kernel sums without losing digits, and how many windows hold each."""
    along = [_stretches(size, spans) for size, spans in zip(image.shape[2:], windows or [((0.0, 1.0),)] * (image.ndim - 2), strict=True)]
    for box in product(*along):
        part, weight = image[:, :, *(stretch for stretch, _ in box)], prod(count for _, count in box)
        for slab in part.split(max(1, _SUMMED_VOXELS // prod(part.shape[3:])), dim=2):
            yield slab, weight


def _stretches(size: int, spans: tuple[tuple[float, float], ...]) -> list[tuple[slice, int]]:
    """The parts of an axis between the borders of its windows, and how many windows hold each; those that none holds are left out."""
    borders = [(round(size * first), round(size * last)) for first, last in spans]
    marks = sorted({mark for pair in borders for mark in pair})
    held = [(slice(a, b), sum(first <= a and b <= last for first, last in borders)) for a, b in pairwise(marks)]
    return [(stretch, count) for stretch, count in held if count]


CONV = {2: nn.Conv2d, 3: Conv3d}
OUTPUT_CONV = {2: OutputConv2d, 3: OutputConv3d}
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
MAX_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVERAGE_POOL = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
_BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INITIAL_SD = 0.02


def conv_block(dims: int, channels: Sequence[int], norm: Norm) -> nn.Sequential:
    """Convolutions of 3 voxels, each with its normalisation and ReLU, from ``channels[0]`` over those between to the last."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(channels):
        layers.append(CONV[dims](inputs, outputs, kernel_size=3, padding=1, bias=norm == "none"))
        layers.extend(norm_layers(dims, outputs, norm))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def up_convolution(dims: int, inputs: int, outputs: int, kernel: int) -> nn.Module:
    """A transposed convolution that doubles every size, of a kernel of 2 or 3 voxels."""
    return TRANSPOSED[dims](inputs, outputs, kernel_size=kernel, stride=2, padding=kernel - 2, output_padding=kernel - 2)


def norm_layers(dims: int, channels: int, norm: Norm) -> list[nn.Module]:
    """The normalisation layer, if there is to be one."""
    if norm == "batch":
        return [_BATCH_NORM[dims](channels)]
    return [InstanceNorm(channels)] if norm == "instance" else []


def bare_instance_norm(channels: int) -> nn.Module:
    """Instance normalisation to mean 0 and SD 1 with nothing learned after it, as the networks of CycleGAN have it."""
    return InstanceNorm(channels, affine=False)


def initialize_normal(network: nn.Module) -> None:
    """Draw the first weights as DCGAN and CycleGAN do: normal, of SD 0.02, around 0 for convolutions and 1 for batch norm; biases 0."""
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:  # of a convolution, or one factor a channel
            nn.init.normal_(parameter, 0.0 if parameter.ndim > 1 else 1.0, INITIAL_SD)
