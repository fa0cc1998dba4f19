"""The discriminator that judges overlapping patches: PatchGAN.

Isola, Zhu, Zhou, Efros, "Image-to-image translation with conditional adversarial networks", CVPR 2017. With three layers every score
depends on 70x70 pixels, which is what the papers on CycleGAN from unpaired slices and (in a variant of its own, see
`transmodal.networks.dual_discriminator`) on MR-GAN use. A conditional one gets source and target as channels of one image. As in its
authors' implementation, the convolutions keep their biases before the normalisation.
"""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from transmodal.networks.layers import bare_instance_norm, initialize_normal

SLOPE = 0.2


class PatchGAN(nn.Module):
    """From images to maps of scores, the higher the more real; no sigmoid follows the last convolution.

    Parameters
    ----------
    in_channels : int
    channels : int
        Feature maps of the first convolution; each one doubles them, up to 8 times as many.
    layers : int
        Convolutions that halve the size; 3 make the receptive field 70x70, and 1, 2, 4 make it 16, 34 and 142.
    """

    def __init__(self, in_channels: int = 1, channels: int = 64, layers: int = 3) -> None:
        super().__init__()
        widths = [channels * min(2**k, 8) for k in range(layers + 1)]
        body: list[nn.Module] = [nn.Conv2d(in_channels, channels, kernel_size=4, stride=2, padding=1), nn.LeakyReLU(SLOPE, inplace=True)]
        for k, (inputs, outputs) in enumerate(pairwise(widths), start=1):
            body.append(nn.Conv2d(inputs, outputs, kernel_size=4, stride=2 if k < layers else 1, padding=1))
            body.extend((bare_instance_norm(outputs), nn.LeakyReLU(SLOPE, inplace=True)))
        self.layers = nn.Sequential(*body, nn.Conv2d(widths[-1], 1, kernel_size=4, padding=1))
        initialize_normal(self)

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 y x"]:
        """Score the patches of images; each size must be at least ``3 * 2**layers``."""
        return self.layers(image)
