"""Smooth random fields and the small operations on images that what is drawn for a network is made of, in two or three dimensions."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

_CONVOLVE = {2: F.conv2d, 3: F.conv3d}
_MAX_POOL = {2: F.max_pool2d, 3: F.max_pool3d}
# Cubic in a plane; torch has no such thing in space.
_SMOOTHEST = {2: "bicubic", 3: "trilinear"}
_LINEAR = {2: "bilinear", 3: "trilinear"}


def uniform(low: float, high: float) -> float:
    """A random number between two others."""
    return low + (high - low) * float(torch.rand(()))


def chance(probability: float) -> bool:
    """True with that probability."""
    return float(torch.rand(())) < probability


def smooth_field(like: Float[Tensor, "b c *s"], distance: float, channels: int = 1) -> Float[Tensor, "b {channels} *s"]:
    """A random field with nodes of mean 0 and variance 1 about `distance` voxels apart, for the images of a batch."""
    size, dims = like.shape[2:], like.ndim - 2
    nodes = [max(round(n / distance), 1) + 3 for n in size]
    coarse = torch.randn(len(like), channels, *nodes, device=like.device)
    return F.interpolate(coarse, size=size, mode=_SMOOTHEST[dims], align_corners=True)


def smooth(image: Float[Tensor, "b 1 *s"], sigmas: Sequence[float]) -> Float[Tensor, "b 1 *s"]:
    """A Gaussian along each axis, by voxels; beyond the border the image goes on as it is there."""
    dims = image.ndim - 2
    for axis, sigma in enumerate(sigmas):
        radius = max(int(3 * sigma + 0.5), 1)
        steps = torch.arange(-radius, radius + 1, device=image.device, dtype=torch.float32)
        kernel = torch.exp(-0.5 * (steps / max(sigma, 1e-3)) ** 2)
        shape = [1, 1, *(len(steps) if k == axis else 1 for k in range(dims))]
        padding = [radius if k // 2 == dims - 1 - axis else 0 for k in range(2 * dims)]
        image = _CONVOLVE[dims](F.pad(image, padding, mode="replicate"), (kernel / kernel.sum()).view(shape))
    return image


def resize(image: Float[Tensor, "b c *s"], size: Sequence[int]) -> Float[Tensor, "b c *t"]:
    """The same image on a finer or coarser grid, interpolated linearly."""
    if list(size) == list(image.shape[2:]):
        return image
    return F.interpolate(image, size=list(size), mode=_LINEAR[image.ndim - 2], align_corners=False)


def highest_around(image: Float[Tensor, "b c *s"]) -> Float[Tensor, "b c *s"]:
    """The highest value among a voxel and those that touch it, be it by a corner."""
    return _MAX_POOL[image.ndim - 2](image, kernel_size=3, stride=1, padding=1)


def grown(mask: Bool[Tensor, "b 1 *s"]) -> Bool[Tensor, "b 1 *s"]:
    """The mask and every voxel that touches it."""
    return highest_around(mask.float()) > 0


def eroded(mask: Bool[Tensor, "b 1 *s"]) -> Bool[Tensor, "b 1 *s"]:
    """The voxels of the mask that touch none outside it; the border of the image is no outside."""
    return ~grown(~mask)


def surroundings(mask: Bool[Tensor, "b 1 *s"], reach: float) -> Bool[Tensor, "b 1 *s"]:
    """What lies within about `reach` voxels of a mask, itself included, by blocks of a few voxels."""
    block = 4
    pool, size = _MAX_POOL[mask.ndim - 2], mask.shape[2:]
    coarse = pool(mask.float(), kernel_size=block, ceil_mode=True)
    blocks = max(round(reach / block), 1)
    near = pool(coarse, kernel_size=2 * blocks + 1, stride=1, padding=blocks)
    return F.interpolate(near, size=size, mode="nearest") > 0
