"""How large a network is."""

from torch import nn

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def count_convolutions(network: nn.Module) -> int:
    """Number of convolution layers, transposed ones included: what the U-Net papers call its layers."""
    return sum(isinstance(module, _CONVOLUTIONS) for module in network.modules())


def count_parameters(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
