"""Paired regression: a network is fitted to true CTs, voxel by voxel.

Section 2.2 of the multi-atlas/U-Net/cGAN paper: a U-Net S is trained on random patches with the loss of eq. (1),
``L = mean (S(MR) - CT)² + GDL(S(MR), CT)``. The paper's images have CT values in [0, 4095]. Both terms are quadratic, so a common
factor on the units leaves their balance, and with Adam the training, as they are; the recipes map that range to [-1, 1].

The paper on Light_U-Net trains on whole slices with the mean absolute difference, the mean squared one, or both, of grey levels in
[0, 1], where the factor does matter.

The losses are in `transmodal.methods.paired_loss`, where the difference of deep features can be added to any of these, and the step of
the training is in `transmodal.methods.paired`.
"""

from typing import Literal

from transmodal.core.config import Config
from transmodal.core.volume import Volume
from transmodal.engine.predict import Setting, synthesize, synthesize_with_uncertainty
from transmodal.methods.architecture import Network, UNetSettings
from transmodal.methods.optimizer import Adam, Optimizer
from transmodal.methods.paired import PairedMethod
from transmodal.methods.paired_loss import Loss


class RegressionSettings(Config):
    """The ``[method]`` table of a regression recipe."""

    name: Literal["regression"] = "regression"
    network: Network = UNetSettings()
    loss: Loss = Loss()
    optimizer: Optimizer = Adam()


class Regression(PairedMethod):
    """One network from source to target; `PairedMethod` has the step of its training.

    Parameters
    ----------
    settings : RegressionSettings
    setting : Setting
        Direction, preparation, intensities and view.
    """

    Settings = RegressionSettings

    def __init__(self, settings: RegressionSettings, setting: Setting) -> None:
        settings.network.require_output(setting.intensity[setting.target], f"intensity.{setting.target}")
        super().__init__(setting, settings.network.build(setting.view), settings.loss, settings.optimizer)
        self.settings = settings

    def initialize(self) -> None:
        """Begin with the weights, and the run of a segmentor, that the recipe names, if it does."""
        self.settings.network.initialize(self.networks["generator"])
        self._loss.initialize()

    def synthesize(self, scan: Volume) -> Volume:
        """The scan in the other modality, on its own grid; see `transmodal.engine.predict.synthesize`."""
        return synthesize(self.networks["generator"], scan, self.setting)

    def synthesize_with_uncertainty(self, scan: Volume) -> tuple[Volume, Volume]:
        """The same, and the spread over planes and mirror images; see `transmodal.engine.predict.synthesize_with_uncertainty`."""
        return synthesize_with_uncertainty(self.networks["generator"], scan, self.setting)
