"""How the papers score that the recipes come from, a protocol a paper; what they leave open is settled in docs/metrics.md."""

import numpy as np

from transmodal.evaluation import metrics
from transmodal.evaluation.bone import bone_mask
from transmodal.evaluation.mr import GREY_LEVELS, NO_RANGE, ON_GREY_LEVELS, grey_levels
from transmodal.evaluation.protocol import Case, Companion, Found, MetricNote, Protocol, ProtocolNote

_MAE = MetricNote(name="mae_hu", label="MAE", unit="HU", better="lower")
_PSNR = MetricNote(name="psnr_db", label="PSNR", unit="dB", better="higher")


def _bone(case: Case) -> Found:
    """Overlap of bone by k-means, as the multi-atlas/U-Net/cGAN paper scores it (section 3.2, eq. 12).

    The true bone is a mask beside the true CT, and the Dice of the k-means bone of the true CT with it is the ceiling, which the paper
    calls the ideal score. Without such a mask the k-means bone is the truth. A prediction that is a mask of bone is taken as it is.
    """
    reference, prediction, mask = case.arrays
    clustered, truth = bone_mask(reference, mask), case.companions.get(("reference", "bone"))
    true = clustered if truth is None else mask & (truth.array > 0)
    found = mask & (prediction > 0) if case.prediction.modality == "mask" else bone_mask(prediction, mask)
    return {
        "dice_bone": metrics.dice(true, found),
        "precision_bone": metrics.precision(true, found),
        "recall_bone": metrics.recall(true, found),
        "dice_bone_ceiling": float("nan") if truth is None else metrics.dice(true, clustered),
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
    companions=(Companion("bone", "mask", of="reference", required=False),),
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
