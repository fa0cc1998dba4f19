"""Light_U-Net: the small network of the paper on synthetic CT from bone MRI in the head and neck (AJNR 2022).

The paper takes "the original U-Net architecture but decreasing the number of filters (channels) for each block, for total of ~2
million trainable parameters", with transposed convolutions of 3x3 instead of 2x2 "so that the decoder path exactly mirrored the
encoder path", batch normalisation and ReLU after every 3x3 convolution, and one output channel with a sigmoid.

It does not give the numbers of filters. A quarter of those of the U-Net (16 to 256 instead of 64 to 1024), with its 4 poolings and
2 convolutions a level, makes 2.16 million; half of them would make 8.6 and an eighth 0.5. As in the U-Net, neither normalisation
nor ReLU follows a transposed convolution.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from transmodal.networks.unet import UNet


class LightUNet(nn.Module):
    """From a slice of grey levels in [0, 1] to another.

    Parameters
    ----------
    in_channels : int
    channels : sequence of int
        Feature maps at each level; one pooling lies between two levels.
    """

    def __init__(self, in_channels: int = 1, channels: Sequence[int] = (16, 32, 64, 128, 256)) -> None:
        super().__init__()
        self.unet = UNet(2, in_channels, channels=channels, convolutions=2, last_convolutions=2, norm="batch", up_kernel=3)
        self.stride = self.unet.stride

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """Map slices to slices in [0, 1]; each spatial size must be a multiple of `stride`."""
        return torch.sigmoid(self.unet(image))
