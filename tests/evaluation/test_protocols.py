"""What holds for every protocol, and which identities hold for which."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from small_cases import SHAPE, case_of, full_case
from transmodal.core.errors import ConfigError
from transmodal.evaluation.protocol import IDENTICAL, Case, score
from transmodal.evaluation.protocols import PROTOCOLS, find_protocol

# These look at what else is there, and not at the mask.
WITHOUT_MASK = ("labels", "dose")
# This sums over the whole image.
BEYOND_MASK = (*WITHOUT_MASK, "mr-gan")
# What does not change when the two sides change places.
SYMMETRIC = {
    "synthrad2023": ("mae_hu", "psnr_db", "ssim"),
    "synthrad2025": ("mae_hu", "psnr_db", "ms_ssim"),
    "tissue": ("dice_bone",),
    "bone": ("dice_bone",),
    "labels": ("dice_mean", "hd95_mean_mm", "labels_in_one"),
    "multi-atlas": ("psnr_db", "mae_hu", "ssim", "pearson_r"),
    "cyclegan": ("mae_hu", "psnr_db"),
    "light-unet": ("mae_hu", "mse_hu2", "pearson_r", "dice_bone"),
    "mr": ("pearson_r",),
}
SHARES = ("ssim", "dice", "precision", "recall", "coverage_6", "coverage_9", "gamma", "pearson", "spearman")
ERRORS = ("mae", "mse", "hd95", "width")


@pytest.fixture(params=PROTOCOLS)
def protocol(request):
    if request.param == "dose":
        pytest.importorskip("pymedphys", reason="the extra dose is not installed")
    return PROTOCOLS[request.param]


def swapped(case: Case) -> Case:
    """The same with the sides exchanged; the true bone is taken away, which only one side has."""
    other = {"reference": "prediction", "prediction": "reference"}
    beside = {(other[side], stem): volume for (side, stem), volume in case.companions.items() if stem != "bone"}
    return Case(case.prediction, case.reference, case.mask, beside)


def some_cases(protocol):
    """Noise in masks of random voxels; few of them for gamma, and for MS-SSIM, which pads to 97 voxels a side."""
    for seed in range(2 if protocol.note.name in ("synthrad2025", "dose") else 8):
        rng = np.random.default_rng(seed)
        yield full_case(protocol, mask=rng.uniform(size=SHAPE) < rng.uniform(0.3, 1), seed=seed)


def test_every_protocol_states_what_its_numbers_hold_for(protocol):
    scores = score(full_case(protocol), protocol)
    assert scores.protocol == protocol.note.name
    assert PROTOCOLS[scores.protocol] is protocol
    assert scores.mask and scores.clip
    assert list(scores.values) == [metric.name for metric in protocol.note.metrics]
    assert scores.reasons == {}


def test_an_empty_mask_gives_reasons_and_no_values(protocol):
    if protocol.note.name in WITHOUT_MASK:
        pytest.skip("the mask is not used")
    scores = score(full_case(protocol, mask=np.zeros(SHAPE, bool)), protocol)
    assert set(scores.values.values()) == {None}
    assert scores.reasons.keys() == scores.values.keys()
    assert all(scores.reasons.values())


def test_constant_images_crash_nothing_and_every_missing_value_has_a_reason(protocol):
    case = full_case(protocol)
    flat = case.reference.with_array(np.full(SHAPE, 40.0))
    for constant in (case_of(flat, flat), case_of(case.reference, flat), case_of(flat, case.prediction)):
        scores = score(Case(constant.reference, constant.prediction, constant.mask, case.companions), protocol)
        assert scores.reasons.keys() == {name for name, value in (scores.values | scores.details).items() if value is None}
        assert scores.values.get("pearson_r") is None


def test_what_lies_outside_the_mask_does_not_count(protocol):
    if protocol.note.name in BEYOND_MASK:
        pytest.skip("the protocol looks beyond the mask")
    for case in some_cases(protocol):
        rubbish = np.random.default_rng(9).uniform(-1000, 3000, SHAPE)
        changed = case.prediction.with_array(np.where(case.inside, case.prediction.array, rubbish))
        assert score(Case(case.reference, changed, case.mask, case.companions), protocol).values == pytest.approx(
            score(case, protocol).values
        )


@pytest.mark.parametrize("name", SYMMETRIC)
def test_the_sides_may_change_places(name):
    for case in some_cases(PROTOCOLS[name]):
        case = Case(case.reference, case.prediction, case.mask, {key: case.companions[key] for key in case.companions if key[1] != "bone"})
        forth, back = score(case, PROTOCOLS[name]).values, score(swapped(case), PROTOCOLS[name]).values
        assert {metric: forth[metric] for metric in SYMMETRIC[name]} == pytest.approx({metric: back[metric] for metric in SYMMETRIC[name]})


def test_values_are_within_their_bounds(protocol):
    for case in some_cases(protocol):
        for name, value in score(case, protocol).values.items():
            if value is None:
                continue
            if name.startswith(SHARES):
                assert -1 <= value <= 1
            if name.startswith(ERRORS):
                assert value >= 0
            if name.startswith(("bias", "coverage_excess")):
                assert np.isfinite(value)


def test_a_perfect_prediction_has_no_error_and_no_number_for_its_psnr(protocol):
    case = full_case(protocol)
    copied = {key: case.companions[("reference", key[1])] if key[1] != "uncertainty" else volume for key, volume in case.companions.items()}
    scores = score(Case(case.reference, case.reference, case.mask, copied), protocol)
    for name, value in scores.values.items():
        if name.startswith("psnr"):
            assert (value, scores.reasons[name]) == (None, IDENTICAL)
        elif name.startswith(("mae", "mse", "bias", "hd95", "labels")):
            assert value == 0
        elif name.startswith(("ssim", "ms_ssim", "pearson", "gamma")):
            assert value == pytest.approx(1)


@settings(max_examples=20)
@given(st.floats(-200, 200))
def test_a_shift_in_hu_is_the_error_of_all_that_measure_it(shift):
    case = full_case(PROTOCOLS["tissue"])
    moved = case_of(case.reference, case.reference.array + shift)
    assert score(moved, PROTOCOLS["synthrad2023"]).values["mae_hu"] == pytest.approx(abs(shift))
    assert score(moved, PROTOCOLS["cyclegan"]).values["mae_hu"] == pytest.approx(abs(shift))
    assert score(moved, PROTOCOLS["tissue"]).values["bias_soft_hu"] == pytest.approx(shift)


def test_a_name_that_is_not_there_is_answered_with_those_that_are():
    with pytest.raises(ConfigError, match=r"synthrad2024.*synthrad2023"):
        find_protocol("synthrad2024")
