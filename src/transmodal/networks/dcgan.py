"""The plain GAN that the FCN/CycleGAN paper starts from: images out of random numbers.

Both networks are those of Radford, Metz, Chintala, "Unsupervised representation learning with deep convolutional generative
adversarial networks", ICLR 2016, with kernels of 4. Where the paper is silent or at odds with itself:

- It gives the generated image as 3x28x28 and trains on 64x64. The size is a parameter, 64 by default, and so are the channels.
- It gives the generator a stride of 1. That is the first convolution's, which makes 4x4 of the 1x1 latent; at a stride of 1 all through,
  64x64 would take 21 of them. The others double the size, as the discriminator's stride of 2 halves it.
- It names no numbers of filters. They are DCGAN's of today: 64 next to the image, twice as many at every halving, up to 512.
- It puts batch normalisation after the discriminator's convolutions and exempts none. Here the last alone has none: a
  normalised logit would only compare an image with the rest of its batch.
- It ends the discriminator in a sigmoid. Here the sigmoid is part of the loss (`transmodal.losses.adversarial`, ``cross_entropy``),
  where it cannot overflow.
"""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from transmodal.core.errors import ConfigError
from transmodal.networks.layers import initialize_normal

SLOPE = 0.2


class LatentGenerator(nn.Module):
    """From random numbers to images in [-1, 1].

    Parameters
    ----------
    latent : int
        Length of the random vector, whose elements are drawn from the standard normal distribution.
    out_channels : int
    channels : int
        Feature maps next to the image.
    size : int
        Of the image, in pixels: a power of two, 16 or more.
    """

    def __init__(self, latent: int = 128, out_channels: int = 1, channels: int = 64, size: int = 64) -> None:
        super().__init__()
        self.latent = latent
        widths = [latent, *_widths(channels, size)[::-1]]
        body: list[nn.Module] = []
        for k, (inputs, outputs) in enumerate(pairwise(widths)):
            stride, padding = (2, 1) if k else (1, 0)
            body.append(nn.ConvTranspose2d(inputs, outputs, kernel_size=4, stride=stride, padding=padding, bias=False))
            body.extend((nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)))
        self.layers = nn.Sequential(*body, nn.ConvTranspose2d(channels, out_channels, kernel_size=4, stride=2, padding=1), nn.Tanh())
        initialize_normal(self)

    def forward(self, latent: Float[Tensor, "b latent"]) -> Float[Tensor, "b c h w"]:
        """Make one image of each vector."""
        return self.layers(latent[:, :, None, None])


class LatentDiscriminator(nn.Module):
    """From images to one logit each: the log odds that the image is real.

    Parameters
    ----------
    in_channels : int
    channels : int
        Feature maps next to the image.
    size : int
        Of the image, in pixels: a power of two, 16 or more.
    """

    def __init__(self, in_channels: int = 1, channels: int = 64, size: int = 64) -> None:
        super().__init__()
        body: list[nn.Module] = []
        for inputs, outputs in pairwise([in_channels, *_widths(channels, size)]):
            body.append(nn.Conv2d(inputs, outputs, kernel_size=4, stride=2, padding=1, bias=False))
            body.extend((nn.BatchNorm2d(outputs), nn.LeakyReLU(SLOPE, inplace=True)))
        self.layers = nn.Sequential(*body, nn.Conv2d(_widths(channels, size)[-1], 1, kernel_size=4))
        initialize_normal(self)

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
        """Judge whole images, of the size that the network was made for."""
        return self.layers(image).reshape(len(image))


def _widths(channels: int, size: int) -> list[int]:
    """Feature maps from half the size of the image down to 4x4."""
    if size < 16 or size & (size - 1):
        raise ConfigError(f"size = {size}: the plain GAN makes square images whose size is a power of two, 16 or more; set it to 64, say")
    return [channels * min(2**k, 8) for k in range(size.bit_length() - 3)]
