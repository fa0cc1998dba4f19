"""Paired regression: a network is fitted to true CTs, voxel by voxel.

Section 2.2 of the multi-atlas/U-Net/cGAN paper: a U-Net S is trained on random patches with the loss of eq. (1),
``L = mean (S(MR) - CT)² + GDL(S(MR), CT)``.

The paper's images have CT values in [0, 4095]. Both terms are quadratic, so a common factor on the units leaves their balance, and
with Adam the training, as they are; the recipes map that range to [-1, 1].
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from transmodal.contracts import LearnedMethod, Metrics, Optimization, Update
from transmodal.core.config import Config
from transmodal.core.volume import Volume
from transmodal.data.sampling import Batch
from transmodal.engine.predict import Setting, synthesize, synthesize_with_uncertainty
from transmodal.losses.voxel import Reading, gradient_difference, l1, l2
from transmodal.networks.unet import Norm, UNet


class Network(Config):
    """The U-Net; see `transmodal.networks.unet.UNet`."""

    channels: tuple[int, ...] = Field(default=(64, 128, 256, 512), min_length=2)
    convolutions: int = Field(default=3, gt=0)
    last_convolutions: int = Field(default=1, gt=0)
    norm: Norm = "none"


class Loss(Config):
    """Weights of the terms; the paper's eq. (1) is `l2` = `gradient_difference` = 1."""

    l1: float = Field(default=0.0, ge=0)
    l2: float = Field(default=1.0, ge=0)
    gradient_difference: float = Field(default=1.0, ge=0)
    gradient_reading: Reading = "signed"


class Adam(Config):
    """The optimiser of Kingma and Ba, 2015."""

    learning_rate: float = Field(default=1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)


class RegressionSettings(Config):
    """The ``[method]`` table of a regression recipe."""

    name: Literal["regression"] = "regression"
    network: Network = Network()
    loss: Loss = Loss()
    optimizer: Adam = Adam()


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
        network = settings.network
        self.networks: dict[str, nn.Module] = {
            "generator": UNet(
                setting.view.dims,
                in_channels=setting.view.channels,
                channels=network.channels,
                convolutions=network.convolutions,
                last_convolutions=network.last_convolutions,
                norm=network.norm,
            )
        }

    def optimizers(self) -> dict[str, Optimization]:
        """Adam over the generator."""
        adam = self.settings.optimizer
        parameters = self.networks["generator"].parameters()
        return {"generator": Optimization(torch.optim.Adam(parameters, adam.learning_rate, adam.betas), ("generator",))}

    def training_step(self, batch: Batch, update: Update) -> Metrics:
        """Eq. (1), one step down."""
        loss = self._loss(self.networks["generator"](batch.source), batch.target)
        update("generator", loss)
        return {"loss": loss.detach()}

    def validation_step(self, batch: Batch) -> Metrics:
        """The loss, and the mean absolute error inside the head in network units."""
        prediction = self.networks["generator"](batch.source)
        error = (prediction - batch.target).abs()
        inside = batch.target_mask
        return {"loss": self._loss(prediction, batch.target), "mae": (error * inside).sum() / inside.sum().clamp(min=1)}

    def synthesize(self, scan: Volume) -> Volume:
        """The scan in the other modality, on its own grid; see `transmodal.engine.predict.synthesize`."""
        return synthesize(self.networks["generator"], scan, self.setting)

    def synthesize_with_uncertainty(self, scan: Volume) -> tuple[Volume, Volume]:
        """The same, and the spread over planes and mirror images; see `transmodal.engine.predict.synthesize_with_uncertainty`."""
        return synthesize_with_uncertainty(self.networks["generator"], scan, self.setting)

    def _loss(self, prediction: Float[Tensor, "b 1 *s"], target: Float[Tensor, "b 1 *s"]) -> Float[Tensor, ""]:
        weights = self.settings.loss
        total = prediction.new_zeros(())
        if weights.l1:
            total = total + weights.l1 * l1(prediction, target)
        if weights.l2:
            total = total + weights.l2 * l2(prediction, target)
        if weights.gradient_difference:
            total = total + weights.gradient_difference * gradient_difference(prediction, target, weights.gradient_reading)
        return total
