"""What holds for every protocol, and which identities hold for which."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from small_cases import SHAPE, case_of, full_case
from transmodal.core.errors import ConfigError
from transmodal.evaluation.protocol import IDENTICAL, Case, Protocol, score
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
# SSIM is negative where the two go against each other; MS-SSIM cuts that off.
CORRELATIONS = ("ssim", "pearson", "spearman")
SHARES = (*CORRELATIONS, "ms_ssim", "dice", "precision", "recall", "gamma")
ERRORS = ("mae", "mse", "hd95", "width")


each = pytest.mark.parametrize("name", PROTOCOLS)
# MS-SSIM is padded to 97 voxels a side, whatever the images.
few = settings(max_examples=6)
seeds, densities = st.integers(0, 2**32), st.floats(0, 1)


def named(name: str) -> Protocol:
    if name == "dose":
        pytest.importorskip("pymedphys", reason="the extra dose is not installed")
    return PROTOCOLS[name]


def some_case(protocol: Protocol, seed: int, density: float) -> Case:
    """Noise, in a mask of random voxels that may be none or all."""
    return full_case(protocol, mask=np.random.default_rng(seed).uniform(size=SHAPE) < density, seed=seed)


def swapped(case: Case) -> Case:
    other = {"reference": "prediction", "prediction": "reference"}
    return Case(
        case.prediction, case.reference, case.mask, {(other[side], stem): case.companions[side, stem] for side, stem in case.companions}
    )


@each
def test_every_protocol_states_what_its_numbers_hold_for(name):
    protocol = named(name)
    scores = score(full_case(protocol), protocol)
    assert scores.protocol == protocol.note.name == name
    assert scores.mask and scores.clip
    assert list(scores.values) == [metric.name for metric in protocol.note.metrics]
    assert scores.reasons == {}


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name not in WITHOUT_MASK])
def test_an_empty_mask_gives_reasons_and_no_values(name):
    scores = score(full_case(PROTOCOLS[name], mask=np.zeros(SHAPE, bool)), PROTOCOLS[name])
    assert set(scores.values.values()) == {None}
    assert scores.reasons.keys() == scores.values.keys()
    assert all(scores.reasons.values())


@each
def test_constant_images_crash_nothing_and_every_missing_value_has_a_reason(name):
    protocol = named(name)
    case = full_case(protocol)
    flat = case.reference.with_array(np.full(SHAPE, 40.0))
    for constant in (case_of(flat, flat), case_of(case.reference, flat), case_of(flat, case.prediction)):
        scores = score(Case(constant.reference, constant.prediction, constant.mask, case.companions), protocol)
        assert scores.reasons.keys() == {name for name, value in (scores.values | scores.details).items() if value is None}
        assert scores.values.get("pearson_r") is None


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name not in BEYOND_MASK])
@few
@given(seeds, densities)
def test_what_lies_outside_the_mask_does_not_count(name, seed, density):
    case = some_case(PROTOCOLS[name], seed, density)
    rubbish = np.random.default_rng(seed + 2).uniform(-1000, 3000, SHAPE)
    changed = case.prediction.with_array(np.where(case.inside, case.prediction.array, rubbish))
    other = Case(case.reference, changed, case.mask, case.companions)
    assert score(other, PROTOCOLS[name]).values == pytest.approx(score(case, PROTOCOLS[name]).values)


@pytest.mark.parametrize("name", SYMMETRIC)
@few
@given(seeds, densities)
def test_the_sides_may_change_places(name, seed, density):
    case = some_case(PROTOCOLS[name], seed, density)
    labels = {key: case.companions[key] for key in case.companions if key[1] == "labels"}  # and not the true bone, which one side has
    case = Case(case.reference, case.prediction, case.mask, labels)
    forth, back = score(case, PROTOCOLS[name]).values, score(swapped(case), PROTOCOLS[name]).values
    assert {metric: forth[metric] for metric in SYMMETRIC[name]} == pytest.approx({metric: back[metric] for metric in SYMMETRIC[name]})


@each
@few
@given(seeds, densities)
def test_values_are_within_their_bounds(name, seed, density):
    protocol = named(name)
    for metric, value in score(some_case(protocol, seed, density), protocol).values.items():
        if value is not None and metric.startswith(SHARES):
            assert (-1 if metric.startswith(CORRELATIONS) else 0) <= value <= 1
        if value is not None and metric.startswith(ERRORS):
            assert value >= 0


@each
def test_a_perfect_prediction_has_no_error_and_no_number_for_its_psnr(name):
    protocol = named(name)
    case = full_case(protocol)
    copied = {key: case.companions[("reference", key[1])] if key[1] != "uncertainty" else volume for key, volume in case.companions.items()}
    scores = score(Case(case.reference, case.reference, case.mask, copied), protocol)
    for metric, value in scores.values.items():
        if metric.startswith("psnr"):
            assert (value, scores.reasons[metric]) == (None, IDENTICAL)
        elif metric.startswith(("mae", "mse", "bias", "hd95", "labels")):
            assert value == 0
        elif metric.startswith(("ssim", "ms_ssim", "pearson", "gamma")):
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
