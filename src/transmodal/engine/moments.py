"""Mean and standard deviation of arrays that come one after the other, without keeping them."""

import numpy as np
from jaxtyping import Float, Real


class Moments:
    """Running mean and spread, voxel by voxel (Welford, Technometrics 1962).

    Attributes
    ----------
    count : int
        How many arrays there have been.
    mean : ndarray, shape (x, y, z)
        float32.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: Float[np.ndarray, "x y z"] = np.zeros((1, 1, 1), dtype=np.float32)
        self._squares: Float[np.ndarray, "x y z"] = self.mean

    def add(self, values: Real[np.ndarray, "x y z"]) -> None:
        """Take one more array into account; all have one shape."""
        self.count += 1
        step = values - self.mean
        self.mean = self.mean + step / np.float32(self.count)
        self._squares = self._squares + step * (values - self.mean)

    @property
    def sd(self) -> Float[np.ndarray, "x y z"]:
        """Standard deviation of the arrays that were given, as a whole rather than a sample: with the divisor n; float32."""
        return np.sqrt(self._squares / np.float32(max(self.count, 1)))
