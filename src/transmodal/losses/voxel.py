"""Losses between two images, voxel by voxel.

Each is a mean over the voxels of the batch, so that the size of a patch does not matter; with a mask, over those inside it.
"""

from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor

Reading = Literal["signed", "magnitude"]
Image = Float[Tensor, "b c *s"]
Mask = Bool[Tensor, "b 1 *s"]


def l1(prediction: Image, target: Image, mask: Mask | None = None) -> Float[Tensor, ""]:
    """Mean absolute difference."""
    return _mean((prediction - target).abs(), mask)


def l2(prediction: Image, target: Image, mask: Mask | None = None) -> Float[Tensor, ""]:
    """Mean squared difference: the first term of eq. (1) of the multi-atlas/U-Net/cGAN paper."""
    return _mean((prediction - target).square(), mask)


def gradient_difference(prediction: Image, target: Image, reading: Reading = "signed", mask: Mask | None = None) -> Float[Tensor, ""]:
    """Gradient difference loss: eq. (2) of the multi-atlas/U-Net/cGAN paper.

    Parameters
    ----------
    prediction, target : Tensor, shape (b, c, *s)
    reading : {"signed", "magnitude"}
        ``signed`` is the equation as printed, mean over dimensions d and voxels i of ``(dX_d(i) - dY_d(i))²``. ``magnitude``
        compares ``|dX_d(i)|`` with ``|dY_d(i)|``, as the work does that the paper takes the loss from (Nie et al., 2017).
    mask : Tensor of bool, shape (b, 1, *s), optional
        Both voxels of a gradient must be inside.

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
        both = None if mask is None else mask.narrow(d, 0, a.shape[d]) & mask.narrow(d, 1, a.shape[d])
        total = total + _mean((a - b).square(), both)
    return total / len(dimensions)


def laplace(error: Image, log_spread: Image) -> Float[Tensor, ""]:
    """Mean negative logarithm of the likelihood of errors under Laplace distributions of mean 0, but for a constant.

    Kendall and Gal, "What uncertainties do we need in Bayesian deep learning for computer vision?", NeurIPS 2017, eq. (8), with the
    absolute error that goes with an L1 loss in place of the squared one.

    Parameters
    ----------
    error : Tensor, shape (b, c, *s)
    log_spread : Tensor, shape (b, c, *s)
        Natural logarithm of the mean absolute error that is expected there.
    """
    return (log_spread + error.abs() * (-log_spread).exp()).mean()


def _mean(values: Image, mask: Mask | None) -> Float[Tensor, ""]:
    """The mean, inside the mask if there is one; 0 if nothing is inside."""
    if mask is None:
        return values.mean()
    inside = mask.expand_as(values)
    return (values * inside).sum() / inside.sum().clamp(min=1)
