"""Synthetic MRs on grey levels, which free them of the arbitrary unit of an MR."""

import numpy as np

from transmodal.evaluation import metrics
from transmodal.evaluation.metrics import Image
from transmodal.evaluation.protocol import Case, Found, MetricNote, Protocol, ProtocolNote
from transmodal.evaluation.similarity import NEAR_BORDER, ssim_synthrad2023

GREY_LEVELS = 255.0
NO_RANGE = "the mask is empty or the real MR is constant in it"
ON_GREY_LEVELS = (
    MetricNote(name="mae_grey", label="MAE", unit="grey levels", better="lower", undefined=NO_RANGE),
    MetricNote(name="psnr_db", label="PSNR", unit="dB", better="higher", undefined=NO_RANGE),
)


def grey_levels(case: Case) -> tuple[Image, Image] | None:
    """Both images on grey levels, the 0.5th percentile of the real MR inside the mask as 0 and the 99.5th as 255, not clipped.

    Returns
    -------
    tuple of ndarray or None
        Real and synthetic MR; None where the real one gives no range.
    """
    low, high = np.percentile(case.reference.array[case.inside], (0.5, 99.5)) if case.inside.any() else (0.0, 0.0)
    if low == high:
        return None
    x, y = ((volume.array.astype(np.float64) - low) * (GREY_LEVELS / (high - low)) for volume in (case.reference, case.prediction))
    return x, y


def _mr(case: Case) -> Found:
    clip, mask, grey = (0.0, GREY_LEVELS), case.inside, grey_levels(case)
    if grey is None:
        return dict.fromkeys(("mae_grey", "psnr_db", "ssim", "pearson_r"), NO_RANGE)
    x, y = grey
    return {
        "mae_grey": metrics.mae(x.clip(*clip), y.clip(*clip), mask),
        "psnr_db": metrics.psnr_db(x, y, mask, clip),
        "ssim": ssim_synthrad2023(x, y, mask, clip),
        "pearson_r": metrics.pearson_r(*case.arrays),
    }


MR = Protocol(
    ProtocolNote(
        name="mr",
        title="MR on 255 grey levels",
        modality="mr",
        mask="inside the mask; SSIM with 0 outside it, over its voxels at least 3 from the border",
        clip="[0, 255], the 0.5th to the 99.5th percentile of the real MR inside the mask; correlation without clipping",
        metrics=(
            *ON_GREY_LEVELS,
            MetricNote(name="ssim", label="SSIM", unit="", better="higher", undefined=NEAR_BORDER),
            MetricNote(name="pearson_r", label="Pearson r", unit="", better="higher", undefined="an image is constant inside the mask"),
        ),
    ),
    _mr,
)
