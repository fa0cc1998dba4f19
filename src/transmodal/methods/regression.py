"""Paired regression: a network is fitted to true CTs, voxel by voxel.

Section 2.2 of the multi-atlas/U-Net/cGAN paper: a U-Net S is trained on random patches with the loss of eq. (1),
``L = mean (S(MR) - CT)² + GDL(S(MR), CT)``. The paper's images have CT values in [0, 4095]. Both terms are quadratic, so a common
factor on the units leaves their balance, and with Adam the training, as they are; the recipes map that range to [-1, 1].

The paper on Light_U-Net trains on whole slices with the mean absolute difference, the mean squared one, or both, of grey levels in
[0, 1], where the factor does matter.

To any of these the difference of deep features can be added, see `transmodal.methods.paired_loss`.
"""

from collections.abc import Mapping
from typing import Any, Literal

from torch import nn

from transmodal.contracts import LearnedMethod, Metrics, Optimization, Update
from transmodal.core.config import Config
from transmodal.core.volume import Volume
from transmodal.data.sampling import Batch
from transmodal.engine.predict import Setting, synthesize, synthesize_with_uncertainty
from transmodal.losses.voxel import l1
from transmodal.methods.architecture import Network, UNetSettings
from transmodal.methods.optimizer import Adam, Optimizer
from transmodal.methods.paired_loss import Loss, PairedLoss


class RegressionSettings(Config):
    """The ``[method]`` table of a regression recipe."""

    name: Literal["regression"] = "regression"
    network: Network = UNetSettings()
    loss: Loss = Loss()
    optimizer: Optimizer = Adam()


class Regression(LearnedMethod):
    """One network from source to target.

    Parameters
    ----------
    settings : RegressionSettings
    setting : Setting
        Direction, preparation, intensities and view.
    """

    Settings = RegressionSettings

    def __init__(self, settings: RegressionSettings, setting: Setting) -> None:
        self.settings, self.setting = settings, setting
        self.directions, self.opinions = (setting.direction,), setting.opinions
        settings.network.require_output(setting.intensity[setting.target], f"intensity.{setting.target}")
        self._loss = PairedLoss(settings.loss, setting)
        self.networks: dict[str, nn.Module] = {"generator": settings.network.build(setting.view)}

    def initialize(self) -> None:
        """Begin with the weights, and the run of a segmentor, that the recipe names, if it does."""
        self.settings.network.initialize(self.networks["generator"])
        self._loss.initialize()

    def optimizers(self) -> dict[str, Optimization]:
        """One over the generator."""
        optimizer = self.settings.optimizer.build(self.networks["generator"].parameters())
        return {"generator": Optimization(optimizer, ("generator",))}

    def training_step(self, batch: Batch, update: Update) -> Metrics:
        """One step down the weighted sum of the losses."""
        loss = self._loss(self.networks["generator"](batch.source), batch)
        update("generator", loss)
        return {"loss": loss.detach()}

    def validation_step(self, batch: Batch) -> Metrics:
        """The loss, and the mean absolute error inside the head in network units."""
        prediction = self.networks["generator"](batch.source)
        return {"loss": self._loss(prediction, batch), "mae": l1(prediction, batch.target, batch.target_mask)}

    def state(self) -> Mapping[str, Any]:
        """The segmentor whose features are compared, if there is one."""
        return self._loss.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back the segmentor, whatever the folder of its run holds by now."""
        self._loss.load_state(state)

    def synthesize(self, scan: Volume) -> Volume:
        """The scan in the other modality, on its own grid; see `transmodal.engine.predict.synthesize`."""
        return synthesize(self.networks["generator"], scan, self.setting)

    def synthesize_with_uncertainty(self, scan: Volume) -> tuple[Volume, Volume]:
        """The same, and the spread over planes and mirror images; see `transmodal.engine.predict.synthesize_with_uncertainty`."""
        return synthesize_with_uncertainty(self.networks["generator"], scan, self.setting)
