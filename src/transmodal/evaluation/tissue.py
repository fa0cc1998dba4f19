"""Error and bias by tissue, at stated thresholds of the true CT."""

from transmodal.core.config import Config
from transmodal.evaluation import metrics
from transmodal.evaluation.metrics import Image, Mask
from transmodal.evaluation.protocol import Case, Found, MetricNote, Protocol, ProtocolNote


class Tissues(Config):
    """The classes of a CT: air below `air_hu`, bone above `bone_hu`, soft tissue between."""

    air_hu: float = -200.0
    bone_hu: float = 250.0


def tissue_protocol(tissues: Tissues) -> Protocol:
    """Error by tissue class of the true CT, and the overlap of bone, at stated thresholds.

    MAE and bias are taken over the voxels inside the mask that belong to a class in the true CT. Bone Dice compares the voxels
    inside the mask above the bone threshold in either image.
    """

    def compute(case: Case) -> Found:
        reference, prediction, mask = case.arrays
        result = {"bias_hu": metrics.mean_error(reference, prediction, mask)}
        for name, region in tissue_classes(reference, mask, tissues).items():
            result[f"mae_{name}_hu"] = metrics.mae(reference, prediction, region)
            result[f"bias_{name}_hu"] = metrics.mean_error(reference, prediction, region)
        result["dice_bone"] = metrics.dice(mask & (reference > tissues.bone_hu), mask & (prediction > tissues.bone_hu))
        return result

    return Protocol(_tissue_note(tissues), compute)


def tissue_classes(reference: Image, mask: Mask, tissues: Tissues) -> dict[str, Mask]:
    """Split the mask into ``air``, ``soft`` and ``bone`` by the HU of the true CT."""
    air, bone = reference < tissues.air_hu, reference > tissues.bone_hu
    return {"air": mask & air, "soft": mask & ~air & ~bone, "bone": mask & bone}


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


TISSUE = tissue_protocol(Tissues())
