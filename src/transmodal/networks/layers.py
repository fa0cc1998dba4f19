"""Layers in two and three dimensions, by the number of dimensions; the blocks and the first weights that networks share."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["none", "batch", "instance"]
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
    There each image is normalised as a batch of its own, which is the same function.
    """

    def __init__(self, channels: int, affine: bool = True) -> None:
        super().__init__(channels, channels, affine=affine)

    def forward(self, input: Float[Tensor, "b c *s"]) -> Float[Tensor, "b c *s"]:
        """Normalise every channel of every image by its own mean and SD."""
        if input.is_contiguous() or not input.is_contiguous(memory_format=CHANNELS_LAST[input.ndim - 2]):
            return super().forward(input)
        if len(input) > 1:
            return torch.cat([self(image) for image in input.split(1)])
        if input.device.type != "cpu":
            return F.batch_norm(input, None, None, self.weight, self.bias, training=True, eps=self.eps)
        return _BatchNormOfOne.apply(input, self.weight, self.bias, self.eps)


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


def _moments(image: Float[Tensor, "1 c *s"]) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
    """Mean and variance of every channel: of slabs by the kernel, then of the slabs together (Chan, Golub & LeVeque 1983)."""
    slices = max(1, _SUMMED_VOXELS // prod(image.shape[3:]))
    slabs = image.split(slices, dim=2)
    # The kernel's results have the number format of the running mean and variance that it updates besides.
    kind = torch.promote_types(image.dtype, torch.float32)
    unused = torch.zeros(2, image.shape[1], dtype=kind)
    means, variances = torch.stack([torch.stack(torch.batch_norm_update_stats(slab, *unused, momentum=0.0)) for slab in slabs], dim=1)
    shares = torch.tensor([[slab.shape[2] / image.shape[2]] for slab in slabs], dtype=kind)
    # Not a product of matrices, which autocast would take in bfloat16.
    mean = (shares * means).sum(dim=0)
    return mean, (shares * (variances + (means - mean) ** 2)).sum(dim=0)


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
