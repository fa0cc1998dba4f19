"""How the values of a synthetic image agree with the true ones, voxel by voxel over many cases, without keeping the voxels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from transmodal.evaluation.metrics import Image, Mask

BINS = 256
# Of normally distributed differences, 95 % lie within so many standard deviations.
_LIMITS_SD = 1.96


@dataclass(frozen=True, eq=False)
class Agreement:
    """Counts and sums over the voxels inside the masks of some cases.

    Parameters
    ----------
    edges : ndarray, shape (m,), m = n + 1
        Of the bins, in the unit of the images; values beyond count in the bins at the ends.
    counts : ndarray, shape (n, n)
        Voxels by the bin of the true value (row) and of the synthetic one (column).
    errors, absolute_errors : ndarray, shape (n,)
        Sum of synthetic minus true value, and of its size, by the bin of the true value.
    squared_errors : float
        Sum over all voxels.
    """

    edges: Float[np.ndarray, " m"]
    counts: Int[np.ndarray, "n n"]
    errors: Float[np.ndarray, " n"]
    absolute_errors: Float[np.ndarray, " n"]
    squared_errors: float

    @classmethod
    def of(cls, reference: Image, prediction: Image, mask: Mask, limits: tuple[float, float]) -> "Agreement":
        """Count the voxels of one case, in bins between two values."""
        low, high = limits
        true, made = reference[mask].astype(np.float64), prediction[mask].astype(np.float64)
        rows, columns = (np.clip((values - low) * (BINS / (high - low)), 0, BINS - 1).astype(np.int64) for values in (true, made))
        error = made - true
        return cls(
            edges=np.linspace(low, high, BINS + 1),
            counts=np.bincount(rows * BINS + columns, minlength=BINS**2).reshape(BINS, BINS),
            errors=np.bincount(rows, error, minlength=BINS).astype(np.float64),  # integers, of no voxels
            absolute_errors=np.bincount(rows, np.abs(error), minlength=BINS).astype(np.float64),
            squared_errors=float(np.square(error).sum()),
        )

    def __add__(self, other: "Agreement") -> "Agreement":
        """Both together; their bins are the same."""
        return type(self)(
            self.edges,
            self.counts + other.counts,
            self.errors + other.errors,
            self.absolute_errors + other.absolute_errors,
            self.squared_errors + other.squared_errors,
        )

    @property
    def centers(self) -> Float[np.ndarray, " n"]:
        """The middle of each bin."""
        return (self.edges[:-1] + self.edges[1:]) / 2

    @property
    def voxels(self) -> Int[np.ndarray, " n"]:
        """How many voxels there are, by the bin of the true value."""
        return self.counts.sum(axis=1)

    @property
    def bias(self) -> float:
        """Mean of synthetic minus true value over all voxels; NaN without any."""
        total = self.voxels.sum()
        return float(self.errors.sum() / total) if total else float("nan")

    @property
    def limits_of_agreement(self) -> tuple[float, float]:
        """Bias ± 1.96 standard deviations of the differences (Bland and Altman, Lancet 1986;327:307); NaN under two voxels."""
        total = self.voxels.sum()
        if total < 2:
            return float("nan"), float("nan")
        variance = max(self.squared_errors - total * self.bias**2, 0.0) / (total - 1)
        return self.bias - _LIMITS_SD * float(np.sqrt(variance)), self.bias + _LIMITS_SD * float(np.sqrt(variance))

    def rebinned(self, width: int) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
        """Middle, mean error and mean absolute error of `width` bins of true values together, where these hold voxels.

        Raises
        ------
        ValueError
            If `width` does not divide the number of bins.
        """
        voxels, errors, sizes = (sums.reshape(-1, width).sum(axis=1) for sums in (self.voxels, self.errors, self.absolute_errors))
        held = voxels > 0
        middles = self.centers.reshape(-1, width).mean(axis=1)
        return middles[held], errors[held] / voxels[held], sizes[held] / voxels[held]


def pool(found: Sequence[Agreement]) -> Agreement | None:
    """All cases together; None for no case."""
    total = None
    for one in found:
        total = one if total is None else total + one
    return total
