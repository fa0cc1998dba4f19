"""Structural similarity as the SynthRAD challenges define it, by separable box sums over slabs.

Both protocols look at a voxel only where its whole 7³ window lies in the image, so the border needs no convention, and only slabs
that hold voxels of the mask have to be filtered. A slab at a time stays in the processor's cache and needs little memory.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Real

from transmodal.evaluation.metrics import Image, Mask

WINDOW = 7
MARGIN = WINDOW // 2
K1, K2 = 0.01, 0.03
# Weights of the five scales: Wang et al. 2003, section 3.2.
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# Five scales of a 7³ window need this many voxels along each axis.
SMALLEST_SIDE = (WINDOW - 1) * 2 ** (len(SCALE_WEIGHTS) - 1) + 1
# Why there is no value.
NEAR_BORDER = "no voxel of the mask lies 3 voxels from the border"
# Planes in a slab: few enough for the cache, many against the six more that their windows reach.
_SLAB = 6

Array = Float[np.ndarray, "x y z"]
# Of another shape than what it was made from.
OtherArray = Float[np.ndarray, "i j k"]
OtherImage = Real[np.ndarray, "i j k"]
OtherMask = Bool[np.ndarray, "i j k"]
Box = tuple[slice, slice, slice]


def ssim_synthrad2023(reference: Image, prediction: Image, mask: Mask, clip: tuple[float, float] = (-1024.0, 3000.0)) -> float:
    """Structural similarity of the SynthRAD 2023 protocol.

    Both images are clipped, set to the lowest value outside the mask, and shifted to begin at 0. The map (uniform 7³ window,
    K1 = 0.01, K2 = 0.03, sample covariance, R the length of the clip range) is averaged over the voxels of the mask that lie at
    least 3 voxels from the border.

    Parameters
    ----------
    reference, prediction : ndarray, shape (x, y, z)
        True and synthetic image, in the unit of `clip`.
    mask : ndarray of bool, shape (x, y, z)
    clip : tuple of float
        Lowest and highest value; the protocol's own in HU by default.

    Returns
    -------
    float
        At most 1; NaN where no voxel of the mask lies 3 voxels from the border.

    References
    ----------
    Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", eq. 13.
    Huijben et al. 2024, "Generating synthetic computed tomography for radiotherapy: SynthRAD2023 challenge report".
    """
    reference, prediction, mask = _slowest_first(reference, prediction, mask)
    return _mean_ssim(_shifted(reference, mask, clip), _shifted(prediction, mask, clip), mask, clip[1] - clip[0])


def ssim(reference: Image, prediction: Image, mask: Mask, data_range: float) -> float:
    """Structural similarity of images as they are, with the map and the mean of `ssim_synthrad2023`.

    Parameters
    ----------
    reference, prediction : ndarray, shape (x, y, z)
        Nowhere below 0.
    mask : ndarray of bool, shape (x, y, z)
    data_range : float
        R, of which the constants are c1 = (0.01 R)² and c2 = (0.03 R)².

    Returns
    -------
    float
        At most 1; NaN where no voxel of the mask lies 3 voxels from the border.
    """
    reference, prediction, mask = _slowest_first(reference, prediction, mask)
    return _mean_ssim(reference.astype(np.float64), prediction.astype(np.float64), mask, data_range)


def ms_ssim_synthrad2025(reference: Image, prediction: Image, mask: Mask, clip: tuple[float, float] = (-1024.0, 3071.0)) -> float:
    """Multi-scale structural similarity of the SynthRAD 2025 protocol.

    Clip, mask, shift and map as in `ssim_synthrad2023`; sides under 97 voxels are padded with their edge. At each of five scales
    the map is L^w C^w S^w with every term floored at 0, its masked mean is clipped to [0, 1], and the result is their product.
    Luminance enters at every scale, unlike in the original MS-SSIM (Wang et al. 2003).

    Parameters
    ----------
    reference, prediction : ndarray, shape (x, y, z)
    mask : ndarray of bool, shape (x, y, z)
    clip : tuple of float
        Lowest and highest value; the protocol's own in HU by default.

    Returns
    -------
    float
        In [0, 1]; NaN where at some scale no voxel of the mask lies 3 voxels from the border.

    Notes
    -----
    With C3 = C2 / 2 the product C S is the contrast-structure term of the two-term SSIM. The shifted images are not negative, so
    L and C are not either and the floor acts on S alone: the map of a scale is max(SSIM, 0)^w.
    """
    reference, prediction, mask = _slowest_first(reference, prediction, mask)
    padding = [((SMALLEST_SIDE - side) // 2, -((side - SMALLEST_SIDE) // 2)) if side < SMALLEST_SIDE else (0, 0) for side in mask.shape]
    x, y, inside = (
        np.pad(array, padding, mode="edge") for array in (_shifted(reference, mask, clip), _shifted(prediction, mask, clip), mask)
    )
    result = 1.0
    for weight in SCALE_WEIGHTS:
        result *= _clip_unit(_mean_ssim(x, y, inside, clip[1] - clip[0], exponent=weight))
        x, y, inside = _halved(x), _halved(y), inside[::2, ::2, ::2]
    return result


def _clip_unit(value: float) -> float:
    return float(np.clip(value, 0, 1))


def _slowest_first(reference: Image, prediction: Image, mask: Mask) -> tuple[OtherImage, OtherImage, OtherMask]:
    """Order the axes as `reference` lies in memory, so that a slab is read in long runs; the metrics treat all axes alike."""
    axes = np.argsort(reference.strides)[::-1]
    return reference.transpose(axes), prediction.transpose(axes), np.ascontiguousarray(mask.transpose(axes))


def _shifted(image: Image, mask: Mask, clip: tuple[float, float]) -> Array:
    """Clip, shift to begin at 0, and set what lies outside the mask to 0."""
    low, high = clip
    result = np.clip(image, low, high).astype(np.float64, order="C")
    result -= low
    result *= mask
    return result


def _mean_ssim(x: Array, y: Array, mask: Mask, data_range: float, exponent: float | None = None) -> float:
    """Mean of the SSIM map (of its positive part to the power `exponent`) over the mask's voxels whose whole window fits."""
    total, count = 0.0, 0
    for near, inside in _slabs(mask):
        values = _ssim_map(x[near], y[near], data_range)[inside]
        total += float((values if exponent is None else np.maximum(values, 0) ** exponent).sum())
        count += values.size
    return total / count if count else float("nan")


def _slabs(mask: Mask) -> Iterator[tuple[Box, OtherMask]]:
    """Yield slabs that hold the voxels of the mask: where their windows lie in the image, and the voxels of the mask in them."""
    inner = mask[tuple(slice(MARGIN, max(side - MARGIN, MARGIN)) for side in mask.shape)]
    first, last = _extent(inner, 0)
    for start in range(first, last, _SLAB):
        slab = inner[start : min(start + _SLAB, last)]
        (y0, y1), (z0, z1) = _extent(slab, 1), _extent(slab, 2)
        # A voxel of `inner` has its window at the same indices of the image and the six after them.
        near = slice(start, start + len(slab) + 2 * MARGIN), slice(y0, y1 + 2 * MARGIN), slice(z0, z1 + 2 * MARGIN)
        yield near, slab[:, y0:y1, z0:z1]


def _extent(mask: OtherMask, axis: int) -> tuple[int, int]:
    """First index and the one after the last along one axis at which the mask has voxels; (0, 0) for none."""
    used = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
    return (int(used[0]), int(used[-1]) + 1) if used.size else (0, 0)


def _ssim_map(x: Array, y: Array, data_range: float) -> OtherArray:
    """Wang et al. 2004, eq. 13, with sample covariances, for every window that fits.

    Numerator and denominator are both multiplied by n³ (n - 1), n voxels a window, so that sums take the place of means.
    """
    n = WINDOW**3
    c1, c2 = n**2 * (K1 * data_range) ** 2, n * (n - 1) * (K2 * data_range) ** 2
    sum_x, sum_y = _window_sum(x), _window_sum(y)
    covariances, variances = _window_sum(x * y), _window_sum(x * x + y * y)
    # In place, because fresh memory would take longer than the arithmetic.
    products = 2 * sum_x
    products *= sum_y
    squares = np.square(sum_x, out=sum_x)
    squares += np.square(sum_y, out=sum_y)
    covariances *= 2 * n
    covariances += c2 - products
    variances *= n
    variances += c2 - squares
    products += c1
    products *= covariances
    squares += c1
    squares *= variances
    products /= squares
    return products


def _window_sum(array: Array) -> OtherArray:
    """Sum over every 7³ window that fits: 7 = 2 + 2 + 2 + 1 needs four additions an axis."""
    for axis in range(3):
        a = np.moveaxis(array, axis, 0)
        twos = a[:-1] + a[1:]
        sums = twos[:-5] + twos[2:-3]
        sums += twos[4:-1]
        sums += a[6:]
        array = np.moveaxis(sums, 0, axis)
    return array


def _halved(array: Array) -> OtherArray:
    """Every other voxel of the image filtered by a 2³ box that reaches back one voxel, and finds 0 before the first."""
    for axis in range(3):
        a = np.moveaxis(array, axis, 0)
        result = a[::2] / 2
        result[1:] += a[1:-1:2] / 2
        array = np.moveaxis(result, 0, axis)
    return array
