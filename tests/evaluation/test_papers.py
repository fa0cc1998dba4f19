import numpy as np
import pytest

from small_cases import SHAPE, case_of, column, noisy_case, volume
from transmodal.evaluation.bone import bone_mask
from transmodal.evaluation.mr import MR
from transmodal.evaluation.papers import BONE, CYCLEGAN, MR_GAN
from transmodal.evaluation.protocol import score


def k_means(case):
    return bone_mask(case.reference.array, case.inside)


def test_bone_is_compared_with_the_truth_and_the_ceiling_is_that_of_the_true_ct():
    ct, found = noisy_case().reference, k_means(noisy_case())
    truth = found.copy()
    truth[tuple(np.argwhere(found)[:10].T)] = False
    n = np.count_nonzero(truth)
    values = score(case_of(ct, ct, reference_bone=volume(truth, "mask")), BONE).values
    assert values["recall_bone"] == 1
    assert values["precision_bone"] == n / (n + 10)
    assert values["dice_bone"] == values["dice_bone_ceiling"] == 2 * n / (2 * n + 10)
    assert score(case_of(ct, ct), BONE).values == {"dice_bone": 1, "precision_bone": 1, "recall_bone": 1, "dice_bone_ceiling": None}


def test_a_mask_of_bone_is_a_prediction_too():
    ct, truth = noisy_case().reference, k_means(noisy_case())
    assert score(case_of(ct, volume(truth, "mask")), BONE).values["dice_bone"] == 1
    everything = score(case_of(ct, volume(np.ones(SHAPE, bool), "mask")), BONE).values
    assert everything["recall_bone"] == 1
    assert everything["precision_bone"] == np.count_nonzero(truth) / truth.size
    nothing = score(case_of(ct, volume(np.zeros(SHAPE, bool), "mask")), BONE)
    assert (nothing.values["dice_bone"], nothing.values["precision_bone"]) == (0, None)


def test_a_flat_prediction_has_no_bone():
    values = score(case_of(noisy_case().reference, np.full(SHAPE, 40.0)), BONE).values
    assert (values["dice_bone"], values["recall_bone"], values["precision_bone"]) == (0, 0, None)


def test_the_protocol_of_cyclegan_takes_the_root_and_clips_nothing():
    reference, prediction = column(0.0, 5000.0, 10.0, -900.0), column(30.0, 4960.0, 10.0, -123.0)
    inside = np.array([True, True, False, False]).reshape(4, 1, 1)
    # absolute errors of 30 and 40, squared 900 and 1600
    assert score(case_of(reference, prediction, inside), CYCLEGAN).values == {
        "mae_hu": 35.0,
        "psnr_db": pytest.approx(20 * np.log10(4095 / np.sqrt(1250))),
    }


def grey_ramp():
    """An MR of 0 to 1000, of which 5 to 995 are the grey levels from 0 to 255."""
    return column(*np.arange(1001.0), modality="mr")


def test_the_protocol_of_mr_gan_is_on_grey_levels_with_the_papers_psnr_beside_the_true_one():
    ramp = grey_ramp()
    error = np.zeros(ramp.shape)
    error[100:200] = 99.0  # a tenth of the range between the percentiles: 25.5 grey levels
    found = score(case_of(ramp, ramp.array + error), MR_GAN).values
    mse = 25.5**2 * 100 / 1001
    assert found["mae_grey"] == pytest.approx(25.5 * 100 / 1001)
    assert found["psnr_db"] == pytest.approx(10 * np.log10(255**2 / mse))
    assert found["psnr_mrgan"] == pytest.approx(10 * np.log10(255**2 / (mse / 255**2)))


def test_the_protocol_of_mr_gan_looks_beyond_the_mask():
    reference = volume(np.concatenate([grey_ramp().array, np.zeros((1001, 1, 1))]), "mr")
    inside = np.arange(2002).reshape(2002, 1, 1) < 1001
    outside = np.zeros(reference.shape)
    outside[-1] = 995.0  # from black to white, in one of 2002 voxels
    case = case_of(reference, reference.array + outside, inside)
    assert score(case, MR_GAN).values["mae_grey"] == pytest.approx(255 / 2002)
    assert score(case, MR).values["mae_grey"] == 0
