import sys

import numpy as np
import pytest

from small_cases import case_of, volume
from transmodal.core.errors import ConfigError
from transmodal.evaluation.dose import DOSE, dose_protocol, require_gamma
from transmodal.evaluation.protocol import score

SHAPE = (16, 9, 8)


def case(true: np.ndarray, found: np.ndarray):
    ct = volume(np.zeros(SHAPE), spacing=2.0)
    return case_of(ct, ct, reference_dose=ct.with_array(true, "dose"), prediction_dose=ct.with_array(found, "dose"))


def field() -> np.ndarray:
    """2 Gy in a slab, falling to 0 over three voxels on either side."""
    outside = np.abs(np.arange(16) - 7.5) - 2.5
    return np.broadcast_to(2 * np.clip(1 - outside / 3, 0, 1)[:, None, None], SHAPE)


@pytest.fixture
def gamma():
    pytest.importorskip("pymedphys", reason="the extra dose is not installed")


def test_the_same_dose_has_no_error_and_passes(gamma):
    assert score(case(field(), field()), DOSE).values == {"mae_target": 0, "gamma_pass": 1}


def test_the_error_is_relative_to_the_prescription_and_only_of_the_target(gamma):
    found = np.where(field() >= 1.8, field() + 0.03, 0.5)
    assert score(case(field(), found), DOSE).values["mae_target"] == pytest.approx(0.015)
    assert score(case(30 * field(), 30 * found), dose_protocol(60.0)).values["mae_target"] == pytest.approx(0.015)


def test_gamma_forgives_2_percent_of_the_prescription_and_no_more(gamma):
    flat = np.full(SHAPE, 2.0)
    assert score(case(flat, flat + 0.039), DOSE).values["gamma_pass"] == 1
    assert score(case(flat, flat + 0.041), DOSE).values["gamma_pass"] == 0
    half = np.where(np.arange(16)[:, None, None] < 8, flat, 0.1)  # below a tenth of the prescription nothing is asked for
    assert score(case(half, np.where(half < 1, 2.0, half)), DOSE).values["gamma_pass"] == 1


def test_gamma_forgives_a_shift_of_2_mm_and_not_of_4(gamma):
    """On a ramp of 5 % of the prescription in a voxel of 2 mm; what the first plane would have to be is outside the grid."""
    ramp = np.broadcast_to(0.4 + 0.1 * np.arange(16.0)[:, None, None], SHAPE)
    near, far = (score(case(ramp, ramp + 0.1 * voxels), DOSE).values["gamma_pass"] for voxels in (1, 2))
    assert near == pytest.approx(15 / 16)
    assert far == 0


def test_too_little_dose_gives_reasons(gamma):
    scores = score(case(np.zeros(SHAPE), np.zeros(SHAPE)), DOSE)
    assert scores.values == {"mae_target": None, "gamma_pass": None}
    assert scores.reasons["mae_target"] == "the true dose is nowhere 90 % of the prescription"
    assert score(case(field() / 2, field() / 2), DOSE).values == {"mae_target": None, "gamma_pass": 1}


def test_without_the_extra_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymedphys", None)
    with pytest.raises(ConfigError, match=r'pip install "transmodal\[dose\]"'):
        require_gamma()
    assert DOSE.require is require_gamma


@pytest.mark.parametrize("dose", [0.0, -2.0, float("nan")])
def test_a_prescription_is_above_0(dose):
    with pytest.raises(ConfigError, match="--prescription-gy"):
        dose_protocol(dose)
