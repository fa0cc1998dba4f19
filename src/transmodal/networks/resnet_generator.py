"""The generator of CycleGAN, which the papers on CycleGAN from unpaired slices and on MR-GAN take for both directions.

It is the network of Johnson, Alahi, Fei-Fei, "Perceptual losses for real-time style transfer and super-resolution", ECCV 2016, as
Zhu, Park, Isola, Efros, "Unpaired image-to-image translation using cycle-consistent adversarial networks", ICCV 2017, have it: with
instance normalisation, and with reflections instead of zeros beyond the border wherever a convolution keeps the size.

The unpaired paper uses the authors' own implementation, and so this network is counted value for value as that one: its instance
normalisation learns nothing, and its convolutions keep their biases although the normalisation takes most of them away again.

The FCN/CycleGAN paper names its generator a "fully convolutional network" and describes no layer of it; what it does describe, under
"Generator network", starts from random numbers and is the one of its plain GAN (`transmodal.networks.dcgan`). Its parameters and losses
have the names of a public CycleGAN in Keras, whose generator is of this kind, and the recipe of that paper uses this one.
"""

from jaxtyping import Float
from torch import Tensor, nn

from transmodal.networks.layers import OutputConv2d, bare_instance_norm, initialize_normal, up_convolution


class ResnetGenerator(nn.Module):
    """From slices to slices in [-1, 1]: two convolutions down, residual blocks, two transposed convolutions up.

    Parameters
    ----------
    in_channels, out_channels : int
    channels : int
        Feature maps at the full resolution; each convolution down doubles them.
    blocks : int
        Residual blocks at a quarter of the resolution.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, channels: int = 64, blocks: int = 9) -> None:
        super().__init__()
        self.stride = 4
        full, half, quarter = channels, 2 * channels, 4 * channels
        self.layers = nn.Sequential(
            _reflecting(in_channels, full, 7),
            *_normalize(full),
            nn.Conv2d(full, half, kernel_size=3, stride=2, padding=1),
            *_normalize(half),
            nn.Conv2d(half, quarter, kernel_size=3, stride=2, padding=1),
            *_normalize(quarter),
            *(ResidualBlock(quarter) for _ in range(blocks)),
            up_convolution(2, quarter, half, 3),
            *_normalize(half),
            up_convolution(2, half, full, 3),
            *_normalize(full),
            _reflecting(full, out_channels, 7, OutputConv2d),
            nn.Tanh(),
        )
        initialize_normal(self)

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Map slices to slices; each size must be a multiple of `stride`, and 8 or more."""
        return self.layers(image)


class ResidualBlock(nn.Module):
    """Two convolutions of 3x3, whose result is added to what went in; no ReLU follows the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = (_reflecting(channels, channels, 3) for _ in range(2))
        self.body = nn.Sequential(first, *_normalize(channels), second, bare_instance_norm(channels))

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Map feature maps to feature maps of the same size."""
        return features + self.body(features)


def _reflecting(inputs: int, outputs: int, kernel: int, kind: type[nn.Conv2d] = nn.Conv2d) -> nn.Module:
    """A convolution that keeps the size and sees the image mirrored beyond its border."""
    return kind(inputs, outputs, kernel, padding=kernel // 2, padding_mode="reflect")


def _normalize(channels: int) -> list[nn.Module]:
    """What follows a convolution."""
    return [bare_instance_norm(channels), nn.ReLU(inplace=True)]
