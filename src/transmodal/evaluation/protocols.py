"""Protocols: named sets of metrics with the mask and clip range that a number needs to mean anything."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from transmodal.core.config import Config
from transmodal.core.errors import ConfigError, DataError
from transmodal.core.volume import Modality, Volume, require_same_grid
from transmodal.evaluation import metrics
from transmodal.evaluation.bone import bone_mask
from transmodal.evaluation.metrics import Image, Mask
from transmodal.evaluation.similarity import ms_ssim_synthrad2025, ssim_synthrad2023

EMPTY_MASK = "no voxel inside the mask"
IDENTICAL = "infinite: the images agree in every voxel of the mask"
GREY_LEVELS = 255.0


class MetricNote(Config):
    """What a reader needs to know of one metric.

    Parameters
    ----------
    name : str
        Key in files, with the unit where there is one, such as ``mae_hu``.
    label : str
        Short name for tables, such as ``MAE``.
    unit : str
        ``"HU"``, ``"dB"``, ... or empty for a ratio.
    better : {"lower", "higher", "zero"}
        The direction of a better result.
    undefined : str
        Why the value may be missing.
    """

    name: str
    label: str
    unit: str
    better: Literal["lower", "higher", "zero"]
    undefined: str = EMPTY_MASK


class ProtocolNote(Config):
    """A protocol in words: its metrics, and the mask and clip range that hold for them."""

    name: str
    title: str
    modality: Modality
    mask: str
    clip: str
    metrics: tuple[MetricNote, ...]


class Scores(Config):
    """One case by one protocol.

    Parameters
    ----------
    protocol, mask, clip : str
        Without these a number is not reported.
    values : dict
        Metric name to value; None where it is not defined.
    reasons : dict
        Metric name to the reason, for each value that is None.
    """

    protocol: str
    mask: str
    clip: str
    values: dict[str, float | None]
    reasons: dict[str, str]


@dataclass(frozen=True)
class Protocol:
    """A protocol that can be computed.

    Parameters
    ----------
    note : ProtocolNote
    compute : callable
        Takes (reference, prediction, mask) and gives a value for each metric of `note`.
    takes_masks : bool
        Whether the prediction may be a mask of what the protocol looks for, instead of an image.
    """

    note: ProtocolNote
    compute: Callable[[Image, Image | Mask, Mask], dict[str, float]]
    takes_masks: bool = False


class Tissues(Config):
    """The classes of a CT: air below `air_hu`, bone above `bone_hu`, soft tissue between."""

    air_hu: float = -200.0
    bone_hu: float = 250.0


def score(reference: Volume, prediction: Volume, mask: Volume, protocol: str | Protocol) -> Scores:
    """Score one synthetic image by one protocol.

    Parameters
    ----------
    reference, prediction : Volume
        True and synthetic image of the protocol's modality, on one grid; or a mask as prediction, where the protocol takes it.
    mask : Volume
        Where it is above 0, on the same grid.
    protocol : str or Protocol
        A name in `PROTOCOLS`, or a protocol made for the purpose (`tissue_protocol`).

    Raises
    ------
    ConfigError
        If there is no such protocol.
    GeometryError
        If the three do not lie on one grid.
    DataError
        If an image is of another modality than the protocol's, or has voxels that are not finite.
    """
    chosen = find_protocol(protocol) if isinstance(protocol, str) else protocol
    require_same_grid(reference.grid, prediction.grid, "the reference", "the prediction")
    require_same_grid(reference.grid, mask.grid, "the reference", "the mask")
    for name, volume in (("the reference", reference), ("the prediction", prediction)):
        as_mask = volume is prediction and volume.modality == "mask" and chosen.takes_masks
        if volume.modality != chosen.note.modality and not as_mask:
            raise DataError(f"{name} is of the modality {volume.modality}; the protocol {chosen.note.name} is for {chosen.note.modality}")
        volume.require_finite(name)
    raw = chosen.compute(reference.array, prediction.array, np.asarray(mask.array > 0))
    return _scores(chosen.note, raw)


def find_protocol(name: str) -> Protocol:
    """Look up a protocol, or raise `ConfigError` listing those there are."""
    if name not in PROTOCOLS:
        raise ConfigError(f"--protocol {name}: there is no such protocol; choose from {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def _scores(note: ProtocolNote, raw: dict[str, float]) -> Scores:
    reasons = {
        metric.name: IDENTICAL if np.isinf(raw[metric.name]) else metric.undefined
        for metric in note.metrics
        if not np.isfinite(raw[metric.name])
    }
    values = {metric.name: None if metric.name in reasons else float(raw[metric.name]) for metric in note.metrics}
    return Scores(protocol=note.name, mask=note.mask, clip=note.clip, values=values, reasons=reasons)


_NEAR_BORDER = "no voxel of the mask lies 3 voxels from the border"
_MAE_HU = MetricNote(name="mae_hu", label="MAE", unit="HU", better="lower")
_PSNR = MetricNote(name="psnr_db", label="PSNR", unit="dB", better="higher")
_SSIM = MetricNote(name="ssim", label="SSIM", unit="", better="higher", undefined=_NEAR_BORDER)


def _synthrad2023(reference: Image, prediction: Image, mask: Mask) -> dict[str, float]:
    clip = (-1024.0, 3000.0)
    return {
        "mae_hu": metrics.mae(reference, prediction, mask),
        "psnr_db": metrics.psnr_db(reference, prediction, mask, clip),
        "ssim": ssim_synthrad2023(reference, prediction, mask, clip),
    }


SYNTHRAD2023 = Protocol(
    ProtocolNote(
        name="synthrad2023",
        title="SynthRAD 2023",
        modality="ct",
        mask="inside the mask; SSIM with −1024 HU outside it, over its voxels at least 3 from the border",
        clip="MAE none; PSNR and SSIM [−1024, 3000] HU",
        metrics=(_MAE_HU, _PSNR, _SSIM),
    ),
    _synthrad2023,
)


def _synthrad2025(reference: Image, prediction: Image, mask: Mask) -> dict[str, float]:
    clip = (-1024.0, 3071.0)
    return {
        "mae_hu": metrics.mae(reference, prediction, mask),
        "psnr_db": metrics.psnr_db(reference, prediction, mask, clip),
        "ms_ssim": ms_ssim_synthrad2025(reference, prediction, mask, clip),
    }


SYNTHRAD2025 = Protocol(
    ProtocolNote(
        name="synthrad2025",
        title="SynthRAD 2025",
        modality="ct",
        mask="inside the mask; MS-SSIM with −1024 HU outside it, over its voxels at least 3 from the border of every scale",
        clip="MAE none; PSNR and MS-SSIM [−1024, 3071] HU",
        metrics=(
            _MAE_HU,
            _PSNR,
            MetricNote(name="ms_ssim", label="MS-SSIM", unit="", better="higher", undefined=f"at some scale {_NEAR_BORDER}"),
        ),
    ),
    _synthrad2025,
)


def tissue_protocol(tissues: Tissues) -> Protocol:
    """Error by tissue class of the true CT, and the overlap of bone, at stated thresholds.

    MAE and bias are taken over the voxels inside the mask that belong to a class in the true CT. Bone Dice compares the voxels
    inside the mask above the bone threshold in either image.
    """

    def compute(reference: Image, prediction: Image, mask: Mask) -> dict[str, float]:
        result = {"bias_hu": metrics.mean_error(reference, prediction, mask)}
        for name, region in tissue_classes(reference, mask, tissues).items():
            result[f"mae_{name}_hu"] = metrics.mae(reference, prediction, region)
            result[f"bias_{name}_hu"] = metrics.mean_error(reference, prediction, region)
        result["dice_bone"] = metrics.dice(mask & (reference > tissues.bone_hu), mask & (prediction > tissues.bone_hu))
        return result

    return Protocol(_tissue_note(tissues), compute)


def _tissue_note(tissues: Tissues) -> ProtocolNote:
    air, bone = (f"{value:g} HU".replace("-", "−") for value in (tissues.air_hu, tissues.bone_hu))
    by_class: list[MetricNote] = []
    for name in ("air", "soft", "bone"):
        absent = f"the true CT has no {name} inside the mask"
        by_class.append(MetricNote(name=f"mae_{name}_hu", label=f"MAE {name}", unit="HU", better="lower", undefined=absent))
        by_class.append(MetricNote(name=f"bias_{name}_hu", label=f"Bias {name}", unit="HU", better="zero", undefined=absent))
    return ProtocolNote(
        name="tissue",
        title="Error by tissue",
        modality="ct",
        mask=f"inside the mask, by class of the true CT: air below {air}, bone above {bone}, soft tissue between",
        clip=f"none; bone Dice between voxels above {bone}",
        metrics=(
            MetricNote(name="bias_hu", label="Bias", unit="HU", better="zero"),
            *by_class,
            MetricNote(name="dice_bone", label="Dice bone", unit="", better="higher", undefined="neither image has bone inside the mask"),
        ),
    )


def tissue_classes(reference: Image, mask: Mask, tissues: Tissues) -> dict[str, Mask]:
    """Split the mask into ``air``, ``soft`` and ``bone`` by the HU of the true CT."""
    air, bone = reference < tissues.air_hu, reference > tissues.bone_hu
    return {"air": mask & air, "soft": mask & ~air & ~bone, "bone": mask & bone}


def bone_protocol(truth: Mask | None = None) -> Protocol:
    """Overlap of bone, as the multi-atlas/U-Net/cGAN paper scores it (section 3.2, eq. 12).

    The bone of a synthetic CT is found by k-means (`transmodal.evaluation.bone`); a prediction that is a mask of bone already is taken
    as it is.

    Parameters
    ----------
    truth : ndarray of bool, shape (x, y, z), optional
        The true bone, where it is known otherwise than from the true CT. The Dice of the k-means bone of the true CT with it is then
        the ceiling, which the paper calls the ideal score. Without it that k-means bone is the truth.
    """

    def compute(reference: Image, prediction: Image | Mask, mask: Mask) -> dict[str, float]:
        clustered = bone_mask(reference, mask)
        true = clustered if truth is None else truth & mask
        found = prediction & mask if prediction.dtype == bool else bone_mask(prediction, mask)
        return {
            "dice_bone": metrics.dice(true, found),
            "precision_bone": metrics.precision(true, found),
            "recall_bone": metrics.recall(true, found),
            "dice_bone_ceiling": float("nan") if truth is None else metrics.dice(true, clustered),
        }

    return Protocol(_BONE_NOTE, compute, takes_masks=True)


_BONE_NOTE = ProtocolNote(
    name="bone",
    title="Bone by k-means",
    modality="ct",
    mask="inside the mask; of a CT, the highest of three k-means classes of its histogram in 1024 bins, with −1024 HU outside the mask",
    clip="[−1024, 3071] HU",
    metrics=(
        MetricNote(name="dice_bone", label="Dice", unit="", better="higher", undefined="neither has bone inside the mask"),
        MetricNote(name="precision_bone", label="Precision", unit="", better="higher", undefined="the prediction has no bone in the mask"),
        MetricNote(name="recall_bone", label="Recall", unit="", better="higher", undefined="the truth has no bone inside the mask"),
        MetricNote(
            name="dice_bone_ceiling",
            label="Ceiling of Dice",
            unit="",
            better="higher",
            undefined="no mask of the true bone (bone.nii.gz) lies beside the true CT, whose k-means bone is the truth",
        ),
    ),
)
BONE = bone_protocol()


def _cyclegan(reference: Image, prediction: Image, mask: Mask) -> dict[str, float]:
    return {
        "mae_hu": metrics.mae(reference, prediction, mask),
        "psnr_db": metrics.psnr_unclipped_db(reference, prediction, mask, peak=4095.0),
    }


# Eq. (5) of the unpaired CycleGAN paper prints 20 log10(4095 / MSE), which its own results of 32 dB do not fit; they fit the root.
CYCLEGAN = Protocol(
    ProtocolNote(
        name="cyclegan",
        title="Unpaired CycleGAN paper",
        modality="ct",
        mask="inside the mask",
        clip="none; PSNR of a peak of 4095 HU",
        metrics=(_MAE_HU, _PSNR),
    ),
    _cyclegan,
)


def _grey(reference: Image, prediction: Image, mask: Mask) -> tuple[Image, Image] | None:
    """Both images on grey levels from 0 to 255, not clipped; None where the real MR gives no range."""
    low, high = np.percentile(reference[mask], (0.5, 99.5)) if mask.any() else (0.0, 0.0)
    if low == high:
        return None
    x, y = ((image.astype(np.float64) - low) * (GREY_LEVELS / (high - low)) for image in (reference, prediction))
    return x, y


def _mr(reference: Image, prediction: Image, mask: Mask) -> dict[str, float]:
    clip, grey = (0.0, GREY_LEVELS), _grey(reference, prediction, mask)
    if grey is None:
        return dict.fromkeys(("mae_grey", "psnr_db", "ssim", "pearson_r"), float("nan"))
    x, y = grey
    return {
        "mae_grey": metrics.mae(x.clip(*clip), y.clip(*clip), mask),
        "psnr_db": metrics.psnr_db(x, y, mask, clip),
        "ssim": ssim_synthrad2023(x, y, mask, clip),
        "pearson_r": metrics.pearson_r(reference, prediction, mask),
    }


_NO_RANGE = "the mask is empty or the real MR is constant in it"
_ON_GREY_LEVELS = (
    MetricNote(name="mae_grey", label="MAE", unit="grey levels", better="lower", undefined=_NO_RANGE),
    MetricNote(name="psnr_db", label="PSNR", unit="dB", better="higher", undefined=_NO_RANGE),
)
MR = Protocol(
    ProtocolNote(
        name="mr",
        title="MR on 255 grey levels",
        modality="mr",
        mask="inside the mask; SSIM with 0 outside it, over its voxels at least 3 from the border",
        clip="[0, 255], the 0.5th to the 99.5th percentile of the real MR inside the mask; correlation without clipping",
        metrics=(
            *_ON_GREY_LEVELS,
            MetricNote(name="ssim", label="SSIM", unit="", better="higher", undefined=f"{_NO_RANGE}, or {_NEAR_BORDER}"),
            MetricNote(name="pearson_r", label="Pearson r", unit="", better="higher", undefined="an image is constant inside the mask"),
        ),
    ),
    _mr,
)


def _mr_gan(reference: Image, prediction: Image, mask: Mask) -> dict[str, float]:
    clip, grey = (0.0, GREY_LEVELS), _grey(reference, prediction, mask)
    if grey is None:
        return dict.fromkeys(("mae_grey", "psnr_db", "psnr_mrgan"), float("nan"))
    (x, y), everywhere = grey, np.ones_like(mask)
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
            *_ON_GREY_LEVELS,
            MetricNote(name="psnr_mrgan", label="PSNR as printed", unit="dB", better="higher", undefined=_NO_RANGE),
        ),
    ),
    _mr_gan,
)

PROTOCOLS: dict[str, Protocol] = {
    protocol.note.name: protocol for protocol in (SYNTHRAD2023, SYNTHRAD2025, tissue_protocol(Tissues()), BONE, CYCLEGAN, MR, MR_GAN)
}
