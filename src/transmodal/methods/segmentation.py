"""Bone from an MR directly: a network learns the bone that k-means finds in the true CT.

The comparison in section 3.3 of the multi-atlas/U-Net/cGAN paper, "2D U-Net, direct MRI segmentation": the U-Net of its section 2.2,
trained with weighted cross-entropy. The paper does not state the weight, nor what its masks of bone for training are. Here they are
the k-means bone of each true CT within its head (`transmodal.evaluation.bone`), which is also what predictions are scored against.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from transmodal.contracts import LearnedMethod, Metrics, Optimization, Update
from transmodal.core.config import Config
from transmodal.core.errors import ConfigError, DataError
from transmodal.core.volume import Product, Volume
from transmodal.data.sampling import Batch, Target
from transmodal.data.store import Dataset
from transmodal.engine.predict import Setting, place_soft, predict_prepared, prepare_source
from transmodal.evaluation.bone import bone_threshold_hu
from transmodal.methods.architecture import UNetSettings
from transmodal.methods.optimizer import Adam, Optimizer


class SegmentationSettings(Config):
    """The ``[method]`` table of a segmentation recipe.

    Parameters
    ----------
    network : UNetSettings
    bone_weight : float
        What a voxel of bone counts in the cross-entropy, where any other voxel counts 1.
    optimizer : Optimizer
    """

    name: Literal["segmentation"] = "segmentation"
    network: UNetSettings = UNetSettings()
    bone_weight: float = Field(default=3.0, gt=0)
    optimizer: Optimizer = Adam()


class Segmentation(LearnedMethod):
    """One network from an MR to the probability of bone.

    Parameters
    ----------
    settings : SegmentationSettings
    setting : Setting
        Direction, which must be ``mr2ct``, preparation, intensities and view.
    """

    Settings = SegmentationSettings
    product: Product = "bone"

    def __init__(self, settings: SegmentationSettings, setting: Setting) -> None:
        if setting.direction != "mr2ct":
            raise ConfigError(f"direction = {setting.direction}: segmentation learns from CTs to find bone in MRs; set mr2ct")
        self.settings, self.setting = settings, setting
        self.directions, self.opinions = (setting.direction,), setting.opinions
        self.networks: dict[str, nn.Module] = {"segmentor": settings.network.build(setting.view)}

    def learned_target(self, dataset: Dataset, subjects: Sequence[str]) -> Target:
        """Bone: 1 from the HU on from which k-means calls a voxel of that subject's CT bone, and below 0."""
        levels = {name: _bone_level(dataset, name) for name in subjects if dataset.manifest.subject(name).paired}
        return Target("ct", lambda subject, hu: (hu >= levels[subject]).astype(np.float32))

    def optimizers(self) -> dict[str, Optimization]:
        """One over the segmentor."""
        optimizer = self.settings.optimizer.build(self.networks["segmentor"].parameters())
        return {"segmentor": Optimization(optimizer, ("segmentor",))}

    def training_step(self, batch: Batch, update: Update) -> Metrics:
        """The weighted cross-entropy, one step down."""
        loss = self._loss(self.networks["segmentor"](batch.source), batch.target)
        update("segmentor", loss)
        return {"loss": loss.detach()}

    def validation_step(self, batch: Batch) -> Metrics:
        """The loss, and the Dice overlap of bone in the batch."""
        logits = self.networks["segmentor"](batch.source)
        found, true = logits > 0, batch.target > 0
        voxels = found.sum() + true.sum()
        return {"loss": self._loss(logits, batch.target), "dice": 2 * (found & true).sum() / voxels.clamp(min=1)}

    def synthesize(self, scan: Volume) -> Volume:
        """The bone in an MR: where its probability, averaged and brought to the scan's own grid, is at least one half."""
        return self.synthesize_with_uncertainty(scan)[0]

    def synthesize_with_uncertainty(self, scan: Volume) -> tuple[Volume, Volume]:
        """The same, and the standard deviation of the probability over planes and mirror images."""
        return find_bone(self.networks["segmentor"], torch.sigmoid, scan, self.setting)

    def _loss(self, logits: Float[Tensor, "b 1 *s"], target: Float[Tensor, "b 1 *s"]) -> Float[Tensor, ""]:
        return binary_cross_entropy_with_logits(logits, target, pos_weight=logits.new_tensor(self.settings.bone_weight))


def find_bone(network: nn.Module, probability: Callable[[Tensor], Tensor], scan: Volume, setting: Setting) -> tuple[Volume, Volume]:
    """The bone in a scan, and how far the opinions on it differ.

    Parameters
    ----------
    network : Module
    probability : callable
        From the network's output, shape (b, d, *s), to the probability of bone, shape (b, 1, *s).
    scan : Volume
        Of the source modality, on any grid.
    setting : Setting

    Returns
    -------
    Volume
        A mask on the scan's own grid: where the probability, averaged and brought to that grid, is at least one half.
    Volume
        The standard deviation of the probability over planes and mirror images.
    """
    prepared = prepare_source(scan, setting)
    found = predict_prepared(_Probability(network, probability), prepared, setting)
    likely = place_soft(found.mean, prepared, scan, setting.source).array >= 0.5
    return scan.with_array(likely, "mask"), place_soft(found.sd, prepared, scan, "uncertainty")


class _Probability(nn.Module):
    """A network followed by what makes a probability of its output, so that probabilities are blended and averaged."""

    def __init__(self, network: nn.Module, probability: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.probability, self.stride = network, probability, getattr(network, "stride", 1)

    def forward(self, image: Float[Tensor, "b c *s"]) -> Float[Tensor, "b 1 *s"]:
        return self.probability(self.network(image).float())


def _bone_level(dataset: Dataset, subject: str) -> float:
    level = bone_threshold_hu(dataset.read_all(subject, "ct"), dataset.read_all(subject, "ct_mask") > 0)
    if np.isnan(level):
        raise DataError(f"{subject}: the CT has fewer than three grey levels in the head, so that it has no bone; leave the subject out")
    return level
