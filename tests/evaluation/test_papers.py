import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from small_cases import SHAPE, case_of, column, noisy_case, volume
from transmodal.evaluation.bone import bone_mask
from transmodal.evaluation.mr import MR
from transmodal.evaluation.papers import BONE, CYCLEGAN, LIGHT_UNET, MR_GAN, MULTI_ATLAS
from transmodal.evaluation.protocol import score
from transmodal.methods.recipe import load_recipe


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


def multi_atlas_plainly(case, weight):
    """Eq. (8) to (11) over the whole image, with scikit-image's SSIM."""
    x, y = ((np.clip(image.array, -1024, 3071) + 1024) * weight for image in (case.reference, case.prediction))
    return {
        "psnr_db": 20 * np.log10(4096 / np.sqrt(np.mean((x - y) ** 2))),
        "mae_hu": np.mean(np.abs(x - y)),
        "ssim": structural_similarity(x, y, win_size=7, data_range=4094),
        "pearson_r": np.corrcoef(x.ravel(), y.ravel())[0, 1],
    }


def test_the_protocol_of_multi_atlas_is_over_the_whole_image_times_the_mask():
    inside = np.random.default_rng(3).uniform(size=SHAPE) < 0.7
    case = noisy_case(mask=inside)
    values = score(case, MULTI_ATLAS).values
    expected = multi_atlas_plainly(case, inside)
    assert {name: values[name] for name in expected} == pytest.approx(expected)


def test_the_protocol_of_multi_atlas_weighs_by_the_smoothed_true_bone():
    inside, bone = np.ones(SHAPE, bool), np.zeros(SHAPE, bool)
    inside[0], bone[2:5, 3:6, 4:6] = False, True
    wide = noisy_case(mask=inside)
    reference, prediction = (volume(image.array, spacing=2.0) for image in (wide.reference, wide.prediction))
    case = case_of(reference, prediction, inside, reference_bone=reference.with_array(bone, "mask"))
    values = score(case, MULTI_ATLAS).values
    expected = multi_atlas_plainly(case, gaussian_filter(bone.astype(float), 1.5, mode="nearest") * inside)  # 3 mm are 1.5 voxels
    assert [values[name] for name in ("psnr_bone_db", "mae_bone_hu", "ssim_bone", "pearson_r_bone")] == pytest.approx([*expected.values()])


def test_without_bone_there_is_no_score_near_bone():
    ct = volume(np.full(SHAPE, 40.0))
    scores = score(case_of(ct, ct.array + 5), MULTI_ATLAS)
    assert scores.values["mae_hu"] == 5
    assert {name for name, reason in scores.reasons.items() if "no bone" in reason} == {
        metric.name for metric in MULTI_ATLAS.note.metrics[4:]
    }


def test_the_window_of_light_unet_is_that_of_its_recipe():
    window = load_recipe("light-unet", []).intensity["ct"]
    assert LIGHT_UNET.note.clip == f"[{window.lower:g}, {window.upper:g}] HU".replace("-", "−")


def test_the_protocol_of_light_unet_is_over_the_box_around_the_mask():
    """Of four voxels in the box, one is outside the mask and black; beyond the box nothing counts."""
    reference = column(9999.0, -900.0, 100.0, 777.0, 1600.0, 0.0)
    prediction = column(0.0, -500.0, 200.0, -300.0, 1200.0, 800.0)
    inside = np.array([0, 1, 1, 0, 1, 0], bool).reshape(6, 1, 1)
    values = score(case_of(reference, prediction, inside), LIGHT_UNET).values
    assert values["mae_hu"] == (0 + 100 + 0 + 300) / 4
    assert values["mse_hu2"] == (0 + 100**2 + 0 + 300**2) / 4
    assert values["pearson_r"] == pytest.approx(np.corrcoef([-500, 100, -500, 1500], [-500, 200, -500, 1200])[0, 1])


def test_bone_of_light_unet_is_averaged_over_the_thresholds():
    """Thresholds are 300, 320, ..., 900 HU: the true CT has 500 at 11 of them and below, the prediction 300 at the first alone."""
    values = score(case_of(column(500.0, -500.0), column(300.0, 299.9)), LIGHT_UNET).values
    assert values["precision_bone"] == 1  # where it is defined
    assert values["recall_bone"] == pytest.approx(1 / 11)
    assert values["dice_bone"] == pytest.approx(1 / 11)
    nothing = score(case_of(column(500.0, -500.0), column(200.0, 0.0)), LIGHT_UNET)
    assert (nothing.values["precision_bone"], nothing.values["recall_bone"], nothing.values["dice_bone"]) == (None, 0, 0)
