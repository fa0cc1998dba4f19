"""Paired regression: a network is fitted to true CTs, voxel by voxel.

Section 2.2 of the multi-atlas/U-Net/cGAN paper: a U-Net S is trained on random patches with the loss of eq. (1),
``L = mean (S(MR) - CT)² + GDL(S(MR), CT)``. The paper's images have CT values in [0, 4095]. Both terms are quadratic, so a common
factor on the units leaves their balance, and with Adam the training, as they are; the recipes map that range to [-1, 1].

The paper on Light_U-Net trains on whole slices with the mean absolute difference, the mean squared one, or both, of grey levels in
[0, 1], where the factor does matter.

To any of these the difference of deep features can be added, see `transmodal.methods.features`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from transmodal.contracts import LearnedMethod, Metrics, Optimization, Update
from transmodal.core.config import Config
from transmodal.core.volume import Volume
from transmodal.data.sampling import Batch
from transmodal.engine.predict import Setting, synthesize, synthesize_with_uncertainty
from transmodal.losses.voxel import Reading, gradient_difference, l1, l2
from transmodal.methods.architecture import Network, UNetSettings
from transmodal.methods.features import FeatureLoss, FeatureSettings, read_features, require_windowed_ct, restore_features
from transmodal.methods.optimizer import Adam, Optimizer


class Loss(Config):
    """Weights of the terms.

    Eq. (1) of the multi-atlas/U-Net/cGAN paper is `l2` = `gradient_difference` = 1; the loss Lw of the paper on Light_U-Net is
    `l1` = 1 and `l2` = 4.4 of grey levels in [0, 1]. A `masked` loss is that of the voxels inside the target's head mask alone.
    """

    l1: float = Field(default=0.0, ge=0)
    l2: float = Field(default=1.0, ge=0)
    gradient_difference: float = Field(default=1.0, ge=0)
    gradient_reading: Reading = "signed"
    masked: bool = False
    features: FeatureSettings | None = None


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
        if settings.loss.features:
            require_windowed_ct(setting)
        self.networks: dict[str, nn.Module] = {"generator": settings.network.build(setting.view)}
        self._features: FeatureLoss | None = None

    def initialize(self) -> None:
        """Begin with the weights, and the run of a segmentor, that the recipe names, if it does."""
        self.settings.network.initialize(self.networks["generator"])
        if self.settings.loss.features:
            self._features = read_features(Path(self.settings.loss.features.run), self.setting)

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
        return {"features": self._features.state()} if self._features else {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back the segmentor, whatever the folder of its run holds by now."""
        if self.settings.loss.features:
            self._features = restore_features(state["features"], self.setting)

    def synthesize(self, scan: Volume) -> Volume:
        """The scan in the other modality, on its own grid; see `transmodal.engine.predict.synthesize`."""
        return synthesize(self.networks["generator"], scan, self.setting)

    def synthesize_with_uncertainty(self, scan: Volume) -> tuple[Volume, Volume]:
        """The same, and the spread over planes and mirror images; see `transmodal.engine.predict.synthesize_with_uncertainty`."""
        return synthesize_with_uncertainty(self.networks["generator"], scan, self.setting)

    def _loss(self, prediction: Float[Tensor, "b 1 *s"], batch: Batch) -> Float[Tensor, ""]:
        weights, target = self.settings.loss, batch.target
        mask = batch.target_mask if weights.masked else None
        total = prediction.new_zeros(())
        if weights.l1:
            total = total + weights.l1 * l1(prediction, target, mask)
        if weights.l2:
            total = total + weights.l2 * l2(prediction, target, mask)
        if weights.gradient_difference:
            total = total + weights.gradient_difference * gradient_difference(prediction, target, weights.gradient_reading, mask)
        if weights.features:
            assert self._features, "training begins with initialize, or with load_state"
            total = total + weights.features.weight * self._features(prediction, target, mask)
        return total
