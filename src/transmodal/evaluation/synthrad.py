"""The protocols of the SynthRAD challenges, as their own evaluation computes them."""

from transmodal.evaluation import metrics
from transmodal.evaluation.protocol import MAE_HU, PSNR_DB, Case, Found, MetricNote, Protocol, ProtocolNote
from transmodal.evaluation.similarity import NEAR_BORDER, ms_ssim_synthrad2025, ssim_synthrad2023


def _synthrad2023(case: Case) -> Found:
    clip = (-1024.0, 3000.0)
    return {
        "mae_hu": metrics.mae(*case.arrays),
        "psnr_db": metrics.psnr_db(*case.arrays, clip),
        "ssim": ssim_synthrad2023(*case.arrays, clip),
    }


SYNTHRAD2023 = Protocol(
    ProtocolNote(
        name="synthrad2023",
        title="SynthRAD 2023",
        modality="ct",
        mask="inside the mask; SSIM with −1024 HU outside it, over its voxels at least 3 from the border",
        clip="MAE none; PSNR and SSIM [−1024, 3000] HU",
        metrics=(MAE_HU, PSNR_DB, MetricNote(name="ssim", label="SSIM", unit="", better="higher", undefined=NEAR_BORDER)),
    ),
    _synthrad2023,
)


def _synthrad2025(case: Case) -> Found:
    clip = (-1024.0, 3071.0)
    return {
        "mae_hu": metrics.mae(*case.arrays),
        "psnr_db": metrics.psnr_db(*case.arrays, clip),
        "ms_ssim": ms_ssim_synthrad2025(*case.arrays, clip),
    }


SYNTHRAD2025 = Protocol(
    ProtocolNote(
        name="synthrad2025",
        title="SynthRAD 2025",
        modality="ct",
        mask="inside the mask; MS-SSIM with −1024 HU outside it, over its voxels at least 3 from the border of every scale",
        clip="MAE none; PSNR and MS-SSIM [−1024, 3071] HU",
        metrics=(
            MAE_HU,
            PSNR_DB,
            MetricNote(name="ms_ssim", label="MS-SSIM", unit="", better="higher", undefined=f"at some scale {NEAR_BORDER}"),
        ),
    ),
    _synthrad2025,
)
