"""Bone of a CT by k-means: three classes (air, soft tissue, bone) of its histogram in 1024 bins.

Section 3.2 of the multi-atlas/U-Net/cGAN paper, which segments true and synthetic CTs so, because a synthetic CT may not be scaled
well enough for a fixed threshold. Its images hold HU + 1024 in [0, 4095] and are multiplied by the head mask: what lies outside
the head counts as -1024 HU. In one dimension the best k-means is that of the two thresholds that leave the least variance within
the classes, which are those of Otsu's method for three classes (Otsu 1979; Liao, Chen and Chung 2001). They are found exactly, so that
nothing depends on a start.
"""

import numpy as np
from jaxtyping import Bool, Int64, Real

from transmodal.core.errors import DataError
from transmodal.core.volume import Volume, require_same_grid

Image = Real[np.ndarray, "x y z"]
Mask = Bool[np.ndarray, "x y z"]

CLASSES = 3
BINS = 1024
# The lower edge of the first bin, and the width of each: together they hold every CT of 12 bits.
LOWEST_HU, BIN_HU = -1024, 4


def bone_threshold_hu(image: Image, mask: Mask) -> float:
    """The HU from which on k-means calls a voxel bone.

    Parameters
    ----------
    image : ndarray, shape (x, y, z)
        A true or synthetic CT, in HU; beyond [-1024, 3071] it is clipped.
    mask : ndarray of bool, shape (x, y, z)
        The head. Voxels outside of it count as -1024 HU.

    Returns
    -------
    float
        The lower edge of a bin; NaN where fewer than three bins hold a voxel, so that there are no three classes.
    """
    levels = np.clip((np.floor(image[mask]) - LOWEST_HU) // BIN_HU, 0, BINS - 1).astype(np.int64)
    counts = np.bincount(levels, minlength=BINS)
    counts[0] += np.count_nonzero(~mask)
    if np.count_nonzero(counts) < CLASSES:
        return float("nan")
    return float(LOWEST_HU + BIN_HU * _first_of_three(counts))


def _first_of_three(counts: Int64[np.ndarray, " bins"]) -> int:
    """The first bin of the last of three classes, between which the variance is the largest: that within them is then the least.

    In double precision: with the counts of a whole head, scikit-image's `threshold_multiotsu` may be off by a bin.
    """
    count = np.cumsum(counts, dtype=np.float64)
    total = np.cumsum(counts * np.arange(len(counts), dtype=np.float64))
    with np.errstate(invalid="ignore", divide="ignore"):
        low = total**2 / count
        high = (total[-1] - total) ** 2 / (count[-1] - count)
        middle = (total - total[:, None]) ** 2 / (count - count[:, None])
    # A row is the last bin of the first class, a column that of the second; empty classes are none.
    between = np.triu(low[:, None] + middle + high, k=1)
    return int(np.unravel_index(np.nanargmax(between), between.shape)[1]) + 1


def bone_mask(image: Image, mask: Mask) -> Mask:
    """The voxels of the head that k-means calls bone (see `bone_threshold_hu`); none where there are no three classes."""
    return mask & (image >= bone_threshold_hu(image, mask))


def segment_bone(ct: Volume, head: Volume) -> Volume:
    """The bone of a true or synthetic CT, within its head mask, by k-means.

    Raises
    ------
    GeometryError
        If the two do not lie on one grid.
    DataError
        If `ct` is no CT, or has fewer than three grey levels inside the head.
    """
    require_same_grid(ct.grid, head.grid, "the CT", "the head mask")
    if ct.modality != "ct":
        raise DataError(f"bone is segmented in a CT, not in a volume of the modality {ct.modality}")
    inside = np.asarray(head.array > 0)
    threshold = bone_threshold_hu(ct.array, inside)
    if np.isnan(threshold):
        raise DataError("the CT has fewer than three grey levels in the head mask: air, soft tissue and bone cannot be told apart")
    return ct.with_array(inside & (ct.array >= threshold), "mask")
