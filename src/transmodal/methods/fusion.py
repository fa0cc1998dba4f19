"""Several CTs of one head, each from another atlas, as one: by their mean, their median, or by whose MR looks most alike here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from transmodal.core.volume import Volume

Fusion = Literal["mean", "median", "local_similarity"]

# Where no atlas has been, there is neither air nor bone to be known of: HU of soft tissue.
UNKNOWN_HU = 0.0
# An atlas counts exp(-rank / 2) where so many others look more alike (Burgos et al., IEEE Trans Med Imaging 2014;33:2332).
_RANK_DECAY = 0.5
_FLAT = 1e-6


@dataclass(frozen=True, eq=False)
class Candidate:
    """An atlas where its registration puts it, on the grid of the scan.

    Parameters
    ----------
    mr : ndarray, shape (x, y, z)
        Arbitrary units.
    ct : ndarray, shape (x, y, z)
        HU.
    bone : ndarray of bool, shape (x, y, z)
    covered : ndarray of bool, shape (x, y, z)
        What lies in the field of view of the atlas; elsewhere it has nothing to say.
    """

    mr: Float[np.ndarray, "x y z"]
    ct: Int[np.ndarray, "x y z"]
    bone: Bool[np.ndarray, "x y z"]
    covered: Bool[np.ndarray, "x y z"]


@dataclass(frozen=True, eq=False)
class Fused:
    """What the atlases say together.

    Parameters
    ----------
    ct, sd : ndarray, shape (x, y, z)
        HU, and the standard deviation over the atlases in HU.
    bone : ndarray of bool, shape (x, y, z)
        Where any of them has bone: their masks merged into one.
    covered : ndarray of bool, shape (x, y, z)
        Where at least one has been.
    """

    ct: Float[np.ndarray, "x y z"]
    sd: Float[np.ndarray, "x y z"]
    bone: Bool[np.ndarray, "x y z"]
    covered: Bool[np.ndarray, "x y z"]


def fuse(candidates: Sequence[Candidate], kind: Fusion, mr: Volume, window_mm: float) -> Fused:
    """Fuse the CTs of the atlases.

    Parameters
    ----------
    candidates : sequence of Candidate
        At least one.
    kind : {"mean", "median", "local_similarity"}
        The mean of those that cover a voxel (multi-atlas/U-Net/cGAN paper, section 2.1), their median, or their mean weighted by
        the rank of their local normalized correlation with the MR (Burgos et al., IEEE Trans Med Imaging 2014;33:2332).
    mr : Volume
        The scan that they are registered to.
    window_mm : float
        Standard deviation of the Gaussian window in which MRs are compared.

    Returns
    -------
    Fused
    """
    weights = _weights(candidates, kind, mr, window_mm)
    ct, sd = (np.empty(mr.shape, dtype=np.float32) for _ in range(2))
    for x in range(mr.shape[0]):  # a sheet at a time: as floats, many atlases would not fit in memory
        values = np.stack([candidate.ct[x] for candidate in candidates]).astype(np.float32)
        shares = np.stack([weight[x] for weight in weights])
        total = shares.sum(axis=0)
        shares = np.divide(shares, total, out=np.zeros_like(shares), where=total > 0)
        mean = (shares * values).sum(axis=0)
        sd[x] = np.sqrt((shares * (values - mean) ** 2).sum(axis=0))
        middle = _median(values, shares > 0) if kind == "median" else mean
        ct[x] = np.where(total > 0, middle, UNKNOWN_HU)
    bone = np.any([candidate.bone for candidate in candidates], axis=0)
    return Fused(ct, sd, bone, np.any([candidate.covered for candidate in candidates], axis=0))


def local_correlation(
    one: Float[np.ndarray, "x y z"], other: Float[np.ndarray, "x y z"], sigma: Sequence[float]
) -> Float[np.ndarray, "x y z"]:
    """Normalized correlation of two images in a Gaussian window around each voxel, from -1 to 1; 0 where either is flat.

    Parameters
    ----------
    one, other : ndarray, shape (x, y, z)
    sigma : three floats
        Standard deviation of the window along each axis, in voxels.
    """
    from scipy.ndimage import gaussian_filter

    def window(image: Float[np.ndarray, "x y z"]) -> Float[np.ndarray, "x y z"]:
        return np.asarray(gaussian_filter(image, sigma, truncate=3.0))

    # In units of their own spread, or the squares of large intensities would leave no digits.
    one, other = ((image - image.mean()) / (image.std() + _FLAT) for image in (one, other))
    mean_one, mean_other = window(one), window(other)
    spread = (window(one * one) - mean_one**2) * (window(other * other) - mean_other**2)
    together = window(one * other) - mean_one * mean_other
    return np.divide(together, np.sqrt(np.maximum(spread, 0)), out=np.zeros_like(together), where=spread > _FLAT)


def _weights(candidates: Sequence[Candidate], kind: Fusion, mr: Volume, window_mm: float) -> list[Float[np.ndarray, "x y z"]]:
    """What each atlas counts, voxel by voxel; 0 where it has not been."""
    covered = [candidate.covered.astype(np.float32) for candidate in candidates]
    if kind != "local_similarity":
        return covered
    sigma = [window_mm / spacing for spacing in mr.spacing]
    image = np.asarray(mr.array, dtype=np.float32)
    alike = [np.where(c.covered, local_correlation(image, c.mr, sigma), -np.inf).astype(np.float32) for c in candidates]
    return [share * np.exp(-_RANK_DECAY * _rank(alike, k)).astype(np.float32) for k, share in enumerate(covered)]


def _rank(alike: Sequence[Float[np.ndarray, "x y z"]], index: int) -> Integer[np.ndarray, "x y z"]:
    """How many of the others look more alike, voxel by voxel; of equals, those that come first."""
    rank = np.zeros(alike[index].shape, dtype=np.int32)
    for k, other in enumerate(alike):
        if k != index:
            rank += (other > alike[index]) if k > index else (other >= alike[index])
    return rank


def _median(values: Float[np.ndarray, "n y z"], there: Bool[np.ndarray, "n y z"]) -> Float[np.ndarray, "y z"]:
    """The median of those that are there; of nobody, anything."""
    ordered = np.sort(np.where(there, values, np.float32(np.inf)), axis=0)
    count = there.sum(axis=0)
    low, high = (np.maximum(n, 0)[None] for n in ((count - 1) // 2, np.minimum(count // 2, len(values) - 1)))
    return (np.take_along_axis(ordered, low, axis=0) + np.take_along_axis(ordered, high, axis=0))[0] / 2
