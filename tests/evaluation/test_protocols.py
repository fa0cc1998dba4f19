import numpy as np
import pytest

from transmodal.core.errors import ConfigError, DataError, GeometryError
from transmodal.core.volume import Volume
from transmodal.evaluation.bone import bone_mask
from transmodal.evaluation.protocols import IDENTICAL, PROTOCOLS, Tissues, bone_protocol, score, tissue_classes, tissue_protocol

SHAPE = (12, 11, 10)


def volume(array: np.ndarray, modality="ct", spacing: float = 1.0) -> Volume:
    return Volume(array, np.diag([spacing, spacing, spacing, 1.0]), modality)


def head(modality="ct"):
    rng = np.random.default_rng(0)
    reference = rng.uniform(-1000, 1500, SHAPE)
    return volume(reference, modality), volume(reference + rng.normal(0, 50, SHAPE), modality), volume(np.ones(SHAPE, bool), "mask")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_states_what_its_numbers_hold_for(name):
    note = PROTOCOLS[name].note
    scores = score(*head(note.modality), name)
    assert scores.protocol == note.name == name
    assert scores.mask and scores.clip
    assert list(scores.values) == [metric.name for metric in note.metrics]
    assert scores.reasons.keys() == {"dice_bone_ceiling"} & scores.values.keys()  # which needs to be told the truth


@pytest.mark.parametrize("name", PROTOCOLS)
def test_an_empty_mask_gives_reasons_and_no_values(name):
    note = PROTOCOLS[name].note
    reference, prediction, mask = head(note.modality)
    scores = score(reference, prediction, mask.with_array(np.zeros(SHAPE, bool)), name)
    assert set(scores.values.values()) == {None}
    assert scores.reasons.keys() == scores.values.keys()
    assert all(scores.reasons.values())


def test_an_infinite_psnr_is_not_a_number_in_a_file():
    reference, _, mask = head()
    scores = score(reference, reference, mask, "synthrad2023")
    assert scores.values == {"mae_hu": 0.0, "psnr_db": None, "ssim": pytest.approx(1)}
    assert scores.reasons == {"psnr_db": IDENTICAL}


def test_tissue_errors_add_up_to_the_whole():
    reference, prediction, mask = head()
    values = score(reference, prediction, mask, "tissue").values
    classes = tissue_classes(reference.array, mask.array, Tissues())
    assert sum(np.count_nonzero(c) for c in classes.values()) == np.count_nonzero(mask.array)
    whole = sum(np.count_nonzero(region) * values[f"bias_{name}_hu"] for name, region in classes.items()) / reference.array.size
    assert values["bias_hu"] == pytest.approx(whole)


def test_thresholds_bound_the_classes_and_are_stated():
    reference = volume(np.array([-201.0, -200.0, 300.0, 301.0]).reshape(4, 1, 1))
    mask = volume(np.ones((4, 1, 1), bool), "mask")
    classes = tissue_classes(reference.array, mask.array, Tissues(bone_hu=300))
    assert [name for voxel in range(4) for name, region in classes.items() if region[voxel, 0, 0]] == ["air", "soft", "soft", "bone"]
    scores = score(reference, reference.with_array(reference.array + 1), mask, tissue_protocol(Tissues(bone_hu=300)))
    assert scores.values["dice_bone"] == pytest.approx(2 / 3)
    assert "bone above 300 HU" in scores.mask and "−200 HU" in scores.mask


def test_bone_is_compared_with_the_truth_and_the_ceiling_is_that_of_the_true_ct():
    ct, _, mask = head()
    k_means = bone_mask(ct.array, mask.array)
    truth = k_means.copy()
    truth[tuple(np.argwhere(k_means)[:10].T)] = False
    n = np.count_nonzero(truth)
    values = score(ct, ct, mask, bone_protocol(truth)).values
    assert values["recall_bone"] == 1
    assert values["precision_bone"] == n / (n + 10)
    assert values["dice_bone"] == values["dice_bone_ceiling"] == 2 * n / (2 * n + 10)
    assert score(ct, ct, mask, "bone").values == {"dice_bone": 1, "precision_bone": 1, "recall_bone": 1, "dice_bone_ceiling": None}


def test_a_mask_of_bone_is_a_prediction_too():
    ct, _, mask = head()
    truth = bone_mask(ct.array, mask.array)
    assert score(ct, mask.with_array(truth), mask, "bone").values["dice_bone"] == 1
    everything = score(ct, mask, mask, "bone").values
    assert everything["recall_bone"] == 1
    assert everything["precision_bone"] == np.count_nonzero(truth) / truth.size
    nothing = score(ct, mask.with_array(np.zeros(SHAPE, bool)), mask, "bone")
    assert (nothing.values["dice_bone"], nothing.values["precision_bone"]) == (0, None)
    with pytest.raises(DataError, match="modality mask"):
        score(ct, mask, mask, "synthrad2023")


def test_a_flat_prediction_has_no_bone():
    ct, _, mask = head()
    values = score(ct, ct.with_array(np.full(SHAPE, 40.0)), mask, "bone").values
    assert (values["dice_bone"], values["recall_bone"], values["precision_bone"]) == (0, 0, None)


def test_mr_scores_do_not_depend_on_the_unit_of_the_mr():
    reference, prediction, mask = head("mr")
    scaled = [image.with_array(3.0 * image.array + 40) for image in (reference, prediction)]
    assert score(*scaled, mask, "mr").values == pytest.approx(score(reference, prediction, mask, "mr").values)


def test_a_constant_mr_has_no_grey_levels():
    flat = volume(np.full(SHAPE, 7.0), "mr")
    scores = score(flat, flat, volume(np.ones(SHAPE, bool), "mask"), "mr")
    assert set(scores.values.values()) == {None}


def test_the_protocol_of_cyclegan_takes_the_root_and_clips_nothing():
    reference = volume(np.array([0.0, 5000.0, 10.0, -900.0]).reshape(4, 1, 1))
    prediction = reference.with_array(reference.array + np.array([30.0, -40.0, 0.0, 777.0]).reshape(4, 1, 1))
    inside = volume(np.array([True, True, False, False]).reshape(4, 1, 1), "mask")
    # absolute errors of 30 and 40, squared 900 and 1600
    assert score(reference, prediction, inside, "cyclegan").values == {
        "mae_hu": 35.0,
        "psnr_db": pytest.approx(20 * np.log10(4095 / np.sqrt(1250))),
    }


def grey_ramp():
    """An MR of 0 to 1000, of which 5 to 995 are the grey levels from 0 to 255."""
    ramp = volume(np.arange(1001.0).reshape(1001, 1, 1), "mr")
    return ramp, volume(np.ones(ramp.shape, bool), "mask")


def test_the_protocol_of_mr_gan_is_on_grey_levels_with_the_papers_psnr_beside_the_true_one():
    ramp, everywhere = grey_ramp()
    error = np.zeros(ramp.shape)
    error[100:200] = 99.0  # a tenth of the range between the percentiles: 25.5 grey levels
    found = score(ramp, ramp.with_array(ramp.array + error), everywhere, "mr-gan").values
    mse = 25.5**2 * 100 / 1001
    assert found["mae_grey"] == pytest.approx(25.5 * 100 / 1001)
    assert found["psnr_db"] == pytest.approx(10 * np.log10(255**2 / mse))
    assert found["psnr_mrgan"] == pytest.approx(10 * np.log10(255**2 / (mse / 255**2)))


def test_the_protocol_of_mr_gan_looks_beyond_the_mask():
    ramp, everywhere = grey_ramp()
    wider = [np.concatenate([image.array, np.zeros((1001, 1, 1))]) for image in (ramp, everywhere)]
    reference, mask = volume(wider[0], "mr"), volume(wider[1] > 0, "mask")
    outside = np.zeros(reference.shape)
    outside[-1] = 995.0  # from black to white, in one of 2002 voxels
    found = score(reference, reference.with_array(reference.array + outside), mask, "mr-gan").values
    assert found["mae_grey"] == pytest.approx(255 / 2002)
    assert score(reference, reference.with_array(reference.array + outside), mask, "mr").values["mae_grey"] == 0


def test_refusals_name_what_is_wrong():
    reference, prediction, mask = head()
    with pytest.raises(ConfigError, match=r"synthrad2024.*synthrad2023"):
        score(reference, prediction, mask, "synthrad2024")
    with pytest.raises(GeometryError, match="the prediction"):
        score(reference, volume(np.zeros(SHAPE), spacing=2.0), mask, "synthrad2023")
    with pytest.raises(DataError, match="modality mr"):
        score(*head("mr"), "synthrad2023")
    with pytest.raises(DataError, match="the prediction: 1 voxels"):
        broken = prediction.array.copy()
        broken[0, 0, 0] = np.nan
        score(reference, prediction.with_array(broken), mask, "synthrad2023")
