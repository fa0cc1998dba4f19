"""Voxel metrics: pure functions of arrays, accumulated in float64.

Every function takes the true image first and looks only at voxels inside `mask`. Where a metric is not defined (no voxel to look
at, a constant image) the result is NaN, never a crash and never a perfect score. Names carry no unit where the result has that of
the images. Which clip range and mask a number needs, its protocol states (`transmodal.evaluation.protocol`).
"""

import numpy as np
from jaxtyping import Bool, Float, Int, Real

Image = Real[np.ndarray, "x y z"]
Mask = Bool[np.ndarray, "x y z"]


def mae(reference: Image, prediction: Image, mask: Mask) -> float:
    """Mean absolute error inside the mask, without clipping.

    Parameters
    ----------
    reference, prediction : ndarray, shape (x, y, z)
        True and synthetic image, in the same unit.
    mask : ndarray of bool, shape (x, y, z)

    Returns
    -------
    float
        In the unit of the images, at least 0; NaN where the mask is empty.
    """
    return _mean(np.abs(_difference(reference, prediction, mask)))


def mean_error(reference: Image, prediction: Image, mask: Mask) -> float:
    """Mean signed error (bias), prediction minus reference, inside the mask; NaN where the mask is empty."""
    return _mean(_difference(reference, prediction, mask))


def mse(reference: Image, prediction: Image, mask: Mask) -> float:
    """Mean squared error inside the mask, in the squared unit of the images; NaN where the mask is empty."""
    return _mean(np.square(_difference(reference, prediction, mask)))


def psnr_db(reference: Image, prediction: Image, mask: Mask, clip: tuple[float, float]) -> float:
    """Peak signal-to-noise ratio inside the mask, both images clipped first.

    Parameters
    ----------
    reference, prediction : ndarray, shape (x, y, z)
    mask : ndarray of bool, shape (x, y, z)
    clip : tuple of float
        Lowest and highest value, in the unit of the images; their distance is the peak R.

    Returns
    -------
    float
        10 log10(R² / MSE) in dB; infinite where the clipped images agree in every voxel, NaN where the mask is empty.
    """
    low, high = clip
    error = np.clip(reference[mask], low, high).astype(np.float64) - np.clip(prediction[mask], low, high)
    return _peak_to_noise_db(high - low, _mean(np.square(error)))


def psnr_unclipped_db(reference: Image, prediction: Image, mask: Mask, peak: float) -> float:
    """Peak signal-to-noise ratio inside the mask, of images as they are: 10 log10(peak² / MSE) in dB, as `psnr_db` gives it."""
    return _peak_to_noise_db(peak, mse(reference, prediction, mask))


def pearson_r(reference: Image, prediction: Image, mask: Mask) -> float:
    """Pearson's correlation inside the mask, in [-1, 1]; NaN where it has under two voxels or an image is constant there."""
    x, y = reference[mask].astype(np.float64), prediction[mask].astype(np.float64)
    if x.size < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1].clip(-1, 1))


def dice(first: Mask, second: Mask) -> float:
    """Dice overlap of two masks, 2 |A ∩ B| / (|A| + |B|), in [0, 1]; NaN where both are empty."""
    voxels = np.count_nonzero(first) + np.count_nonzero(second)
    return 2 * np.count_nonzero(first & second) / voxels if voxels else float("nan")


def precision(reference: Mask, prediction: Mask) -> float:
    """Share of the predicted voxels that are true, |A ∩ B| / |B|, in [0, 1]; NaN where nothing is predicted."""
    predicted = np.count_nonzero(prediction)
    return np.count_nonzero(reference & prediction) / predicted if predicted else float("nan")


def recall(reference: Mask, prediction: Mask) -> float:
    """Share of the true voxels that are predicted, |A ∩ B| / |A|, in [0, 1]; NaN where nothing is true."""
    return precision(prediction, reference)


def overlap_over_thresholds(
    reference: Image, prediction: Image, mask: Mask, thresholds: Float[np.ndarray, " t"]
) -> tuple[float, float, float]:
    """Dice, precision and recall of what reaches a threshold inside the mask, averaged over thresholds.

    Parameters
    ----------
    reference, prediction : ndarray, shape (x, y, z)
    mask : ndarray of bool, shape (x, y, z)
    thresholds : ndarray, shape (t,)
        Ascending, in the unit of the images.

    Returns
    -------
    dice, precision, recall : float
        Each over the thresholds at which it is defined: with a voxel in either image, in the prediction, in the reference. NaN where
        there is no such threshold.
    """
    # How many thresholds a voxel reaches; in both images it reaches as many as in the lower one.
    true, found = (np.searchsorted(thresholds, image[mask], side="right") for image in (reference, prediction))
    in_true, in_found, in_both = (_reaching(reached, len(thresholds)) for reached in (true, found, np.minimum(true, found)))
    return _mean_ratio(2 * in_both, in_true + in_found), _mean_ratio(in_both, in_found), _mean_ratio(in_both, in_true)


def _reaching(reached: Int[np.ndarray, " n"], thresholds: int) -> Int[np.ndarray, " t"]:
    """How many voxels reach each threshold."""
    return np.bincount(reached, minlength=thresholds + 1)[:0:-1].cumsum()[::-1]


def _mean_ratio(parts: Int[np.ndarray, " t"], wholes: Int[np.ndarray, " t"]) -> float:
    defined = wholes > 0
    return _mean(parts[defined] / wholes[defined])


def _peak_to_noise_db(peak: float, mse: float) -> float:
    return float("inf") if mse == 0 else float(10 * np.log10(peak**2 / mse))


def _difference(reference: Image, prediction: Image, mask: Mask) -> Float[np.ndarray, " n"]:
    return prediction[mask].astype(np.float64) - reference[mask]


def _mean(values: Float[np.ndarray, " n"]) -> float:
    return float(values.mean()) if values.size else float("nan")
