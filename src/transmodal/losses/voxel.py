"""Losses between two images, voxel by voxel. Means over all voxels of the batch, so that the size of a patch does not matter."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

Reading = Literal["signed", "magnitude"]


def l1(prediction: Float[Tensor, "b c *s"], target: Float[Tensor, "b c *s"]) -> Float[Tensor, ""]:
    """Mean absolute difference."""
    return (prediction - target).abs().mean()


def l2(prediction: Float[Tensor, "b c *s"], target: Float[Tensor, "b c *s"]) -> Float[Tensor, ""]:
    """Mean squared difference: the first term of eq. (1) of the multi-atlas/U-Net/cGAN paper."""
    return (prediction - target).square().mean()


def gradient_difference(
    prediction: Float[Tensor, "b c *s"], target: Float[Tensor, "b c *s"], reading: Reading = "signed"
) -> Float[Tensor, ""]:
    """Gradient difference loss: eq. (2) of the multi-atlas/U-Net/cGAN paper.

    Parameters
    ----------
    prediction, target : Tensor, shape (b, c, *s)
    reading : {"signed", "magnitude"}
        ``signed`` is the equation as printed, mean over dimensions d and voxels i of ``(dX_d(i) - dY_d(i))²``. ``magnitude``
        compares ``|dX_d(i)|`` with ``|dY_d(i)|``, as the work does that the paper takes the loss from (Nie et al., 2017).

    Notes
    -----
    The gradient is the forward difference to the next voxel; it has one value fewer than the image along its own dimension.
    """
    total = prediction.new_zeros(())
    dimensions = range(2, prediction.ndim)
    for d in dimensions:
        a, b = prediction.diff(dim=d), target.diff(dim=d)
        if reading == "magnitude":
            a, b = a.abs(), b.abs()
        total = total + (a - b).square().mean()
    return total / len(dimensions)
