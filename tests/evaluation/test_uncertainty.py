import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from small_cases import case_of, column, volume
from transmodal.core.errors import DataError
from transmodal.evaluation.protocol import score
from transmodal.evaluation.uncertainty import UNCERTAINTY, half_width, spearman_r


def case(errors, sd):
    reference = column(*[40.0] * len(errors))
    return case_of(reference, column(*(40.0 + e for e in errors)), prediction_uncertainty=column(*sd, modality="uncertainty"))


def test_the_intervals_are_those_of_a_normal_distribution():
    assert half_width(0.68) == pytest.approx(0.994458)
    assert half_width(0.95) == pytest.approx(1.959964)


def test_coverage_is_the_share_of_voxels_whose_error_is_within():
    scores = score(case([0, 9, -15, 30], [10, 10, 10, 10]), UNCERTAINTY)  # 0, 0.9, 1.5 and 3 standard deviations
    assert scores.details == {"coverage_68": 0.5, "coverage_95": 0.75}
    assert scores.values["coverage_excess_68"] == pytest.approx(-0.18)
    assert scores.values["coverage_excess_95"] == pytest.approx(-0.20)
    assert scores.values["width_95_hu"] == pytest.approx(39.19928)
    assert scores.reasons == {"spearman_r": "the uncertainty or the error is the same in every voxel of the mask"}


def test_a_true_uncertainty_covers_what_it_says_and_follows_the_error():
    rng = np.random.default_rng(0)
    sd = rng.uniform(5, 100, (40, 40, 40))
    reference = volume(np.zeros(sd.shape))
    beside = {"prediction_uncertainty": volume(sd, "uncertainty")}
    values = score(case_of(reference, rng.normal(0, sd), **beside), UNCERTAINTY).values
    assert values["coverage_excess_68"] == pytest.approx(0, abs=0.01)
    assert values["coverage_excess_95"] == pytest.approx(0, abs=0.01)
    assert values["spearman_r"] > 0.3
    certain = score(case_of(reference, reference, **beside), UNCERTAINTY)
    assert certain.details == {"coverage_68": 1, "coverage_95": 1}


def test_no_uncertainty_covers_only_what_is_right():
    assert score(case([0, 1, 0, 5], [0, 0, 0, 0]), UNCERTAINTY).details == {"coverage_68": 0.5, "coverage_95": 0.5}


def test_a_standard_deviation_below_0_is_refused():
    with pytest.raises(DataError, match="-1 HU"):
        score(case([0, 1], [-1, 1]), UNCERTAINTY)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=30))
def test_the_rank_correlation_is_that_of_scipy(pairs):
    first, second = np.array(pairs, dtype=np.float64).T
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        assert math.isnan(spearman_r(first, second))
    else:
        assert spearman_r(first, second) == pytest.approx(spearmanr(first, second).statistic)
