import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from transmodal.evaluation import metrics

SHAPE = (4, 3, 5)
EVERYWHERE = np.ones(SHAPE, dtype=bool)
NOWHERE = np.zeros(SHAPE, dtype=bool)
images = arrays(np.float64, SHAPE, elements=st.floats(-3000, 5000, width=32))
masks = arrays(np.bool_, SHAPE)


def test_golden_values(golden):
    reference, prediction, mask = golden
    assert np.count_nonzero(mask) == 381915
    assert metrics.mae(reference, prediction, mask) == pytest.approx(25.2468246, abs=1e-6)
    assert metrics.psnr_db(reference, prediction, mask, (-1024.0, 3000.0)) == pytest.approx(42.7984750, abs=1e-6)
    assert metrics.psnr_db(reference, prediction, mask, (-1024.0, 3071.0)) == pytest.approx(42.9503936, abs=1e-6)


@given(images, images, masks)
def test_mae_is_symmetric_and_bounds_the_bias(reference, prediction, mask):
    error = metrics.mae(reference, prediction, mask)
    assert error == metrics.mae(prediction, reference, mask) or not mask.any()
    if mask.any():
        assert abs(metrics.mean_error(reference, prediction, mask)) <= error * (1 + 1e-12)


@given(images, st.floats(-1000, 1000), masks)
def test_a_shift_is_the_bias(reference, shift, mask):
    if mask.any():
        assert metrics.mean_error(reference, reference + shift, mask) == pytest.approx(shift, abs=1e-9)
        assert metrics.mae(reference, reference + shift, mask) == pytest.approx(abs(shift), abs=1e-9)


@given(images, images, images, masks)
def test_what_lies_outside_the_mask_does_not_count(reference, prediction, other, mask):
    changed = np.where(mask, prediction, other)
    for metric in (metrics.mae, metrics.mean_error, metrics.pearson_r, lambda *a: metrics.psnr_db(*a, clip=(-1024.0, 3000.0))):
        assert metric(reference, prediction, mask) == pytest.approx(metric(reference, changed, mask), nan_ok=True)


@given(images, masks)
def test_a_perfect_prediction(image, mask):
    if mask.any():
        assert metrics.mae(image, image, mask) == 0
        assert metrics.psnr_db(image, image, mask, (-1024.0, 3000.0)) == math.inf


def test_psnr_knows_nothing_beyond_the_clip_range():
    low, high = np.full(SHAPE, -5000.0), np.full(SHAPE, -1024.0)
    assert metrics.psnr_db(low, high, EVERYWHERE, (-1024.0, 3000.0)) == math.inf
    assert metrics.psnr_db(np.zeros(SHAPE), np.full(SHAPE, 40.24), EVERYWHERE, (-1024.0, 3000.0)) == pytest.approx(40.0)


def test_stored_integers_do_not_overflow():
    low, high = np.full(SHAPE, -32768, dtype=np.int16), np.full(SHAPE, 32767, dtype=np.int16)
    assert metrics.mae(low, high, EVERYWHERE) == 65535
    assert metrics.psnr_db(low, high, EVERYWHERE, (-32768.0, 32767.0)) == 0


def test_empty_masks_give_nan():
    image = np.zeros(SHAPE)
    assert math.isnan(metrics.mae(image, image, NOWHERE))
    assert math.isnan(metrics.mean_error(image, image, NOWHERE))
    assert math.isnan(metrics.psnr_db(image, image, NOWHERE, (0.0, 1.0)))
    assert math.isnan(metrics.pearson_r(image, image, NOWHERE))


def test_correlation_of_a_line_is_one_and_of_a_constant_undefined():
    ramp = np.arange(60.0).reshape(SHAPE)
    assert metrics.pearson_r(ramp, 3 * ramp - 7, EVERYWHERE) == pytest.approx(1)
    assert metrics.pearson_r(ramp, -ramp, EVERYWHERE) == pytest.approx(-1)
    assert math.isnan(metrics.pearson_r(ramp, np.ones(SHAPE), EVERYWHERE))


@given(masks, masks)
def test_dice_is_symmetric_and_one_only_for_equals(first, second):
    value = metrics.dice(first, second)
    if not (first.any() or second.any()):
        assert math.isnan(value)
    else:
        assert 0 <= value <= 1
        assert value == metrics.dice(second, first)
        assert (value == 1) == np.array_equal(first, second)


def test_dice_of_half_an_overlap():
    first, second = NOWHERE.copy(), NOWHERE.copy()
    first[0, 0, :2] = second[0, 0, 1:3] = True
    assert metrics.dice(first, second) == 0.5


@given(images, images, masks)
def test_the_mean_squared_error_is_that_of_the_psnr(reference, prediction, mask):
    value = metrics.mse(reference, prediction, mask)
    if not mask.any():
        assert math.isnan(value)
    elif value > 0:
        assert metrics.psnr_unclipped_db(reference, prediction, mask, peak=10.0) == pytest.approx(10 * np.log10(100 / value))
        assert metrics.mae(reference, prediction, mask) ** 2 <= value * (1 + 1e-9)


levels = arrays(np.float64, SHAPE, elements=st.sampled_from([0.0, 1.0, 1.5, 2.0, 3.0, 4.0]))


@given(levels, levels, masks)
def test_overlap_over_thresholds_is_the_mean_of_the_overlaps(reference, prediction, mask):
    thresholds = np.array([1.0, 2.0, 3.0])
    found = metrics.overlap_over_thresholds(reference, prediction, mask, thresholds)
    for value, metric in zip(found, (metrics.dice, metrics.precision, metrics.recall), strict=True):
        each = np.array([metric(mask & (reference >= t), mask & (prediction >= t)) for t in thresholds])
        defined = each[~np.isnan(each)]
        assert value == pytest.approx(defined.mean() if defined.size else math.nan, nan_ok=True)
