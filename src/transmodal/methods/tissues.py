"""Tissues from a CT: a network learns the label maps of simulated heads, as far as a CT can tell their tissues apart.

It is there for what it sees on the way, the features of `transmodal.methods.features`; by itself it finds the bone in a CT.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from transmodal.contracts import LearnedMethod, Metrics, Optimization, Update
from transmodal.core.config import Config
from transmodal.core.errors import ConfigError, DataError
from transmodal.core.volume import Product, Volume
from transmodal.data.sampling import Batch, Target, View
from transmodal.data.store import Dataset
from transmodal.engine.predict import Setting
from transmodal.methods.architecture import UNetSettings
from transmodal.methods.optimizer import Adam, Optimizer
from transmodal.methods.segmentation import find_bone
from transmodal.networks.unet import UNet
from transmodal.simulation.tissues import BONE, Tissue

# Tissues whose HU are nearly the same are one class; but the brain is known by where it lies.
CLASSES = {
    "air": (Tissue.BACKGROUND, Tissue.SINUS_AIR),
    "fat": (Tissue.FAT,),
    "soft tissue": (Tissue.SKIN, Tissue.MUSCLE, Tissue.MUCOSA, Tissue.CARTILAGE, Tissue.EYE, Tissue.LENS),
    "brain": (Tissue.CSF, Tissue.GREY_MATTER, Tissue.WHITE_MATTER),
    "spongy bone": (Tissue.DIPLOE,),
    "dense bone": (Tissue.CORTICAL_BONE, Tissue.TOOTH),
}
_BONE_CLASSES = [number for number, tissues in enumerate(CLASSES.values()) if set(tissues) <= set(BONE)]


class TissuesSettings(Config):
    """The ``[method]`` table of a recipe that learns tissues."""

    name: Literal["tissues"] = "tissues"
    network: UNetSettings = UNetSettings()
    optimizer: Optimizer = Adam()

    def build(self, view: View) -> UNet:
        """The segmentor, with random weights, for such images."""
        return self.network.build(view, outputs=len(CLASSES))


class Tissues(LearnedMethod):
    """One network from a CT to the probability of each class.

    Parameters
    ----------
    settings : TissuesSettings
    setting : Setting
        Direction, which must be ``ct2mr`` because CTs go in, preparation, intensities and view.
    """

    Settings = TissuesSettings
    product: Product = "bone"

    def __init__(self, settings: TissuesSettings, setting: Setting) -> None:
        if setting.source != "ct":
            raise ConfigError(f"direction = {setting.direction}: tissues are learned from CTs; set ct2mr, by which CTs go in")
        self.settings, self.setting = settings, setting
        self.directions, self.opinions = (setting.direction,), setting.opinions
        self.networks: dict[str, nn.Module] = {"segmentor": settings.build(setting.view)}

    def learned_target(self, dataset: Dataset, subjects: Sequence[str]) -> Target:
        """The number of the class, in the order of `CLASSES`, that each voxel's tissue belongs to; of the subjects with a label map.

        Raises
        ------
        DataError
            If no subject has a label map, or one holds other numbers than those of tissues.
        """
        require_label_maps(dataset, subjects)
        numbers = _class_numbers()
        return Target("labels", lambda _, labels: numbers[labels])

    def optimizers(self) -> dict[str, Optimization]:
        """One over the segmentor."""
        optimizer = self.settings.optimizer.build(self.networks["segmentor"].parameters())
        return {"segmentor": Optimization(optimizer, ("segmentor",))}

    def training_step(self, batch: Batch, update: Update) -> Metrics:
        """The cross-entropy, one step down."""
        loss = _cross_entropy(self.networks["segmentor"](batch.source), batch.target)
        update("segmentor", loss)
        return {"loss": loss.detach()}

    def validation_step(self, batch: Batch) -> Metrics:
        """The loss, and the share of the voxels in the head whose class is found."""
        logits = self.networks["segmentor"](batch.source)
        right = (logits.argmax(dim=1, keepdim=True) == batch.target) & batch.source_mask
        return {"loss": _cross_entropy(logits, batch.target), "accuracy": right.sum() / batch.source_mask.sum().clamp(min=1)}

    def synthesize(self, scan: Volume) -> Volume:
        """The bone in a CT: where either class of bone is as likely as not."""
        return self.synthesize_with_uncertainty(scan)[0]

    def synthesize_with_uncertainty(self, scan: Volume) -> tuple[Volume, Volume]:
        """The same, and the standard deviation of the probability over planes and mirror images."""
        return find_bone(self.networks["segmentor"], _bone_probability, scan, self.setting)


def _cross_entropy(logits: Float[Tensor, "b k *s"], target: Float[Tensor, "b 1 *s"]) -> Float[Tensor, ""]:
    return cross_entropy(logits, target[:, 0].long())


def _bone_probability(logits: Float[Tensor, "b k *s"]) -> Float[Tensor, "b 1 *s"]:
    return torch.softmax(logits, dim=1)[:, _BONE_CLASSES].sum(dim=1, keepdim=True)


def _class_numbers() -> Float[np.ndarray, " t"]:
    """By tissue, the number of its class."""
    numbers = np.empty(len(Tissue), dtype=np.float32)
    for number, tissues in enumerate(CLASSES.values()):
        numbers[list(tissues)] = number
    return numbers


def require_label_maps(dataset: Dataset, subjects: Sequence[str]) -> None:
    """Raise `DataError` if no subject has a label map, or one holds other numbers than those of tissues."""
    labelled = [name for name in subjects if "labels" in dataset.manifest.subject(name).images]
    if not labelled:
        raise DataError(
            f"none of the {len(subjects)} subjects has a label map of tissues; prepare simulated heads (transmodal simulate), which do"
        )
    for name in labelled:
        _require_tissues(dataset, name)


def _require_tissues(dataset: Dataset, subject: str) -> None:
    most = int(dataset.read_all(subject, "labels").max())
    if most > max(Tissue):
        raise DataError(
            f"{subject}: its label map holds the class {most}, and tissues go from 0 to {max(Tissue)}; "
            "make heads of the map that have our tissues (transmodal simulate --labels --mapping), or leave it out"
        )
