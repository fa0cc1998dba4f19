import pytest
import torch
from torch import nn

from transmodal.engine.hardware import optimize_layout
from transmodal.networks.layers import Conv3d, InstanceNorm


@pytest.mark.parametrize(
    ("network", "layout"),
    [
        (nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)), torch.channels_last),
        (nn.Sequential(nn.Conv2d(2, 4, 3), InstanceNorm(4)), torch.channels_last),
        (nn.Sequential(Conv3d(2, 4, 3), nn.BatchNorm3d(4)), torch.channels_last_3d),
        (nn.Sequential(Conv3d(2, 4, 3), InstanceNorm(4)), torch.channels_last_3d),
    ],
    ids=["slices", "slices, each normalised", "volumes", "volumes, each normalised"],
)
def test_weights_lie_as_the_kernels_want_them(network, layout):
    before = network[0].weight.clone()
    weight = optimize_layout(network)[0].weight
    assert weight.is_contiguous(memory_format=layout)
    assert torch.equal(weight, before)
