"""SSIM and MS-SSIM against the challenges' values, scikit-image, and the protocol written out term by term."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter
from scipy.signal import convolve
from skimage.metrics import structural_similarity

from transmodal.evaluation.similarity import SCALE_WEIGHTS, ms_ssim_synthrad2025, ssim_synthrad2023

CORE = (slice(3, -3),) * 3


def random_case(seed: int, shape: tuple[int, int, int], density: float = 0.6):
    rng = np.random.default_rng(seed)
    reference = rng.uniform(-1500, 3500, shape)
    prediction = reference + rng.normal(0, rng.choice([5, 200, 2000]), shape)
    return reference.astype(np.float32), prediction.astype(np.float32), rng.uniform(size=shape) < density


def prepared(image: np.ndarray, mask: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.where(mask, np.clip(image.astype(np.float64), low, high) - low, 0)


def expected_ssim(reference: np.ndarray, prediction: np.ndarray, mask: np.ndarray) -> float:
    x, y = (prepared(image, mask, -1024, 3000) for image in (reference, prediction))
    return structural_similarity(x, y, data_range=4024, full=True)[1][CORE][mask[CORE]].mean()


def expected_ms_ssim(reference: np.ndarray, prediction: np.ndarray, mask: np.ndarray) -> float:
    """The protocol term by term, with scipy's filters over the whole image."""
    padding = [(max(97 - n, 0) // 2, max(97 - n, 0) - max(97 - n, 0) // 2) for n in mask.shape]
    x, y = (np.pad(prepared(image, mask, -1024, 3071), padding, mode="edge") for image in (reference, prediction))
    mask = np.pad(mask, padding, mode="edge")
    c1, c2 = (0.01 * 4095) ** 2, (0.03 * 4095) ** 2
    result = 1.0
    for weight in SCALE_WEIGHTS:
        mean_x, mean_y = uniform_filter(x, 7), uniform_filter(y, 7)
        var_x, var_y, covariance = (
            (uniform_filter(product, 7) - means) * 343 / 342
            for product, means in ((x * x, mean_x**2), (y * y, mean_y**2), (x * y, mean_x * mean_y))
        )
        deviations = np.sqrt(var_x.clip(0)) * np.sqrt(var_y.clip(0))
        luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
        contrast = (2 * deviations + c2) / (var_x + var_y + c2)
        structure = (covariance + c2 / 2) / (deviations + c2 / 2)
        terms = (term.clip(0) ** weight for term in (luminance, contrast, structure))
        result *= np.clip(math.prod(terms)[CORE][mask[CORE]].mean(), 0, 1)
        x, y = (convolve(image, np.full((2, 2, 2), 1 / 8), mode="same", method="direct")[::2, ::2, ::2] for image in (x, y))
        mask = mask[::2, ::2, ::2]
    return result


def test_golden_values(golden):
    assert ssim_synthrad2023(*golden) == pytest.approx(0.9793586, abs=1e-6)
    assert ms_ssim_synthrad2025(*golden) == pytest.approx(0.9975696, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.tuples(*[st.integers(7, 21)] * 3))
def test_ssim_is_that_of_scikit_image(seed, shape):
    case = random_case(seed, shape)
    if case[2][CORE].any():
        assert ssim_synthrad2023(*case) == pytest.approx(expected_ssim(*case), abs=1e-9)


@pytest.mark.parametrize("shape", [(20, 33, 41), (98, 40, 99)])
def test_ms_ssim_is_the_protocol_term_by_term(shape):
    case = random_case(7, shape, density=0.98)
    assert ms_ssim_synthrad2025(*case) == pytest.approx(expected_ms_ssim(*case), abs=1e-9)


def test_the_order_in_memory_does_not_matter():
    case = random_case(3, (15, 18, 12))
    for axes in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        turned = [np.asfortranarray(array.transpose(axes)) for array in case]
        assert ssim_synthrad2023(*turned) == pytest.approx(ssim_synthrad2023(*case), abs=1e-12)
    assert ssim_synthrad2023(case[0][::-1], case[1][::-1], case[2][::-1]) == pytest.approx(ssim_synthrad2023(*case), abs=1e-12)


def test_symmetric_and_one_for_a_perfect_prediction():
    reference, prediction, mask = random_case(5, (20, 20, 20))
    for metric in (ssim_synthrad2023, ms_ssim_synthrad2025):
        assert metric(reference, prediction, mask) == pytest.approx(metric(prediction, reference, mask))
        assert metric(reference, reference, mask) == pytest.approx(1)
        assert metric(reference, prediction, mask) < 1


def test_what_lies_outside_the_mask_does_not_count():
    reference, prediction, mask = random_case(6, (20, 20, 20), density=0.9)
    for metric in (ssim_synthrad2023, ms_ssim_synthrad2025):
        assert metric(reference, np.where(mask, prediction, 900), mask) == metric(reference, prediction, mask)


def test_constant_images_are_compared_by_luminance():
    mask = np.ones((9, 9, 9), dtype=bool)
    first, second, c1 = 100.0, 300.0, 40.24**2
    x, y = first + 1024, second + 1024
    value = ssim_synthrad2023(np.full(mask.shape, first), np.full(mask.shape, second), mask)
    assert value == pytest.approx((2 * x * y + c1) / (x * x + y * y + c1))


@pytest.mark.parametrize("shape", [(6, 20, 20), (20, 20, 20)])
def test_no_whole_window_gives_nan(shape):
    mask = np.zeros(shape, dtype=bool)
    mask[:3] = True
    assert math.isnan(ssim_synthrad2023(np.zeros(shape), np.zeros(shape), mask))
    assert math.isnan(ms_ssim_synthrad2025(np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=bool)))


def test_a_mask_in_two_pieces():
    reference, prediction, mask = random_case(8, (40, 12, 13))
    mask[8:32] = False
    assert ssim_synthrad2023(reference, prediction, mask) == pytest.approx(expected_ssim(reference, prediction, mask), abs=1e-9)
