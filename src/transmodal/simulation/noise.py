"""Smooth random fields that live in anatomy coordinates, so that a head is the same head on every grid."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

import numpy as np
from jaxtyping import Float

from transmodal.simulation.shapes import Distance, Number, Points, Triple

# Nodes of the lattice to one wavelength: enough for linear interpolation.
_NODES = 9


@final
@dataclass(frozen=True)
class SmoothField:
    """Values on a lattice, read between its nodes by linear interpolation and constant beyond its ends."""

    values: Float[np.ndarray, "i j k"]
    low: Triple
    spacing: Number

    def __call__(self, points: Points) -> Distance:
        """Value of the field at each point."""
        from scipy import ndimage

        indices = np.stack([(p - np.float32(c)) * np.float32(1 / self.spacing) for p, c in zip(points, self.low, strict=True)])
        return ndimage.map_coordinates(self.values, indices, order=1, mode="nearest", output=np.float32)


def band_noise(rng: np.random.Generator, wavelength: Number, low: Triple, high: Triple) -> SmoothField:
    """Noise of zero mean and unit variance whose spectrum peaks at one wavelength.

    White noise through the Laplacian of a Gaussian twice, which peaks where k = sqrt(2) / sigma.

    Parameters
    ----------
    rng : numpy.random.Generator
    wavelength : float
        In the unit of the coordinates.
    low, high : tuple of float
        Opposite corners of the region in which it varies.
    """
    from scipy import ndimage

    spacing = wavelength / _NODES
    shape = [int(np.ceil((b - a) / spacing)) + 1 for a, b in zip(low, high, strict=True)]
    sigma = np.sqrt(2) * _NODES / (2 * np.pi)
    values = rng.standard_normal(shape).astype(np.float32)
    for _ in range(2):
        values = ndimage.gaussian_laplace(values, sigma, mode="wrap", truncate=3.0)
    values -= values.mean()
    return SmoothField((values / values.std()).astype(np.float32), low, spacing)


def sheet_distance(noise: SmoothField) -> SmoothField:
    """Signed distance, to first order, from the sheets on which the noise is zero: n / |grad n|, bounded where the noise is flat."""
    slopes = np.gradient(noise.values, noise.spacing)
    slope = np.sqrt(sum(s * s for s in slopes))
    return SmoothField((noise.values / (slope + 0.25 * slope.mean())).astype(np.float32), noise.low, noise.spacing)


@final
@dataclass(frozen=True, eq=False)
class Noise:
    """The random fields of one head, each made when it is first asked for.

    A field depends on the seed and its own name alone: a head does not change when it is painted in another order, or when another
    part of it comes to need noise.

    Parameters
    ----------
    seed : int
    """

    seed: int
    _made: dict[str, SmoothField] = field(default_factory=dict)

    def generator(self, name: str) -> np.random.Generator:
        """Random numbers of their own for one purpose."""
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    def band(self, name: str, wavelength: Number, low: Triple, high: Triple) -> SmoothField:
        """Noise of unit variance around one wavelength: see `band_noise`."""
        return self._once(name, lambda: band_noise(self.generator(name), wavelength, low, high))

    def sheets(self, name: str, wavelength: Number, low: Triple, high: Triple) -> SmoothField:
        """Signed distance from random sheets about half a wavelength apart: see `sheet_distance`."""
        return self._once(name, lambda: sheet_distance(band_noise(self.generator(name), wavelength, low, high)))

    def _once(self, name: str, make: Callable[[], SmoothField]) -> SmoothField:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]
