import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transmodal.evaluation import metrics
from transmodal.evaluation.agreement import Agreement, pool

LIMITS = (-1024.0, 3072.0)


def draw(seed):
    rng = np.random.default_rng(seed)
    true = rng.uniform(-1500, 3500, (9, 10, 11))
    return true, true + rng.normal(20, 90, true.shape), rng.random(true.shape) < 0.6


@given(st.integers(0, 10_000))
def test_sums_are_those_of_the_voxels(seed):
    true, made, mask = draw(seed)
    found = Agreement.of(true, made, mask, LIMITS)
    assert found.voxels.sum() == mask.sum()
    assert found.bias == pytest.approx(metrics.mean_error(true, made, mask))
    assert found.absolute_errors.sum() / mask.sum() == pytest.approx(metrics.mae(true, made, mask))
    difference = (made - true)[mask]
    spread = 1.96 * difference.std(ddof=1)
    assert found.limits_of_agreement == pytest.approx((difference.mean() - spread, difference.mean() + spread))


def test_counts_are_a_histogram_with_what_lies_beyond_at_its_ends():
    true, made, mask = draw(0)
    found = Agreement.of(true, made, mask, LIMITS)
    edges = found.edges.copy()
    clipped = [np.clip(values[mask], LIMITS[0], LIMITS[1]) for values in (true, made)]
    np.testing.assert_array_equal(found.counts, np.histogram2d(*clipped, bins=(edges, edges))[0])


def test_cases_add_up():
    first, second = (draw(seed) for seed in (1, 2))
    together = pool([Agreement.of(*case, LIMITS) for case in (first, second)])
    assert together is not None
    apart = Agreement.of(*(np.concatenate(pair) for pair in zip(first, second, strict=True)), LIMITS)
    np.testing.assert_array_equal(together.counts, apart.counts)
    assert together.limits_of_agreement == pytest.approx(apart.limits_of_agreement)
    assert pool([]) is None


def test_bins_taken_together_keep_their_means():
    true = np.array([[[0.0, 10, 100, 100]]])
    made = true + np.array([[[5.0, -5, 30, 10]]])
    found = Agreement.of(true, made, np.ones(true.shape, dtype=bool), (0.0, 256.0))
    middles, errors, sizes = found.rebinned(16)
    np.testing.assert_allclose(middles, [8, 104])
    np.testing.assert_allclose(errors, [0, 20])
    np.testing.assert_allclose(sizes, [5, 20])


def test_without_voxels_nothing_is_defined():
    true, made, mask = draw(3)
    found = Agreement.of(true, made, np.zeros_like(mask), LIMITS)
    assert np.isnan(found.bias) and np.isnan(found.limits_of_agreement).all()
    assert not found.rebinned(4)[0].size
