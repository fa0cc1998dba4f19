"""How far a score can see."""

import torch
from torch import nn


def receptive_field(network: nn.Module, size: int, **call) -> int:
    """Pixels across on which the score in the middle of the map depends, apart from normalisation, through which it sees everything.

    All weights are made positive, so that no two ways to a pixel cancel.
    """
    network = network.double()
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            module.forward = lambda features: features
    for parameter in network.parameters():
        nn.init.ones_(parameter)
    channels = next(m.in_channels for m in network.modules() if isinstance(m, nn.Conv2d))
    image = torch.ones(1, channels, size, size, dtype=torch.float64, requires_grad=True)
    scores = network(image, **call)
    middle = scores.shape[-1] // 2
    scores[0, 0, middle, middle].backward()
    assert image.grad is not None
    seen = image.grad[0, 0].nonzero()
    height, width = (int(line.max() - line.min()) + 1 for line in seen.T)
    assert seen.min() > 0, "the image is too small"
    assert seen.max() < size - 1, "the image is too small"
    assert len(seen) == height * width
    assert height == width
    return height
