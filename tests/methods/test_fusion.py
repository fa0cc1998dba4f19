import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transmodal.core.volume import Volume
from transmodal.methods.fusion import UNKNOWN_HU, Candidate, fuse, local_correlation

SHAPE = (6, 7, 8)


def candidate(hu, covered=None, mr=None, bone=False) -> Candidate:
    return Candidate(
        mr=np.zeros(SHAPE, np.float32) if mr is None else mr,
        ct=np.full(SHAPE, hu, np.int16),
        bone=np.full(SHAPE, bone),
        covered=np.ones(SHAPE, bool) if covered is None else covered,
    )


def scan(array=None) -> Volume:
    return Volume(np.zeros(SHAPE, np.float32) if array is None else array, np.eye(4), "mr")


def test_mean_median_and_spread_are_those_of_the_numbers():
    candidates = [candidate(0), candidate(10), candidate(110)]
    mean, median = (fuse(candidates, kind, scan(), 3.0) for kind in ("mean", "median"))
    np.testing.assert_allclose(mean.ct, 40)
    np.testing.assert_allclose(median.ct, 10)
    np.testing.assert_allclose(mean.sd, np.std([0, 10, 110]), rtol=1e-5)
    np.testing.assert_allclose(fuse(candidates[:2], "median", scan(), 3.0).ct, 5)


@pytest.mark.parametrize("kind", ["mean", "median", "local_similarity"])
def test_an_atlas_has_no_say_where_it_has_not_been(kind):
    left = np.zeros(SHAPE, bool)
    left[:2] = True
    middle = np.zeros(SHAPE, bool)
    middle[:4] = True
    fused = fuse([candidate(100, left), candidate(200, middle)], kind, scan(), 3.0)
    assert ((fused.ct[:2] > 100) & (fused.ct[:2] < 200)).all()
    np.testing.assert_allclose(fused.ct[2:4], 200)
    np.testing.assert_allclose(fused.ct[4:], UNKNOWN_HU)
    np.testing.assert_array_equal(fused.covered, middle)


def test_bone_is_where_any_atlas_has_it():
    assert fuse([candidate(0), candidate(0, bone=True)], "mean", scan(), 3.0).bone.all()
    assert not fuse([candidate(0), candidate(0)], "mean", scan(), 3.0).bone.any()


def test_whose_mr_looks_most_alike_counts_most_there():
    rng = np.random.default_rng(0)
    shape = (40, 12, 12)
    mr, other = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    left = np.arange(40)[:, None, None] < 20
    one, two = np.where(left, mr, other), np.where(left, other, mr)
    everywhere = np.ones(shape, bool)
    candidates = [
        Candidate(2 * one + 5, np.zeros(shape, np.int16), ~everywhere, everywhere),
        Candidate(two, np.full(shape, 100, np.int16), ~everywhere, everywhere),
    ]
    fused = fuse(candidates, "local_similarity", Volume(mr, np.eye(4), "mr"), 2.0)
    share = np.exp(-0.5) / (1 + np.exp(-0.5))  # of who comes second
    np.testing.assert_allclose(fused.ct[:14], 100 * share, rtol=1e-4)
    np.testing.assert_allclose(fused.ct[26:], 100 * (1 - share), rtol=1e-4)


def test_the_local_correlation_is_that_of_the_weighted_window():
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=(2, 17, 17, 17))
    steps = np.arange(-8, 9)
    along = np.where(np.abs(steps) <= 6, np.exp(-(steps**2) / 8), 0)  # sigma 2, cut off at three of them
    window = along[:, None, None] * along[:, None] * along
    window /= window.sum()
    first, second = one - (window * one).sum(), other - (window * other).sum()
    expected = (window * first * second).sum() / np.sqrt((window * first**2).sum() * (window * second**2).sum())
    assert local_correlation(one, other, [2.0] * 3)[8, 8, 8] == pytest.approx(expected, rel=1e-6)


@given(st.floats(0.1, 1e4), st.floats(-1e4, 1e4))
def test_the_local_correlation_does_not_depend_on_units(gain, offset):
    rng = np.random.default_rng(2)
    one, other = rng.normal(size=(2, 9, 9, 9))
    expected = local_correlation(one, other, [1.5] * 3)
    np.testing.assert_allclose(local_correlation(gain * one + offset, other, [1.5] * 3), expected, atol=1e-5)
    np.testing.assert_allclose(local_correlation(one, -other, [1.5] * 3), -expected, atol=1e-5)
