import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transmodal.core.errors import DataError
from transmodal.core.volume import Volume
from transmodal.imaging.intensity import IntensityMap, PercentileIntensity, SliceIntensity, WindowIntensity, ZScoreIntensity, measure


def volumes(values, mask):
    return Volume(np.array(values, np.float32).reshape(-1, 1, 1), np.eye(4), "mr"), Volume(
        np.array(mask, bool).reshape(-1, 1, 1), np.eye(4), "mask"
    )


def test_statistics_are_those_inside_the_mask():
    statistics = measure(*volumes([1, 2, 3, 6, 1000], [1, 1, 1, 1, 0]))
    assert statistics.mean == 3
    assert statistics.sd == pytest.approx(np.std([1, 2, 3, 6]))
    assert statistics.percentile(50) == 2.5
    assert (statistics.percentile(0), statistics.percentile(100)) == (1, 6)


@pytest.mark.parametrize(("values", "mask", "message"), [([1, 2], [0, 0], "empty"), ([4, 4, 9], [1, 1, 0], "every voxel .* is 4")])
def test_nothing_to_measure(values, mask, message):
    with pytest.raises(DataError, match=message):
        measure(*volumes(values, mask))


@given(
    values=st.lists(st.floats(-2000, 4000, width=32), min_size=1, max_size=20),
    shift=st.floats(-1000, 1000),
    scale=st.floats(1, 3000),
    window=st.one_of(st.none(), st.tuples(st.floats(-1500, 0), st.floats(1, 3000))),
)
def test_inverse_undoes_forward_up_to_clipping(values, shift, scale, window):
    lower, upper = window or (None, None)
    there = IntensityMap(shift=shift, scale=scale, lower=lower, upper=upper)
    array = np.array(values, np.float32)
    expected = array if window is None else np.clip(array, *window)
    np.testing.assert_allclose(there.inverse(there.forward(array)), expected, atol=2e-3)


def test_a_window_goes_to_minus_one_and_one():
    statistics = measure(*volumes([1, 2, 3], [1, 1, 1]))
    window = WindowIntensity(lower=-1024, upper=3071).fit(statistics)
    np.testing.assert_allclose(window.forward(np.array([-2000.0, -1024, 1023.5, 3071, 9000])), [-1, -1, 0, 1, 1])
    with pytest.raises(ValueError, match="must be less than"):
        WindowIntensity(lower=1, upper=1)
    with pytest.raises(ValueError, match="must be less than"):
        PercentileIntensity(lower=99, upper=1)


def test_zscore_has_mean_zero_and_sd_one():
    values = np.random.default_rng(0).normal(300, 40, 500)
    scaled = ZScoreIntensity().fit(measure(*volumes(values, np.ones(500)))).forward(values)
    assert scaled.mean() == pytest.approx(0, abs=1e-4)
    assert scaled.std() == pytest.approx(1, abs=1e-4)


def test_percentiles_shrug_off_spikes():
    values = np.concatenate([np.linspace(0, 100, 10001), [1e6]])
    fitted = PercentileIntensity(lower=0.5, upper=99.5).fit(measure(*volumes(values, np.ones(values.size))))
    np.testing.assert_allclose(fitted.forward(np.array([0.5, 50, 99.5, 1e6])), [-1, 0, 1, 1], atol=1e-3)
    with pytest.raises(DataError, match="no contrast"):
        PercentileIntensity().fit(measure(*volumes([0] * 999 + [1], np.ones(1000))))


def test_nothing_is_darker_than_the_floor_of_a_scan_that_was_cut_off_from_below():
    """Neither what was blanked around the head, nor the voxels at its edge that hold some of that."""
    head = np.linspace(0, 100, 10001)
    cut_off = np.concatenate([np.linspace(0, 12, 80), np.maximum(head, 12)])
    fitted = PercentileIntensity().fit(measure(*volumes(cut_off, np.ones(cut_off.size))))
    np.testing.assert_allclose(fitted.forward(np.array([0.0, 5.0, 12.0])), -1, atol=1e-6)
    assert fitted.forward(np.array([13.0]))[0] > -0.98
    as_it_is = measure(*volumes(head, np.ones(head.size)))
    assert as_it_is.floor == 0
    assert PercentileIntensity().fit(as_it_is).lower == pytest.approx(0.5)


def test_up_to_the_black_point_all_is_equally_dark():
    values = np.linspace(0, 200, 10001)
    fitted = PercentileIntensity(lower=0, upper=100, black_point=0.2).fit(measure(*volumes(values, np.ones(values.size))))
    np.testing.assert_allclose(fitted.forward(np.array([0.0, 39, 40, 120, 200])), [-1, -1, -1, 0, 1], atol=1e-6)


def test_a_power_spreads_out_what_is_dark_and_leaves_the_ends():
    values = np.linspace(0, 100, 10001)
    fitted = PercentileIntensity(lower=0, upper=100, power=0.5).fit(measure(*volumes(values, np.ones(values.size))))
    np.testing.assert_allclose(fitted.forward(np.array([-5.0, 0, 25, 64, 100, 200])), [-1, -1, 0, 0.6, 1, 1], atol=1e-6)
    np.testing.assert_allclose(fitted.inverse(fitted.forward(values)), values, atol=1e-3)
    made = np.array([-0.5, 0.0, 0.9], np.float32)
    expected = (fitted.inverse(made + 0.005) - fitted.inverse(made - 0.005)) / 0.01
    np.testing.assert_allclose(fitted.inverse_sd(np.ones(3, np.float32), made), expected, rtol=1e-3)
    with pytest.raises(ValueError, match="two limits"):
        IntensityMap(shift=0, scale=1, power=0.5)


def test_a_floor_that_is_the_whole_range_is_none():
    values = [0.0] * 10 + [5.0] * 985 + [9.0] * 5
    fitted = PercentileIntensity(lower=0, upper=99).fit(measure(*volumes(values, np.ones(1000))))
    assert (fitted.lower, fitted.upper) == (0, 5)


@pytest.mark.parametrize(("setting", "step"), [({"lower": 0, "upper": 255}, 1), ({"lower": -500, "upper": 1500}, 2000 / 255)])
def test_eight_bits_have_256_levels(setting, step):
    fitted = WindowIntensity(onto=(0, 1), levels=256, **setting).fit(measure(*volumes([1, 2], [1, 1])))
    values = np.linspace(setting["lower"], setting["upper"], 5000)
    grey = 255 * fitted.forward(values)
    np.testing.assert_allclose(grey, np.round(grey), atol=1e-4)
    assert len(np.unique(np.round(grey))) == 256
    assert np.abs(fitted.inverse(fitted.forward(values)) - values).max() <= step / 2 + 1e-3


@given(onto=st.tuples(st.floats(-8, 0), st.floats(1, 8)), levels=st.sampled_from([None, 2, 256]))
def test_the_limits_go_where_they_are_to_go(onto, levels):
    fitted = WindowIntensity(lower=-1024, upper=2048, onto=onto, levels=levels).fit(measure(*volumes([1, 2], [1, 1])))
    np.testing.assert_allclose(fitted.forward(np.array([-3000.0, -1024, 2048, 4000])), np.repeat(onto, 2), atol=1e-4)
    np.testing.assert_allclose(fitted.inverse(np.array(onto)), [-1024, 2048], atol=1e-2)


def test_limits_that_fall_are_refused():
    with pytest.raises(ValueError, match="must be less than the second"):
        WindowIntensity(lower=0, upper=1, onto=(1, 0))


def test_each_slice_has_a_range_of_its_own():
    fitted = SliceIntensity(onto=(0, 1)).fit(measure(*volumes([10, 20, 90], [1, 1, 1])))
    slices = np.array([[[0, 5], [10, 10]], [[30, 40], [50, 20]], [[7, 7], [7, 7]]])
    np.testing.assert_allclose(fitted.forward(slices), [[[0, 0.5], [1, 1]], [[1 / 3, 2 / 3], [1, 0]], [[0, 0], [0, 0]]], atol=1e-6)
    np.testing.assert_allclose(fitted.inverse(np.array([0.0, 0.5, 1])), [10, 50, 90])


def test_the_range_of_a_slice_does_not_depend_on_the_scanners_units():
    fitted = SliceIntensity(levels=256).fit(measure(*volumes([10, 20, 90], [1, 1, 1])))
    image = np.random.default_rng(0).normal(size=(3, 8, 9))
    np.testing.assert_allclose(fitted.forward(image), fitted.forward(7 * image + 3), atol=2 / 255 + 1e-4)
