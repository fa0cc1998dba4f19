from itertools import pairwise

import pytest
import torch
from torch import nn

from transmodal.networks.light_unet import LightUNet
from transmodal.networks.summary import count_convolutions, count_parameters


def test_it_has_about_two_million_values():
    network = LightUNet()
    down = [(1, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256)]
    up = [(256, 128), (128, 64), (64, 32), (32, 16)]
    way_up = [*up, *((o, o) for _, o in up)]
    values = sum(9 * i * o + 2 * o for i, o in down + way_up) + sum(9 * i * o + o for i, o in up) + 16 + 1
    assert count_parameters(network) == values == 2_159_889
    assert count_convolutions(network) == 18 + 4 + 1
    assert network.stride == 16


def test_transposed_convolutions_are_three_wide_and_double_the_size():
    ups = [module for module in LightUNet().modules() if isinstance(module, nn.ConvTranspose2d)]
    assert [tuple(up.kernel_size) for up in ups] == [(3, 3)] * 4
    assert ups[0](torch.zeros(1, 256, 14, 14)).shape == (1, 128, 28, 28)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_output_is_a_grey_level(channels):
    network = LightUNet(channels, (4, 4, 8))
    result = network(100 * torch.randn(2, channels, 16, 24))
    assert result.shape == (2, 1, 16, 24)
    assert result.min() >= 0
    assert result.max() <= 1


def test_every_convolution_of_three_but_the_transposed_ones_is_normalised():
    layers = [module for module in LightUNet().modules() if not list(module.children())]
    for layer, following in pairwise(layers):
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            assert isinstance(following, nn.BatchNorm2d)
            assert layer.bias is None  # the normalisation has one
