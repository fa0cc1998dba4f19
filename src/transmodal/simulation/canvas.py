"""The grid that a head is painted on: anatomy coordinates of every voxel, and the labels so far."""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, UInt8

from transmodal.simulation.shapes import Distance, Points, Triple
from transmodal.simulation.tissues import Tissue


@final
@dataclass(frozen=True, eq=False)
class Canvas:
    """Points in anatomy coordinates, and the labels painted at them.

    Parameters
    ----------
    x, y, z : ndarray, shape (x, y, z)
        Anatomy coordinates in mm of an average adult: to the right, the front, the top; the origin lies near the anterior commissure.
    labels : ndarray, shape (x, y, z)
        `Tissue` numbers; painting changes them in place.
    unit : float
        Anatomy millimetres in one millimetre of this head.
    """

    x: Distance
    y: Distance
    z: Distance
    labels: UInt8[np.ndarray, "x y z"]
    unit: float

    @property
    def points(self) -> Points:
        """The three coordinates."""
        return self.x, self.y, self.z

    @property
    def mirrored(self) -> Points:
        """The coordinates folded onto the right half, for what the head has on both sides."""
        return np.abs(self.x), self.y, self.z

    def crop(self, low: Triple, high: Triple) -> "Canvas":
        """Views of the smallest block of voxels that holds every point between two corners."""
        window = tuple(self._range(axis, low, high) for axis in range(3))
        return Canvas(self.x[window], self.y[window], self.z[window], self.labels[window], self.unit)

    def _range(self, axis: int, low: Triple, high: Triple) -> slice:
        # A thinned look at the coordinates is enough: they change smoothly, and a margin of one step covers what lies between.
        others = tuple(other for other in range(3) if other != axis)
        keep = np.ones(self.labels.shape[axis], dtype=bool)
        for coordinate, a, b in zip(self.points, low, high, strict=True):
            thin = coordinate[tuple(slice(None) if i == axis else slice(None, None, 4) for i in range(3))]
            margin = _MARGIN
            keep &= (thin.max(axis=others) >= a - margin) & (thin.min(axis=others) <= b + margin)
        hits = np.flatnonzero(keep)
        return slice(int(hits[0]), int(hits[-1]) + 1) if hits.size else slice(0, 0)

    def paint(self, where: Bool[np.ndarray, "x y z"], tissue: Tissue) -> None:
        """Give the voxels of a region one tissue."""
        self.labels[where] = tissue

    def is_any(self, *tissues: Tissue) -> Bool[np.ndarray, "x y z"]:
        """Where the labels are one of some tissues."""
        table = np.zeros(256, dtype=bool)
        table[list(tissues)] = True
        return table[self.labels]


# Anatomy mm added around a block: more than the thinned coordinates can miss.
_MARGIN = 12.0
