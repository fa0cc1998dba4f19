"""What a protocol is: named metrics with the mask and the clip range that a number needs to mean anything, computed of a case."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from transmodal.core.config import Config
from transmodal.core.errors import DataError
from transmodal.core.volume import Modality, Volume, require_same_grid
from transmodal.evaluation.metrics import Image, Mask

EMPTY_MASK = "no voxel inside the mask"
IDENTICAL = "infinite: the images agree in every voxel of the mask"

Side = Literal["reference", "prediction"]
# What a protocol finds: a value, which may be NaN, or in words why there is none.
Found = Mapping[str, float | str]


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
        Why the value may be missing, where the protocol does not say it of the case.
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
    details : dict
        The same for what only this case has, such as the Dice of each of its labels; it has no statistics over the cases.
    reasons : dict
        Name to the reason, for each value or detail that is None.
    """

    protocol: str
    mask: str
    clip: str
    values: dict[str, float | None]
    details: dict[str, float | None] = {}
    reasons: dict[str, str]


@dataclass(frozen=True, eq=False)
class Case:
    """One synthetic image, the true one, and what lies beside them, on one grid.

    Parameters
    ----------
    reference, prediction : Volume
        True and synthetic image; the latter may be a mask, where a protocol takes it.
    mask : Volume
        Where it is above 0.
    companions : dict
        Whose they are and what they are called to the volume, such as ``("reference", "bone")``.

    Raises
    ------
    GeometryError
        If these do not lie on one grid.
    DataError
        If a voxel of any of them is not finite.
    """

    reference: Volume
    prediction: Volume
    mask: Volume
    companions: Mapping[tuple[Side, str], Volume] = field(default_factory=dict)

    def __post_init__(self) -> None:
        beside = {f"{stem} beside the {side}": volume for (side, stem), volume in self.companions.items()}
        for name, volume in {"the reference": self.reference, "the prediction": self.prediction, "the mask": self.mask, **beside}.items():
            require_same_grid(self.reference.grid, volume.grid, "the reference", name)
            volume.require_finite(name)

    @cached_property
    def inside(self) -> Mask:
        """The voxels of the mask."""
        return np.asarray(self.mask.array > 0)

    @property
    def arrays(self) -> tuple[Image, Image | Mask, Mask]:
        """Reference, prediction and mask, in the order in which the metrics take them."""
        return self.reference.array, self.prediction.array, self.inside


@dataclass(frozen=True)
class Companion:
    """A volume beside the true or the synthetic image that a protocol looks at.

    Parameters
    ----------
    stem : str
        What its file is called: ``labels`` is ``labels.nii.gz`` beside the true CT, and ``sct_labels.nii.gz`` beside the synthetic one.
    modality : Modality
    of : {"reference", "prediction", "both"}
        Beside which image it lies.
    required : bool
        Whether the protocol has no values without it.
    """

    stem: str
    modality: Modality
    of: Literal["reference", "prediction", "both"]
    required: bool = True

    @property
    def keys(self) -> tuple[tuple[Side, str], ...]:
        """What it is called among the companions of a `Case`."""
        sides: tuple[Side, ...] = ("reference", "prediction") if self.of == "both" else (self.of,)
        return tuple((side, self.stem) for side in sides)


@dataclass(frozen=True)
class Protocol:
    """A protocol that can be computed.

    Parameters
    ----------
    note : ProtocolNote
    compute : callable
        Gives a value for each metric of `note`; what it gives beyond them are details.
    companions : tuple of Companion
        What it looks at beside the images and the mask; of those that it does not require, a case may lack any.
    takes_masks : bool
        Whether the prediction may be a mask of what the protocol looks for, instead of an image.
    require : callable
        Raises `ConfigError` where something that it needs is not installed; for asking before long work.
    """

    note: ProtocolNote
    compute: Callable[[Case], Found]
    companions: tuple[Companion, ...] = ()
    takes_masks: bool = False
    require: Callable[[], object] = lambda: None


def score(case: Case, protocol: Protocol) -> Scores:
    """Score one synthetic image by one protocol; without a companion that it requires, nothing is defined and the reason names the file.

    Raises
    ------
    DataError
        If an image is of another modality than the protocol's.
    """
    for name, volume in (("the reference", case.reference), ("the prediction", case.prediction)):
        as_mask = volume is case.prediction and volume.modality == "mask" and protocol.takes_masks
        if volume.modality != protocol.note.modality and not as_mask:
            raise DataError(
                f"{name} is of the modality {volume.modality}; the protocol {protocol.note.name} is for {protocol.note.modality}"
            )
    missing = _missing(case, protocol)
    return _scores(protocol.note, {metric.name: missing for metric in protocol.note.metrics} if missing else protocol.compute(case))


def _missing(case: Case, protocol: Protocol) -> str:
    """Name the required files that are not there; empty if none."""
    image = protocol.note.modality
    places = {"reference": ("", f"true {image.upper()}"), "prediction": (f"s{image}_", f"synthetic {image.upper()}")}
    keys = (key for companion in protocol.companions if companion.required for key in companion.keys)
    absent = ((*places[side], stem) for side, stem in keys if (side, stem) not in case.companions)
    return ", ".join(f"there is no {prefix}{stem}.nii.gz beside the {beside}" for prefix, beside, stem in absent)


def _scores(note: ProtocolNote, found: Found) -> Scores:
    undefined = {metric.name: metric.undefined for metric in note.metrics}
    reasons = {name: reason for name, value in found.items() if (reason := _reason(value, undefined.get(name, EMPTY_MASK)))}
    values = {name: None if name in reasons or isinstance(value, str) else float(value) for name, value in found.items()}
    return Scores(
        protocol=note.name,
        mask=note.mask,
        clip=note.clip,
        values={name: values.pop(name) for name in undefined},
        details=values,
        reasons=reasons,
    )


def _reason(value: float | str, undefined: str) -> str:
    """Why a value is not to be reported; empty if it is."""
    if isinstance(value, str):
        return value
    return undefined if np.isnan(value) else IDENTICAL if np.isinf(value) else ""
