import math
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from transmodal.evaluation.statistics import (
    CONSTANT_DIFFERENCE,
    NO_DIFFERENCE,
    NO_SPREAD,
    TOO_FEW,
    TOO_FEW_TO_RESAMPLE,
    Interval,
    Summary,
    bootstrap_interval,
    compare,
    holm,
    mean_interval,
    summarize,
)

# Table 1 of the unpaired CycleGAN paper: MAE of its six patients.
UNPAIRED, PAIRED = [70.3, 76.2, 75.5, 75.2, 72.0, 73.0], [86.2, 98.8, 96.9, 86.0, 81.7, 87.0]

finite = st.floats(-1e3, 1e3).map(lambda value: round(value, 3))


@given(st.lists(st.floats(-1e6, 1e6), min_size=2))
def test_agrees_with_numpy(values):
    summary = summarize(values)
    assert summary.mean == pytest.approx(np.mean(values))
    assert summary.sd == pytest.approx(np.std(values, ddof=1), abs=1e-6)
    assert summary.median == pytest.approx(np.median(values))


def test_missing_values_are_counted_and_left_out():
    assert summarize([1.0, None, 3.0]) == Summary(cases=2, left_out=1, mean=2.0, sd=2**0.5, median=2.0)


def test_too_few_values_have_no_statistics():
    assert summarize([4.0]) == Summary(cases=1, left_out=0, mean=4.0, sd=None, median=4.0)
    assert summarize([None]) == Summary(cases=0, left_out=1, mean=None, sd=None, median=None)


@given(st.lists(finite, min_size=2, max_size=30))
def test_the_interval_of_the_mean_is_that_of_the_t_distribution(values):
    assume(np.ptp(values) > 0.01)
    found = mean_interval(values)
    expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected)


def test_an_interval_by_hand():
    """Mean 5 and s = 1 of four values: 5 ± 3.18245 / 2."""
    found = mean_interval([5 - math.sqrt(0.75), 5 - math.sqrt(0.75), 5 + math.sqrt(0.75), 5 + math.sqrt(0.75)])
    assert (found.low, found.high) == pytest.approx((5 - 1.591223, 5 + 1.591223))


def test_the_bootstrap_is_that_of_scipy_and_the_same_for_the_same_seed():
    found = bootstrap_interval(UNPAIRED, seed=3)
    expected = stats.bootstrap((UNPAIRED,), np.mean, n_resamples=9999, method="BCa", rng=np.random.default_rng(3)).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert bootstrap_interval(UNPAIRED, seed=3) == found
    assert min(UNPAIRED) <= found.low < np.mean(UNPAIRED) < found.high <= max(UNPAIRED)


@pytest.mark.parametrize(
    ("interval", "few", "reason"), [(mean_interval, [1.0], TOO_FEW), (bootstrap_interval, [1.0, 2.0, 4.0, 8.0], TOO_FEW_TO_RESAMPLE)]
)
def test_an_interval_that_cannot_be_has_a_reason(interval, few, reason):
    assert interval([]) == interval(few) == Interval(reason=reason)
    assert interval([0.1 + 0.2, 0.3, 0.3, 0.3, 0.3]) == Interval(reason=NO_SPREAD)


def test_four_cases_are_tested_but_not_resampled():
    found = compare([1.0, 2.0, 4.0, 8.0], [2.0, 4.0, 5.0, 8.5])
    assert found.p_t == pytest.approx(stats.ttest_rel([1.0, 2.0, 4.0, 8.0], [2.0, 4.0, 5.0, 8.5]).pvalue)
    assert found.bootstrap == Interval(reason=TOO_FEW_TO_RESAMPLE)


@settings(max_examples=15)  # each has a bootstrap
@given(st.lists(st.tuples(finite, finite), min_size=3, max_size=20))
def test_the_tests_are_those_of_scipy(pairs):
    first, second = (np.array(values) for values in zip(*pairs, strict=True))
    changed = (first - second)[first != second]
    assume(len(changed) and np.ptp(first - second) > 0.01)
    found = compare(first.tolist(), second.tolist())
    assert found.p_t == pytest.approx(stats.ttest_rel(first, second).pvalue)
    assert found.p_wilcoxon == pytest.approx(stats.wilcoxon(changed).pvalue)
    # The t statistic is the effect size times the root of the number of cases.
    assert found.cohen_dz == pytest.approx(stats.ttest_rel(first, second).statistic / math.sqrt(len(pairs)))
    assert -1 <= found.rank_biserial <= 1


@settings(max_examples=15)
@given(st.lists(st.tuples(finite, finite), min_size=3, max_size=12))
def test_swapping_the_two_turns_the_signs_and_leaves_the_p_values(pairs):
    first, second = (list(values) for values in zip(*pairs, strict=True))
    one, two = compare(first, second), compare(second, first)
    assert (one.p_t, one.p_wilcoxon) == (pytest.approx(two.p_t), pytest.approx(two.p_wilcoxon))
    for name in ("difference", "cohen_dz", "rank_biserial"):
        value, swapped = getattr(one, name), getattr(two, name)
        assert (value is None and swapped is None) or value == pytest.approx(-swapped)


def test_a_comparison_by_hand():
    """Differences 1, -2, 3, 0, 4: mean 1.2, s = √5.7; ranks of those that are not 0 are 1 to 4, of which 2 is of a negative one."""
    found = compare([2.0, 1.0, 5.0, 7.0, 8.0], [1.0, 3.0, 2.0, 7.0, 4.0])
    assert found.cases == 5
    assert found.difference == pytest.approx(1.2)
    assert found.cohen_dz == pytest.approx(1.2 / math.sqrt(5.7))
    assert found.rank_biserial == pytest.approx((1 + 3 + 4 - 2) / 10)
    assert found.p_wilcoxon == pytest.approx(6 / 16)  # of 16 sets of signs, 3 have a negative rank sum of at most 2, and 3 a positive one
    assert found.reasons == {}


def test_the_paired_t_test_of_the_unpaired_cyclegan_paper_comes_out_as_printed():
    found = compare(UNPAIRED, PAIRED)
    assert found.p_t < 0.05
    assert found.p_wilcoxon == 2 / 2**6  # all six differences have the same sign
    assert found.rank_biserial == -1


def test_two_that_are_the_same_cannot_be_tested():
    found = compare(UNPAIRED, UNPAIRED)
    assert found.difference == 0
    assert (found.p_t, found.p_wilcoxon, found.cohen_dz, found.rank_biserial) == (None, None, None, None)
    assert set(found.reasons.values()) == {NO_DIFFERENCE}
    assert found.interval.reason == found.bootstrap.reason == NO_SPREAD


def test_a_constant_difference_has_ranks_but_no_spread():
    found = compare([1.1, 2.1, 3.1], [1.0, 2.0, 3.0])
    assert (found.p_t, found.cohen_dz) == (None, None)
    assert (found.p_wilcoxon, found.rank_biserial) == (0.25, 1.0)
    assert found.reasons == {"p_t": CONSTANT_DIFFERENCE, "cohen_dz": CONSTANT_DIFFERENCE}


def test_fewer_than_two_cases_cannot_be_tested():
    assert compare([], []).difference is None
    found = compare([1.0], [3.0])
    assert (found.cases, found.difference, found.p_t) == (1, -2.0, None)
    assert set(found.reasons.values()) == {TOO_FEW}


def test_holm_by_hand():
    """Sorted: 0.01 · 3, 0.03 · 2, 0.04 · 1 which may not be below the one before."""
    assert holm([0.04, None, 0.01, 0.03]) == [pytest.approx(0.06), None, pytest.approx(0.03), pytest.approx(0.06)]
    assert holm([]) == []
    assert holm([None]) == [None]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_holm_never_lowers_and_never_exceeds_bonferroni(values):
    with patch("gc.collect"):  # statsmodels calls it every time, which takes most of a second in a large process
        found = holm(values)
    for raw, adjusted in zip(values, found, strict=True):
        assert raw - 1e-12 <= adjusted <= min(1.0, raw * len(values)) + 1e-12
