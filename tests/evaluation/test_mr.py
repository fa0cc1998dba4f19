import numpy as np
import pytest

from small_cases import SHAPE, case_of, noisy_case, volume
from transmodal.evaluation.mr import MR
from transmodal.evaluation.protocol import score


def test_mr_scores_do_not_depend_on_the_unit_of_the_mr():
    case = noisy_case("mr")
    scaled = [image.with_array(3.0 * image.array + 40) for image in (case.reference, case.prediction)]
    assert score(case_of(*scaled), MR).values == pytest.approx(score(case, MR).values)


def test_a_constant_mr_has_no_grey_levels():
    flat = volume(np.full(SHAPE, 7.0), "mr")
    scores = score(case_of(flat, flat), MR)
    assert set(scores.values.values()) == {None}
    assert set(scores.reasons.values()) == {"the mask is empty or the real MR is constant in it"}
