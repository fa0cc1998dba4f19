"""The discriminator of MR-GAN, which judges single images and pairs of source and target with one trunk.

Section II.D, Fig. 4 and Table II of the MR-GAN paper: an extra head of convolutions for either kind of input, a shared network, and an
extra tail for either kind of loss, all with kernels of 4x4. "Except for the first and last convolution, each convolutional layer was
followed by instance normalization and leaky ReLU": here the first is followed by neither, as is said, so that it only brings one or two
channels to the width of the trunk.

The paper speaks of "four strided convolutions as a shared network" and, of all variants, of "standard 4×4 padded convolution with
stride 1". Both hold if the trunk has a stride of 2 and the heads and tails, of which no stride is said elsewhere, have 1. Without any
stride, one pass of D1 over a slice of 256x256 would take 4e11 multiplications, and the paper's 3e5 iterations could not have been done
in 72 hours on a GTX 1080 Ti. The slope of the leaky ReLU, 0.2, and the padding by one pixel are those of PatchGAN, which the paper says
it adapted.
"""

from itertools import pairwise
from typing import Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from transmodal.networks.layers import bare_instance_norm, initialize_normal

SLOPE = 0.2
Variant = Literal["D1", "D2", "D3", "D4", "D5"]


class Filters(NamedTuple):
    """Feature maps after each convolution, in multiples of the first; one more convolution to a single score ends every tail."""

    head: tuple[int, ...]
    trunk: tuple[int, ...]
    tail: tuple[int, ...]

    @property
    def smallest(self) -> int:
        """Pixels a side of which a single score is left: the trunk halves, and every other convolution takes one pixel away."""
        return (len(self.tail) + 2) * 2 ** len(self.trunk) + len(self.head)


# Table II, divided by 64.
VARIANTS: dict[Variant, Filters] = {
    "D1": Filters(head=(1,), trunk=(1, 2, 4, 8), tail=(8,)),
    "D2": Filters(head=(1, 1), trunk=(1, 2, 4, 8), tail=(8, 8)),
    "D3": Filters(head=(1, 1), trunk=(1, 2, 4, 8), tail=(8, 8, 8)),
    "D4": Filters(head=(1,), trunk=(2, 4, 8), tail=(8,)),
    "D5": Filters(head=(1,), trunk=(2, 4, 8), tail=()),
}


class DualDiscriminator(nn.Module):
    """From single images, or from pairs, to maps of scores, the higher the more real; no sigmoid follows the last convolution.

    Parameters
    ----------
    variant : {"D1", "D2", "D3", "D4", "D5"}
        The paper trains with D1. It calls more layers in head and tail better, but D2 and D3 are far worse in its tables III and IV.
    channels : int
        Feature maps of the head; 64 in the paper.
    """

    def __init__(self, variant: Variant = "D1", channels: int = 64) -> None:
        super().__init__()
        head, trunk, tail = ([channels * k for k in part] for part in VARIANTS[variant])
        self.heads = nn.ModuleDict({name: _head([inputs, *head]) for name, inputs in (("unpaired", 1), ("paired", 2))})
        self.trunk = nn.Sequential(*_convolutions([head[-1], *trunk], stride=2))
        self.tails = nn.ModuleDict({name: _tail([trunk[-1], *tail]) for name in ("unpaired", "paired")})
        initialize_normal(self)

    def forward(self, image: Float[Tensor, "b c h w"], paired: bool) -> Float[Tensor, "b 1 y x"]:
        """Score the patches of images of one channel or, if `paired`, of two: source, and real or synthetic target.

        D1 needs images of 49 pixels or more each way; of D2 to D5 these are 66, 82, 25 and 17 (`Filters.smallest`).
        """
        kind = "paired" if paired else "unpaired"
        return self.tails[kind](self.trunk(self.heads[kind](image)))


def _head(widths: list[int]) -> nn.Sequential:
    first = nn.Conv2d(widths[0], widths[1], kernel_size=4, padding=1)
    return nn.Sequential(first, *_convolutions(widths[1:], stride=1))


def _tail(widths: list[int]) -> nn.Sequential:
    last = nn.Conv2d(widths[-1], 1, kernel_size=4, padding=1)
    return nn.Sequential(*_convolutions(widths, stride=1), last)


def _convolutions(widths: list[int], stride: int) -> list[nn.Module]:
    """Convolutions from each width to the next, each with its normalisation and leaky ReLU."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers.append(nn.Conv2d(inputs, outputs, kernel_size=4, stride=stride, padding=1))
        layers.extend((bare_instance_norm(outputs), nn.LeakyReLU(SLOPE, inplace=True)))
    return layers
