"""Slices as squares: each is cut to the smallest square with the mask in its middle and resized, and the result is put back.

The paper on Light_U-Net crops slices "to the smallest possible square containing and centering the masked content" and resizes them
to 224x224. Training and prediction look through the same frames, those of `square_frame`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import affine_transform


@dataclass(frozen=True)
class Square:
    """A square of a slice, from edge to edge of its voxels: where its middle lies, and its side, in voxels."""

    center: Float[np.ndarray, "2"]
    side: int


def smallest_square(mask: Bool[np.ndarray, "h w"]) -> Square:
    """The smallest square with the box around the mask in its middle; where nothing is inside, that of the whole slice."""
    inside = np.argwhere(mask) if mask.any() else np.array([[0, 0], np.array(mask.shape) - 1])
    low, high = inside.min(axis=0), inside.max(axis=0)
    return Square((low + high) / 2, int((high - low).max()) + 1)


def cut(slices: Float[np.ndarray, "c h w"], square: Square, size: int, fill: float) -> Float[np.ndarray, "c s s"]:
    """A square of slices of one place, resized to `size` voxels a side by linear interpolation; `fill` beyond the slices."""
    zoom = square.side / size
    offset: Any = [0, *(square.center - zoom * (size - 1) / 2)]
    # The three axes are given one matrix each, which scipy takes to be diagonal.
    return affine_transform(
        slices, [1, zoom, zoom], offset=offset, output_shape=(len(slices), size, size), order=1, mode="grid-constant", cval=fill
    )


def paste(image: Float[np.ndarray, "s s"], square: Square, shape: tuple[int, int]) -> Float[np.ndarray, "h w"]:
    """What `cut` cut out, back in a slice of a shape; beyond the square it goes on as at its border."""
    zoom = len(image) / square.side
    offset: Any = (len(image) - 1) / 2 - zoom * square.center
    return affine_transform(image, [zoom, zoom], offset=offset, output_shape=shape, order=1, mode="nearest")
