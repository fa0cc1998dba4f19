"""The deep-feature loss: how far apart two images are to a network that sees more in them than voxels.

Longuefosse et al., "Anatomical feature-prioritized loss for enhanced MR to CT translation", arXiv 2410.10328, take a segmentor of CTs and
the mean over its layers of the absolute difference of their features. So that none of them outweighs the others, each difference is
divided here by the size of the target's features.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Features = Float[Tensor, "..."]


def feature_difference(prediction: Sequence[Features], target: Sequence[Features]) -> Float[Tensor, ""]:
    """Mean over the levels of the mean absolute difference, each relative to how large the target's features are.

    Parameters
    ----------
    prediction, target : sequence of Tensor
        The features of the one image and of the other, level by level; no level need have the shape of another.

    Returns
    -------
    Tensor
        ``mean over levels l of mean |P_l - T_l| / mean |T_l|``, so that levels count alike whatever the scale of their features; 0 for
        equal images. A level on which the target has no features (all are 0) is not divided.
    """
    return torch.stack([_relative(p, t) for p, t in zip(prediction, target, strict=True)]).mean()


def _relative(prediction: Features, target: Features) -> Float[Tensor, ""]:
    size = target.abs().mean()
    return (prediction - target).abs().mean() / torch.where(size > 0, size, 1)
