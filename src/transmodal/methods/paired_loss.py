"""The tables ``[method.loss]`` of methods trained on pairs: a weighted sum of losses between a synthetic image and the true one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from transmodal.core.config import Config
from transmodal.data.sampling import Batch
from transmodal.engine.predict import Setting
from transmodal.losses.voxel import Reading, gradient_difference, l1, l2
from transmodal.methods.features import FeatureLoss, FeatureSettings, read_features, require_windowed_ct, restore_features


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


class PairedLoss:
    """The weighted sum, and the segmentor that one of its terms may need.

    Parameters
    ----------
    settings : Loss
    setting : Setting
        Of the method whose images are compared.

    Raises
    ------
    ConfigError
        If features are to be compared and the method makes no CTs in fixed units.
    """

    def __init__(self, settings: Loss, setting: Setting) -> None:
        if settings.features:
            require_windowed_ct(setting)
        self.settings, self.setting = settings, setting
        self._features: FeatureLoss | None = None

    def initialize(self) -> None:
        """Read the run of the segmentor, if the settings name one."""
        if self.settings.features:
            self._features = read_features(Path(self.settings.features.run), self.setting)

    def __call__(self, prediction: Float[Tensor, "b 1 *s"], batch: Batch) -> Float[Tensor, ""]:
        """The loss of what was made of a batch of pairs, in network units."""
        weights, target = self.settings, batch.target
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

    def state(self) -> Mapping[str, Any]:
        """The segmentor whose features are compared, if there is one."""
        return {"features": self._features.state()} if self._features else {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back the segmentor, whatever the folder of its run holds by now."""
        if self.settings.features:
            self._features = restore_features(state["features"], self.setting)
