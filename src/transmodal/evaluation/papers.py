"""How the papers score that the recipes come from, a protocol a paper; what they leave open is settled in docs/metrics.md."""

import numpy as np
from scipy.ndimage import find_objects, gaussian_filter

from transmodal.evaluation import metrics
from transmodal.evaluation.bone import bone_mask
from transmodal.evaluation.metrics import Image, Mask
from transmodal.evaluation.mr import GREY_LEVELS, NO_RANGE, ON_GREY_LEVELS, grey_levels
from transmodal.evaluation.protocol import EMPTY_MASK, Case, Companion, Found, MetricNote, Protocol, ProtocolNote
from transmodal.evaluation.similarity import NEAR_BORDER, ssim

# Where no mask of the true bone lies beside the true CT, its k-means bone is the truth.
TRUE_BONE = Companion("bone", "mask", of="reference", required=False)

_MAE = MetricNote(name="mae_hu", label="MAE", unit="HU", better="lower")
_PSNR = MetricNote(name="psnr_db", label="PSNR", unit="dB", better="higher")
_CONSTANT = "an image is constant"

# The multi-atlas/U-Net/cGAN paper, section 3.2: images in [0, 4095], v_max of eq. (8), and 2^12 - 2 in the constants of eq. (9).
_SHIFT_HU, _HIGHEST, _PEAK, _RANGE = 1024.0, 4095.0, 4096.0, 4094.0
# How far a bone mask is smoothed, as by the recipe unet2d-atlas-prior.
_SMOOTHING_MM = 3.0
_NO_BONE = "the true CT has no bone inside the mask"


def true_bone(case: Case) -> Mask:
    """The true bone inside the mask, as the mask beside the true CT has it, or else k-means."""
    given = case.companions.get(("reference", "bone"))
    return bone_mask(case.reference.array, case.inside) if given is None else case.inside & (given.array > 0)


def _multi_atlas(case: Case) -> Found:
    """Images times the head mask, then times a smoothed bone mask, compared over the whole image."""
    reference, prediction = (np.clip(volume.array + _SHIFT_HU, 0, _HIGHEST) for volume in (case.reference, case.prediction))
    bone = true_bone(case)
    smooth = gaussian_filter(bone.astype(np.float64), [_SMOOTHING_MM / step for step in case.reference.spacing], mode="nearest")
    head, near_bone = case.inside, smooth * case.inside
    in_head = _whole_image(reference * head, prediction * head) if head.any() else [EMPTY_MASK] * 4
    in_bone = _whole_image(reference * near_bone, prediction * near_bone) if bone.any() else [_NO_BONE] * 4
    return dict(zip((metric.name for metric in (*_IN_HEAD, *_NEAR_BONE)), (*in_head, *in_bone), strict=True))


def _whole_image(x: Image, y: Image) -> list[float]:
    """PSNR, MAE, SSIM and Pearson's correlation, eq. (8) to (11)."""
    everywhere = np.ones(x.shape, dtype=bool)
    return [
        metrics.psnr_unclipped_db(x, y, everywhere, _PEAK),
        metrics.mae(x, y, everywhere),
        ssim(x, y, everywhere, _RANGE),
        metrics.pearson_r(x, y, everywhere),
    ]


_IN_HEAD = (
    _PSNR,
    _MAE,
    MetricNote(name="ssim", label="SSIM", unit="", better="higher", undefined=NEAR_BORDER),
    MetricNote(name="pearson_r", label="Pearson r", unit="", better="higher", undefined=_CONSTANT),
)
_NEAR_BONE = (
    MetricNote(name="psnr_bone_db", label="PSNR bone", unit="dB", better="higher"),
    MetricNote(name="mae_bone_hu", label="MAE bone", unit="HU", better="lower"),
    MetricNote(name="ssim_bone", label="SSIM bone", unit="", better="higher", undefined=NEAR_BORDER),
    MetricNote(name="pearson_r_bone", label="Pearson r bone", unit="", better="higher", undefined=_CONSTANT),
)
MULTI_ATLAS = Protocol(
    ProtocolNote(
        name="multi-atlas",
        title="Multi-atlas/U-Net/cGAN paper",
        modality="ct",
        mask="every voxel of the image, in HU + 1024 and times the mask; for bone, times the true bone smoothed by 3 mm and the mask; "
        "SSIM over the voxels at least 3 from the border",
        clip="[−1024, 3071] HU",
        metrics=(*_IN_HEAD, *_NEAR_BONE),
    ),
    _multi_atlas,
    companions=(TRUE_BONE,),
)


def _bone(case: Case) -> Found:
    """Overlap of bone by k-means, as the multi-atlas/U-Net/cGAN paper scores it (section 3.2, eq. 12).

    The true bone is a mask beside the true CT, and the Dice of the k-means bone of the true CT with it is the ceiling, which the paper
    calls the ideal score. Without such a mask the k-means bone is the truth. A prediction that is a mask of bone is taken as it is.
    """
    reference, prediction, mask = case.arrays
    true = true_bone(case)
    found = mask & (prediction > 0) if case.prediction.modality == "mask" else bone_mask(prediction, mask)
    return {
        "dice_bone": metrics.dice(true, found),
        "precision_bone": metrics.precision(true, found),
        "recall_bone": metrics.recall(true, found),
        "dice_bone_ceiling": metrics.dice(true, bone_mask(reference, mask)) if ("reference", "bone") in case.companions else float("nan"),
    }


BONE = Protocol(
    ProtocolNote(
        name="bone",
        title="Bone by k-means",
        modality="ct",
        mask="inside the mask; of a CT, the highest of three k-means classes of its histogram in 1024 bins, with −1024 HU outside the mask",
        clip="[−1024, 3071] HU",
        metrics=(
            MetricNote(name="dice_bone", label="Dice", unit="", better="higher", undefined="neither has bone inside the mask"),
            MetricNote(
                name="precision_bone", label="Precision", unit="", better="higher", undefined="the prediction has no bone in the mask"
            ),
            MetricNote(name="recall_bone", label="Recall", unit="", better="higher", undefined="the truth has no bone inside the mask"),
            MetricNote(
                name="dice_bone_ceiling",
                label="Ceiling of Dice",
                unit="",
                better="higher",
                undefined="no mask of the true bone (bone.nii.gz) lies beside the true CT, whose k-means bone is the truth",
            ),
        ),
    ),
    _bone,
    companions=(TRUE_BONE,),
    takes_masks=True,
)


def _cyclegan(case: Case) -> Found:
    return {"mae_hu": metrics.mae(*case.arrays), "psnr_db": metrics.psnr_unclipped_db(*case.arrays, peak=4095.0)}


# Eq. (5) of the unpaired CycleGAN paper prints 20 log10(4095 / MSE), which its own results of 32 dB do not fit; they fit the root.
CYCLEGAN = Protocol(
    ProtocolNote(
        name="cyclegan",
        title="Unpaired CycleGAN paper",
        modality="ct",
        mask="inside the mask",
        clip="none; PSNR of a peak of 4095 HU",
        metrics=(_MAE, _PSNR),
    ),
    _cyclegan,
)


def _mr_gan(case: Case) -> Found:
    clip, grey = (0.0, GREY_LEVELS), grey_levels(case)
    if grey is None:
        return dict.fromkeys(("mae_grey", "psnr_db", "psnr_mrgan"), NO_RANGE)
    (x, y), everywhere = grey, np.ones_like(case.inside)
    psnr_db = metrics.psnr_db(x, y, everywhere, clip)
    # The peak is of images in [0, 255], the squared error of the same images in [0, 1].
    printed = psnr_db + float(20 * np.log10(GREY_LEVELS))
    return {"mae_grey": metrics.mae(x.clip(*clip), y.clip(*clip), everywhere), "psnr_db": psnr_db, "psnr_mrgan": printed}


# A PSNR of 65 dB beside an MAE of 19, both on 0 to 255, is impossible; see `_mr_gan` for what fits.
MR_GAN = Protocol(
    ProtocolNote(
        name="mr-gan",
        title="MR-GAN paper",
        modality="mr",
        mask="every voxel of the image, as the paper sums over whole slices; the mask sets the grey levels alone",
        clip="[0, 255], the 0.5th to the 99.5th percentile of the real MR inside the mask",
        metrics=(
            *ON_GREY_LEVELS,
            MetricNote(name="psnr_mrgan", label="PSNR as printed", unit="dB", better="higher", undefined=NO_RANGE),
        ),
    ),
    _mr_gan,
)


# The Light_U-Net paper, "Performance Metrics": a window of 2000 HU, where the recipe light-unet has it, and 40 to 70 % of its grey
# levels in steps of 1 %.
_WINDOW_HU = (-500.0, 1500.0)
_THRESHOLDS_HU = np.linspace(300.0, 900.0, 31)


def _light_unet(case: Case) -> Found:
    """Images in the window, black outside the mask, over the box around the mask, to which the paper crops."""
    if not case.inside.any():
        return {metric.name: EMPTY_MASK for metric in _ON_WINDOW}
    low, high = _WINDOW_HU
    box = find_objects(case.inside.view(np.uint8))[0]
    inside = case.inside[box]
    x, y = (np.where(inside, np.clip(volume.array[box], low, high), low) for volume in (case.reference, case.prediction))
    everywhere = np.ones_like(inside)
    dice, precision, recall = metrics.overlap_over_thresholds(x, y, inside, _THRESHOLDS_HU)
    return {
        "mae_hu": metrics.mae(x, y, everywhere),
        "mse_hu2": metrics.mse(x, y, everywhere),
        "pearson_r": metrics.pearson_r(x, y, everywhere),
        "precision_bone": precision,
        "recall_bone": recall,
        "dice_bone": dice,
    }


_ON_WINDOW = (
    _MAE,
    MetricNote(name="mse_hu2", label="MSE", unit="HU²", better="lower"),
    MetricNote(name="pearson_r", label="Pearson r", unit="", better="higher", undefined=_CONSTANT),
    MetricNote(name="precision_bone", label="Precision", unit="", better="higher", undefined="the prediction reaches no threshold of bone"),
    MetricNote(name="recall_bone", label="Recall", unit="", better="higher", undefined="the true CT reaches no threshold of bone"),
    MetricNote(name="dice_bone", label="Dice", unit="", better="higher", undefined="neither image reaches a threshold of bone"),
)
LIGHT_UNET = Protocol(
    ProtocolNote(
        name="light-unet",
        title="Light_U-Net paper",
        modality="ct",
        mask="every voxel of the box around the mask, with −500 HU outside the mask; bone at 31 thresholds from 300 to 900 HU, "
        "40 to 70 % of the window, averaged",
        clip="[−500, 1500] HU",
        metrics=_ON_WINDOW,
    ),
    _light_unet,
)
