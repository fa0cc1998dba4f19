"""VGG-16 U-Net: the large network of the paper on synthetic CT from bone MRI in the head and neck (AJNR 2022).

The encoder is "an exact copy of the original VGG-16 architecture": configuration D of Simonyan and Zisserman, "Very deep
convolutional networks for large-scale image recognition", ICLR 2015, without normalisation, 13 convolutions with 14 714 688 values.
They are named and shaped as torchvision names and shapes them (``features.0.weight`` to ``features.28.bias``), so that ImageNet
weights from there fit.

The decoder "mirrored" it, with batch normalisation, "resulting in ~29 million" values. Read as an exact mirror: its blocks have as
many convolutions as those of the encoder and run through the same numbers of channels backwards, so that the last convolution of
each goes back to what the encoder's block began with (the very last one, which would go back to the input's 3, keeps 64 for the 1x1
output). A 3x3 transposed convolution, which leaves the channels as they are, undoes each of the 4 poolings between the blocks, and
the first convolution after it also takes what the encoder had there. That makes 28.65 million; narrowing at the transposed
convolutions instead, as in the U-Net, would make 31. VGG's fifth pooling only serves its classifier, and is left out.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from transmodal.networks.layers import OutputConv2d, conv_block, up_convolution

CONVOLUTIONS = (2, 2, 3, 3, 3)
# Mean and standard deviation of ImageNet's red, green and blue in [0, 1], by which the inputs of pretrained networks are normalised.
IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VGGUNet(nn.Module):
    """From a slice of grey levels in [0, 1] to another; the grey is given to the encoder as red, green and blue alike.

    Parameters
    ----------
    channels : sequence of 5 int
        Feature maps of the five blocks; those of VGG-16 by default.
    imagenet : bool
        Normalise the input as that of networks that were trained on ImageNet.
    """

    mean: Tensor
    sd: Tensor

    def __init__(self, channels: Sequence[int] = (64, 128, 256, 512, 512), imagenet: bool = False) -> None:
        super().__init__()
        self.stride = 2 ** (len(channels) - 1)
        self.features = nn.Sequential(*_vgg_layers(channels))
        mean, sd = (IMAGENET_MEAN, IMAGENET_SD) if imagenet else ((0.0,) * 3, (1.0,) * 3)
        self.register_buffer("mean", torch.tensor(mean).reshape(3, 1, 1), persistent=False)
        self.register_buffer("sd", torch.tensor(sd).reshape(3, 1, 1), persistent=False)
        *widths, bottom = channels
        self.up = nn.ModuleList(up_convolution(2, i, o, 3) for i, o in zip([bottom, *widths[-2::-1]], widths[::-1], strict=True))
        levels = zip([widths[0], *widths[:-1]], widths, CONVOLUTIONS[:-1], strict=True)
        self.decoder = nn.ModuleList([_mirrored(*level) for level in levels][::-1])
        self.output = OutputConv2d(widths[0], 1, kernel_size=1)

    def forward(self, image: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        """Map slices to slices in [0, 1]; each spatial size must be a multiple of `stride`."""
        image = (image.expand(-1, 3, -1, -1) - self.mean) / self.sd
        skips = []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                skips.append(image)
            image = layer(image)
        for up, block, skip in zip(self.up, self.decoder, reversed(skips), strict=True):
            image = block(torch.cat((skip, up(image)), dim=1))
        return torch.sigmoid(self.output(image))


def _vgg_layers(channels: Sequence[int]) -> list[nn.Module]:
    """Convolutions, each with its ReLU, and the poolings between the blocks, in the places that torchvision counts them at."""
    layers: list[nn.Module] = []
    for inputs, outputs, count in zip([3, *channels[:-1]], channels, CONVOLUTIONS, strict=True):
        layers.append(nn.MaxPool2d(2))
        for i, o in pairwise([inputs] + [outputs] * count):
            layers.extend((nn.Conv2d(i, o, kernel_size=3, padding=1), nn.ReLU(inplace=True)))
    return layers[1:]


def _mirrored(before: int, width: int, convolutions: int) -> nn.Sequential:
    """The way back of an encoder block from `before` to `width` channels."""
    return conv_block(2, [2 * width] + [width] * (convolutions - 1) + [before], "batch")
