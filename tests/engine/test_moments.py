import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from transmodal.engine.moments import Moments


@given(st.lists(st.integers(-3000, 3000), min_size=1, max_size=9))
def test_running_moments_are_those_of_all(values):
    found = Moments()
    for value in values:
        found.add(np.full((2, 1, 1), value, dtype=np.float32))
    assert found.count == len(values)
    np.testing.assert_allclose(found.mean, np.mean(values), rtol=1e-5, atol=1e-2)
    np.testing.assert_allclose(found.sd, np.std(values), rtol=1e-4, atol=1e-1)
    assert found.mean.shape == found.sd.shape == (2, 1, 1)


def test_one_array_is_its_own_mean_and_has_no_spread():
    array = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    found = Moments()
    found.add(array)
    np.testing.assert_array_equal(found.mean, array)
    assert not found.sd.any()
