"""Layers in two and three dimensions, by the number of dimensions; the blocks and the first weights that networks share."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["none", "batch", "instance"]
# By the number of dimensions.
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


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
    There each image is normalised as a batch of its own, which is the same function, but for the digits that its sums over many voxels
    lose: of 160×192×160, the SD is up to 0.4 % off on one thread, and up to 0.3 % on two.
    """

    def __init__(self, channels: int, affine: bool = True) -> None:
        super().__init__(channels, channels, affine=affine)

    def forward(self, input: Float[Tensor, "b c *s"]) -> Float[Tensor, "b c *s"]:
        """Normalise every channel of every image by its own mean and SD."""
        if input.is_contiguous() or not input.is_contiguous(memory_format=CHANNELS_LAST[input.ndim - 2]):
            return super().forward(input)
        images = [F.batch_norm(image, None, None, self.weight, self.bias, training=True, eps=self.eps) for image in input.split(1)]
        return images[0] if len(images) == 1 else torch.cat(images)


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
