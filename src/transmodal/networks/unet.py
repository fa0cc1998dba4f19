"""U-Nets: Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015.

The multi-atlas/U-Net/cGAN paper uses "3 max pooling operations and 3 layers of convolutions instead of 2 prior to pooling (or
up-sampling) for a total of 23 layers". Three convolutions at every level would make 25 with the up-convolutions. Read to the
letter, three convolutions stand before each of the 3 poolings (9) and before each of the 3 up-samplings (9: the bottom and two
levels of the way up); with the 3 up-convolutions, one convolution that merges the last skip connection (nothing is up-sampled
after it), and the 1x1 output convolution, that makes 9 + 9 + 3 + 1 + 1 = 23.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from transmodal.networks.layers import MAX_POOL, OUTPUT_CONV, Norm, conv_block, up_convolution


class UNet(nn.Module):
    """Encoder and decoder with skip connections; the output has the size of the input.

    Parameters
    ----------
    dims : int
        2 or 3.
    in_channels, out_channels : int
    channels : sequence of int
        Feature maps at each level, from the full resolution to the bottom; one pooling lies between two levels.
    convolutions : int
        3x3 convolutions before each pooling and each up-sampling.
    last_convolutions : int
        3x3 convolutions at the full resolution on the way up, before the 1x1 output.
    norm : {"none", "batch", "instance"}
        What stands between a convolution and its ReLU.
    up_kernel : {2, 3}
        Size of the transposed convolutions that up-sample.
    """

    def __init__(
        self,
        dims: int,
        in_channels: int = 1,
        out_channels: int = 1,
        channels: Sequence[int] = (64, 128, 256, 512),
        convolutions: int = 3,
        last_convolutions: int = 1,
        norm: Norm = "none",
        up_kernel: Literal[2, 3] = 2,
    ) -> None:
        super().__init__()
        self.stride = 2 ** (len(channels) - 1)
        widths = list(channels)
        blocks = [conv_block(dims, [i] + [o] * convolutions, norm) for i, o in pairwise([in_channels, *widths])]
        self.encoder = nn.ModuleList(blocks[:-1])
        self.pool = MAX_POOL[dims](2)
        self.bottom = blocks[-1]
        upward = widths[::-1]
        self.up = nn.ModuleList(up_convolution(dims, i, o, up_kernel) for i, o in pairwise(upward))
        counts = [convolutions] * (len(upward) - 2) + [last_convolutions]
        self.decoder = nn.ModuleList(conv_block(dims, [2 * o] + [o] * n, norm) for o, n in zip(upward[1:], counts, strict=True))
        self.output = OUTPUT_CONV[dims](widths[0], out_channels, kernel_size=1)

    def forward(self, image: Float[Tensor, "b c *s"]) -> Float[Tensor, "b d *s"]:
        """Map images to images; each spatial size must be a multiple of `stride`."""
        *skips, image = self.encode(image)
        for up, block in zip(self.up, self.decoder, strict=True):
            # Taken off the list, a skip connection is freed before the block needs its own memory.
            image = block(torch.cat((skips.pop(), up(image)), dim=1))
        return self.output(image)

    def encode(self, image: Float[Tensor, "b c *s"]) -> list[Float[Tensor, "b e *t"]]:
        """The features of every level on the way down, from the full resolution to the bottom."""
        levels = []
        for block in self.encoder:
            image = block(image)
            levels.append(image)
            image = self.pool(image)
        return [*levels, self.bottom(image)]
