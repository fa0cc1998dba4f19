"""Smooth random fields and the small operations on images that what is drawn for a network is made of, in two or three dimensions."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

_MAX_POOL = {2: F.max_pool2d, 3: F.max_pool3d}


def uniform(low: float, high: float) -> float:
    """A random number between two others."""
    return low + (high - low) * float(torch.rand(()))


def chance(probability: float) -> bool:
    """True with that probability."""
    return float(torch.rand(())) < probability


def smooth_field(like: Float[Tensor, "b c *s"], distance: float, channels: int = 1) -> Float[Tensor, "b {channels} *s"]:
    """A random field with nodes of mean 0 and variance 1, at most `distance` voxels apart, for the images of a batch.

    Two nodes more than fit in lie within each side, so that they are the nearer to each other the smaller the image: of 40 voxels wanted,
    24 apart in an image of 96, 27 in one of 160.
    """
    size = like.shape[2:]
    image = torch.randn(len(like), channels, *(max(round(n / distance), 1) + 3 for n in size), device=like.device)
    for axis, length in enumerate(size, start=2):
        image = _along(image, axis, _interpolation(image.shape[axis], length, "bicubic", like.device))
    return image


def smooth(image: Float[Tensor, "b 1 *s"], sigmas: Sequence[float]) -> Float[Tensor, "b 1 *s"]:
    """A Gaussian along each axis, by voxels; beyond the border the image goes on as it is there."""
    for axis, sigma in enumerate(sigmas, start=2):
        length, radius = image.shape[axis], max(int(3 * sigma + 0.5), 1)
        steps = torch.arange(-radius, radius + 1, device=image.device)
        kernel = torch.exp(-0.5 * (steps / max(sigma, 1e-3)) ** 2)
        sources = (torch.arange(length, device=image.device)[:, None] + steps).clamp(0, length - 1)
        weights = torch.zeros(length, length, device=image.device)
        image = _along(image, axis, weights.scatter_add_(1, sources, (kernel / kernel.sum()).expand(length, -1)))
    return image


def resize(image: Float[Tensor, "b c *s"], size: Sequence[int]) -> Float[Tensor, "b c *t"]:
    """The same image on a finer or coarser grid that covers the same space, interpolated linearly."""
    for axis, length in enumerate(size, start=2):
        if image.shape[axis] != length:
            image = _along(image, axis, _interpolation(image.shape[axis], length, "bilinear", image.device))
    return image


def _interpolation(nodes: int, length: int, mode: str, device: torch.device) -> Float[Tensor, "{length} {nodes}"]:
    """The weight of each node at each of some points: cubic from the first node to the last, or linear between the middles of voxels."""
    one_by_one = torch.eye(nodes, device=device)[None, :, :, None]
    return F.interpolate(one_by_one, size=(length, 1), mode=mode, align_corners=mode == "bicubic")[0, :, :, 0].T


def _along(image: Float[Tensor, "b c *s"], axis: int, weights: Float[Tensor, "m n"]) -> Float[Tensor, "b c *t"]:
    """Each line of an image along an axis by a matrix, which on CPUs is several times as fast as convolving or interpolating volumes."""
    shape = image.shape
    rows = image.reshape(math.prod(shape[:axis]), shape[axis], -1)
    found = rows[:, :, 0] @ weights.T if rows.shape[2] == 1 else weights @ rows
    return found.reshape(*shape[:axis], len(weights), *shape[axis + 1 :])


def highest_around(image: Float[Tensor, "b c *s"]) -> Float[Tensor, "b c *s"]:
    """The highest value among a voxel and those that touch it, be it by a corner."""
    # One axis after the other, by copies that are moved: several times as fast on CPUs as a pooling of volumes.
    for axis in range(2, image.ndim):
        ahead, behind = image.narrow(axis, 1, image.shape[axis] - 1), image.narrow(axis, 0, image.shape[axis] - 1)
        highest = image.clone()
        highest.narrow(axis, 0, behind.shape[axis]).clamp_(min=ahead)
        highest.narrow(axis, 1, ahead.shape[axis]).clamp_(min=behind)
        image = highest
    return image


def grown(mask: Bool[Tensor, "b 1 *s"], reach: int = 1) -> Bool[Tensor, "b 1 *s"]:
    """The mask and every voxel within so many along each axis; with 1, all that touches it."""
    return _count_around(mask, reach) > 0.5


def share_around(mask: Bool[Tensor, "b 1 *s"], reach: int) -> Float[Tensor, "b 1 *s"]:
    """The share of the mask in the square or cube that reaches so many voxels from each, where there is nothing beyond the border."""
    return _count_around(mask, reach) / (2 * reach + 1) ** (mask.ndim - 2)


def _count_around(mask: Bool[Tensor, "b 1 *s"], reach: int) -> Float[Tensor, "b 1 *s"]:
    count = mask.float()
    for axis, length in enumerate(mask.shape[2:], start=2):
        steps = torch.arange(length, device=mask.device)
        count = _along(count, axis, ((steps[:, None] - steps).abs() <= reach).float())
    return count


def eroded(mask: Bool[Tensor, "b 1 *s"], reach: int = 1) -> Bool[Tensor, "b 1 *s"]:
    """The voxels of the mask that have none outside it within reach; the border of the image is no outside."""
    return ~grown(~mask, reach)


def surroundings(mask: Bool[Tensor, "b 1 *s"], reach: float) -> Bool[Tensor, "b 1 *s"]:
    """What lies within about `reach` voxels of a mask, itself included, by blocks of a few voxels."""
    block = 4
    pool, size = _MAX_POOL[mask.ndim - 2], mask.shape[2:]
    coarse = pool(mask.float(), kernel_size=block, ceil_mode=True)
    blocks = max(round(reach / block), 1)
    near = pool(coarse, kernel_size=2 * blocks + 1, stride=1, padding=blocks)
    return F.interpolate(near, size=size, mode="nearest") > 0
