import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transmodal.evaluation.statistics import Summary, summarize


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
