"""The deep-feature loss of a regression: synthetic and true CT, compared by what a segmentor of CTs sees in them.

Longuefosse et al. (see `transmodal.losses.features`), and entries to the SynthRAD 2025 challenge after them, take a network that was
trained on segmented patients. Ours is trained on the label maps of simulated heads (`transmodal.methods.tissues`). Its features are
those of every level of its encoder, after the last convolution there.

The segmentor is frozen, and no network of the method that is trained with it: it is read from its run when training begins, kept in
every checkpoint of that training, and not needed for prediction.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from transmodal.core.config import Config, validate
from transmodal.core.errors import ConfigError
from transmodal.engine.checkpoint import load_tree, load_weights
from transmodal.engine.hardware import optimize_layout
from transmodal.engine.predict import Setting
from transmodal.engine.run import Run, read_run
from transmodal.engine.train import WEIGHTS_NAME
from transmodal.imaging.intensity import IntensityMap
from transmodal.losses.features import feature_difference
from transmodal.methods.tissues import TissuesSettings


class FeatureSettings(Config):
    """The table ``[method.loss.features]``.

    Parameters
    ----------
    run : str
        The folder of a run of the method ``tissues``, such as one of the recipe ``tissues2d``. It is read when training begins, and
        never again.
    weight : float
        Of the term beside the others of the loss.
    """

    run: str
    weight: float = Field(gt=0)


class FeatureLoss:
    """A frozen segmentor, and the difference that it sees between two CTs.

    Parameters
    ----------
    run : Run
        What the segmentor's run is of.
    weights : dict
        The segmentor's weights by name.
    setting : Setting
        Of the method whose CTs are to be compared.
    where : str
        Where the segmentor comes from, for messages.

    Raises
    ------
    ConfigError
        If the run is not one of ``tissues``, or sees other images than the method makes.
    CheckpointError
        If the weights are not those of the segmentor.
    """

    def __init__(self, run: Run, weights: Mapping[str, Tensor], setting: Setting, where: str) -> None:
        _require_fit(run, setting, where)
        self.run, self.ours, self.theirs = run, _ct_map(setting), _ct_map(run.setting)
        network = validate(TissuesSettings, run.recipe["method"], f"{where}, recipe, [method]").build(run.setting.view)
        load_weights(network, weights, where)
        optimize_layout(network)
        self.network = network.eval().requires_grad_(False)

    def __call__(
        self, prediction: Float[Tensor, "b 1 *s"], target: Float[Tensor, "b 1 *s"], mask: Bool[Tensor, "b 1 *s"] | None
    ) -> Float[Tensor, ""]:
        """The difference of the features of two CTs in the method's network units; see `feature_difference`.

        With a mask, the true CT stands in for the synthetic one outside of it, where there is then no difference.
        """
        if mask is not None:
            prediction = torch.where(mask, prediction, target)
        self.network.to(prediction.device)
        with torch.no_grad():
            wanted = self.network.encode(self._in_their_units(target))
        return feature_difference(self.network.encode(self._in_their_units(prediction)), wanted)

    def state(self) -> dict[str, Any]:
        """What `restore_features` makes the same loss of."""
        return {"run": self.run.model_dump(mode="json"), "weights": self.network.state_dict()}

    def _in_their_units(self, image: Float[Tensor, "b 1 *s"]) -> Float[Tensor, "b 1 *s"]:
        """By way of HU, which are clipped as the CTs were that the segmentor was trained on."""
        hu = (image * self.ours.scale + self.ours.shift).clamp(self.theirs.lower, self.theirs.upper)
        return (hu - self.theirs.shift) / self.theirs.scale


def require_windowed_ct(setting: Setting) -> None:
    """Raise `ConfigError` unless a method makes CTs, in units that are the same for every one of them."""
    if setting.target != "ct":
        raise ConfigError(f"direction = {setting.direction}: method.loss.features compares CTs; set mr2ct, or leave the table out")
    if setting.intensity["ct"].kind != "window":
        raise ConfigError(
            f'intensity.ct.kind = "{setting.intensity["ct"].kind}": method.loss.features compares CTs by their HU; set it to "window"'
        )


def read_features(folder: Path, setting: Setting) -> FeatureLoss:
    """The loss by the segmentor of a run, for a method with this setting.

    Raises
    ------
    FileError
        If the folder is not a run.
    ConfigError, CheckpointError
        See `FeatureLoss`; also if the run has no weights.
    """
    return FeatureLoss(read_run(folder), load_tree(folder / WEIGHTS_NAME).get("segmentor", {}), setting, str(folder))


def restore_features(state: Mapping[str, Any], setting: Setting) -> FeatureLoss:
    """The loss that `FeatureLoss.state` was taken of."""
    where = "the feature network in the checkpoint"
    return FeatureLoss(validate(Run, state["run"], where), state["weights"], setting, where)


def _ct_map(setting: Setting) -> IntensityMap:
    """From HU to network units: a window, which no statistics change."""
    return setting.intensity["ct"].fit(setting.statistics["ct"])


def _require_fit(run: Run, setting: Setting, where: str) -> None:
    """Raise `ConfigError` unless the run is of a segmentor that can see the CTs of the method with this setting."""
    method, view, kind = run.recipe.get("method", {}).get("name"), run.setting.view, run.setting.intensity["ct"].kind
    if method != "tissues":
        raise ConfigError(f"{where}: a run of the method {method!r}, which learns no tissues; train the recipe tissues2d and give its run")
    if kind != "window":
        raise ConfigError(f'{where}: it was trained with intensity.ct.kind = "{kind}", which is not of HU alone; train one with "window"')
    if view.dims != setting.view.dims or view.context:
        raise ConfigError(
            f"{where}: it was trained with view.size = {view.size} and view.context = {view.context}, and the recipe has "
            f"view.size = {setting.view.size}; train one with as many numbers in its size, and without context"
        )
