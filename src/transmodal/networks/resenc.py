"""The U-Net with a residual encoder, by which the best entries of the SynthRAD2025 challenge make CTs from MRs.

Isensee et al., "nnU-Net Revisited: A Call for Rigorous Validation in 3D Medical Image Segmentation", MICCAI 2024: the encoder has a
stem and then residual blocks (variant D of He et al., "Bag of Tricks for Image Classification with Convolutional Neural Networks",
CVPR 2019: a shortcut that changes the size is an average pooling and a 1x1 convolution), ever more of them further down; the decoder
has one convolution a level. Instance normalisation and leaky ReLUs of slope 0.01 all through.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from transmodal.networks.layers import AVERAGE_POOL, CONV, OUTPUT_CONV, norm_layers, up_convolution

SLOPE = 0.01


class ResEncUNet(nn.Module):
    """Residual encoder, light decoder, skip connections; the output has the size of the input.

    Parameters
    ----------
    dims : int
        2 or 3.
    in_channels, out_channels : int
    channels : sequence of int
        Feature maps at each level, from the full resolution to the bottom. Between two levels every size is halved.
    blocks : sequence of int
        Residual blocks at each level of the encoder; as many numbers as `channels`.
    """

    def __init__(
        self,
        dims: int,
        in_channels: int = 1,
        out_channels: int = 1,
        channels: Sequence[int] = (32, 64, 128, 256, 320, 320),
        blocks: Sequence[int] = (1, 3, 4, 6, 6, 6),
    ) -> None:
        super().__init__()
        self.stride = 2 ** (len(channels) - 1)
        self.stem = _convolution(dims, in_channels, channels[0])
        widths = list(zip([channels[0], *channels[:-1]], channels, strict=True))
        strides = [1] + [2] * (len(channels) - 1)
        self.encoder = nn.ModuleList(_stage(dims, i, o, n, s) for (i, o), n, s in zip(widths, blocks, strides, strict=True))
        upward = list(pairwise(channels[::-1]))
        self.up = nn.ModuleList(up_convolution(dims, i, o, 2) for i, o in upward)
        self.decoder = nn.ModuleList(_convolution(dims, 2 * o, o) for _, o in upward)
        self.output = OUTPUT_CONV[dims](channels[0], out_channels, kernel_size=1)

    def forward(self, image: Float[Tensor, "b c *s"]) -> Float[Tensor, "b d *s"]:
        """Map images to images; each spatial size must be a multiple of `stride`."""
        image = self.stem(image)
        skips = []
        for stage in self.encoder:
            image = stage(image)
            skips.append(image)
        for up, block, skip in zip(self.up, self.decoder, reversed(skips[:-1]), strict=True):
            image = block(torch.cat((up(image), skip), dim=1))
        return self.output(image)


class ResidualBlock(nn.Module):
    """Two convolutions, and a shortcut past both.

    Parameters
    ----------
    dims, in_channels, out_channels : int
    stride : int
        Of the first convolution.
    """

    def __init__(self, dims: int, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        second = CONV[dims](out_channels, out_channels, kernel_size=3, padding=1)
        self.body = nn.Sequential(
            _convolution(dims, in_channels, out_channels, stride), second, *norm_layers(dims, out_channels, "instance")
        )
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut.append(AVERAGE_POOL[dims](stride))
        if in_channels != out_channels:
            self.shortcut.append(CONV[dims](in_channels, out_channels, kernel_size=1, bias=False))
            self.shortcut.extend(norm_layers(dims, out_channels, "instance"))
        self.end = nn.LeakyReLU(SLOPE, inplace=True)

    def forward(self, image: Float[Tensor, "b c *s"]) -> Float[Tensor, "b d *t"]:
        """Map features to features; a stride of 2 halves every size."""
        return self.end(self.body(image) + self.shortcut(image))


def _convolution(dims: int, inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    convolution = CONV[dims](inputs, outputs, kernel_size=3, stride=stride, padding=1)
    return nn.Sequential(convolution, *norm_layers(dims, outputs, "instance"), nn.LeakyReLU(SLOPE, inplace=True))


def _stage(dims: int, inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = ResidualBlock(dims, inputs, outputs, stride)
    return nn.Sequential(first, *(ResidualBlock(dims, outputs, outputs) for _ in range(blocks - 1)))
