"""Random changes of a sample. Each is drawn once, as plain numbers, and then applied by a deterministic twin."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field

from transmodal.core.config import Config


class Augmentation(Config):
    """What may be changed, and how far.

    Parameters
    ----------
    flip : tuple of int
        Volume axes (0 right, 1 front, 2 top) that are mirrored with probability one half each.
    rotation_deg : float
        Largest rotation, in the plane of a slice or about each axis of a 3D patch.
    scale : float
        Largest relative change of size: 0.1 draws from 0.9 to 1.1.
    translation : int
        Largest shift along each axis of a patch, in voxels; to crop patches at random from images that were padded by as much.
    crop : float
        Largest share of the side of a slice that is cut off at random, where whole slices are seen (``view.fit``).
    gain, shift, noise : float
        Of the MR in network units: largest relative gain, largest offset, and largest standard deviation of added Gaussian noise.
        The CT is left alone, because its units are absolute.
    """

    flip: tuple[Literal[0, 1, 2], ...] = ()
    rotation_deg: float = Field(default=0.0, ge=0, le=180)
    scale: float = Field(default=0.0, ge=0, lt=1)
    translation: int = Field(default=0, ge=0)
    crop: float = Field(default=0.0, ge=0, lt=1)
    gain: float = Field(default=0.0, ge=0, lt=1)
    shift: float = Field(default=0.0, ge=0)
    noise: float = Field(default=0.0, ge=0)


@dataclass(frozen=True)
class Appearance:
    """The drawn change of an MR's intensities: y = gain * x + shift + noise."""

    gain: float
    shift: float
    noise: float
    noise_seed: int

    def apply(self, image: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """The changed image, float32, in network units."""
        changed = self.gain * image + self.shift
        if self.noise > 0:
            changed = changed + self.noise * np.random.default_rng(self.noise_seed).standard_normal(image.shape, dtype=np.float32)
        return changed.astype(np.float32)


def draw_appearance(settings: Augmentation, rng: np.random.Generator) -> Appearance:
    """Draw the change of an MR's intensities."""
    return Appearance(
        gain=float(1 + settings.gain * rng.uniform(-1, 1)),
        shift=float(settings.shift * rng.uniform(-1, 1)),
        noise=float(settings.noise * rng.uniform(0, 1)),
        noise_seed=int(rng.integers(2**63)),
    )


def draw_matrix(settings: Augmentation, axis: int | None, rng: np.random.Generator) -> Float[np.ndarray, "3 3"]:
    """Draw the linear part that takes offsets of the augmented patch to offsets in the volume, in voxels.

    Parameters
    ----------
    settings : Augmentation
    axis : int or None
        The axis that a slice lies across, which is then neither rotated nor scaled; None for a 3D patch.
    rng : Generator
    """
    matrix = np.eye(3)
    for turned in range(3) if axis is None else (axis,):
        matrix = matrix @ _rotation(turned, np.deg2rad(settings.rotation_deg * rng.uniform(-1, 1)))
    zoom = np.full(3, 1 / (1 + settings.scale * rng.uniform(-1, 1)))
    if axis is not None:
        zoom[axis] = 1.0
    signs = [-1.0 if flipped and k in settings.flip else 1.0 for k, flipped in enumerate(rng.random(3) < 0.5)]
    return matrix * zoom * np.array(signs)


def draw_shift(settings: Augmentation, axis: int | None, rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    """Draw how far the centre of a patch is moved, in whole voxels, but not along the axis that a slice lies across."""
    if settings.translation == 0:
        return np.zeros(3)
    shift = rng.integers(-settings.translation, settings.translation, size=3, endpoint=True).astype(float)
    return np.where(np.arange(3) == axis, 0.0, shift)


def _rotation(axis: int, angle: float) -> Float[np.ndarray, "3 3"]:
    """Rotation by `angle` (radians) about a volume axis; exactly the identity at 0."""
    i, j = (k for k in range(3) if k != axis)
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
    return matrix
