"""A network for MRs of any contrast, trained on label maps alone.

Every step makes new pairs of MR and CT from the label maps of a dataset (`transmodal.methods.generation`); its MRs serve only to watch the
training. The loss is that of regression, between the CT that the network makes of the drawn MR and the CT drawn with it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Shaped
from pydantic import Field
from torch import Tensor, nn

from transmodal.contracts import Metrics, Preview, Update
from transmodal.core.config import Config
from transmodal.core.errors import ConfigError
from transmodal.core.volume import Volume
from transmodal.data.sampling import Batch, Target
from transmodal.data.store import Dataset
from transmodal.engine.moments import Moments
from transmodal.engine.predict import Setting, place_result, place_soft, predict_channels, predict_prepared, prepare_source
from transmodal.imaging.intensity import PercentileIntensity, WindowIntensity
from transmodal.imaging.preparation import PreparedScan
from transmodal.losses.voxel import l1, laplace
from transmodal.methods.architecture import UNetSettings
from transmodal.methods.exposures import Exposure, fuse
from transmodal.methods.generation import PERCENTILES, Generation, draw_pairs
from transmodal.methods.optimizer import Adam, Optimizer
from transmodal.methods.paired import PairedMethod
from transmodal.methods.paired_loss import Loss
from transmodal.methods.tissues import require_label_maps
from transmodal.simulation.tissues import Tissue, tissue_table

# Network units of the two percentiles of a drawn MR.
ONTO = (-1.0, 1.0)
# Of the logarithm of the spread, in network units: from about a HU to more than the whole window.
_LOG_SPREAD = (-7.0, 2.0)


class AnyMRSettings(Config):
    """The ``[method]`` table of a recipe that learns from label maps.

    Parameters
    ----------
    gain, shift : float
        Largest relative gain and largest offset of a drawn MR in network units: the percentiles of a patch are not those of its head.
    darkness : float
        Drawn MRs are raised to so many times the power that scans are (``intensity.mr.power``). A scan is then among the brightest that
        the network knows, in which fluid, bone and air lie furthest apart.
    brighter : tuple of Exposure
        Further exposures of a scan, brighter than that of ``intensity.mr``, for bone that is as dark as air; each takes as long as one.
    spread : float
        Weight of the likelihood by which the second channel learns how far off the first may be.
    calibration : float
        What the standard deviations are multiplied by, so that they cover on heads that were held out what they should.
    """

    name: Literal["any-mr"] = "any-mr"
    generation: Generation = Generation()
    gain: float = Field(default=0.2, ge=0, lt=1)
    shift: float = Field(default=0.1, ge=0)
    darkness: float = Field(default=1.75, gt=0)
    brighter: tuple[Exposure, ...] = ()
    spread: float = Field(default=0.05, ge=0)
    calibration: float = Field(default=1.0, gt=0)
    network: UNetSettings = UNetSettings()
    loss: Loss = Loss()
    optimizer: Optimizer = Adam()


class AnyMR(PairedMethod):
    """One network from an MR of any contrast to the CT.

    Parameters
    ----------
    settings : AnyMRSettings
    setting : Setting
        Direction, which must be ``mr2ct``, preparation, intensities (percentiles of MRs, a window of CTs) and view.
    """

    Settings = AnyMRSettings

    def __init__(self, settings: AnyMRSettings, setting: Setting) -> None:
        self._power = settings.darkness * _drawable(setting).power
        super().__init__(setting, settings.network.build(setting.view, outputs=2), settings.loss, settings.optimizer)
        self.settings = settings
        self._exposures = (setting, *(exposure.of(setting) for exposure in settings.brighter))
        # What the network expects of itself, beside mirror images and exposures.
        self.opinions = 1 + len(self._exposures) * setting.opinions

    def initialize(self) -> None:
        """Read the run of a segmentor, if the recipe names one."""
        self._loss.initialize()

    def learned_target(self, dataset: Dataset, subjects: Sequence[str]) -> Target:
        """The tissue of each voxel, of the subjects with a label map.

        Raises
        ------
        DataError
            If no subject has a label map, or one holds other numbers than those of tissues.
        """
        require_label_maps(dataset, subjects)
        return Target("labels", lambda _, labels: labels.astype(np.float32), alone=True)

    def training_step(self, batch: Batch, update: Update) -> Metrics:
        """One step down the loss between the CTs that are made of new MRs and those that were drawn with them."""
        drawn = self.draw(batch)
        ct, log_spread = self.networks["generator"](drawn.source).split(1, dim=1)
        likelihood = laplace((ct - drawn.target).detach(), log_spread.clamp(*_LOG_SPREAD))
        loss = self._loss(ct, drawn)
        update("generator", loss + self.settings.spread * likelihood)
        return {"loss": loss.detach(), "likelihood": likelihood.detach()}

    def validation_step(self, batch: Batch) -> Metrics:
        """The mean absolute error in network units on the MRs of the dataset, beside the mean CT of each tissue; it is the ``loss``."""
        prediction = self.networks["generator"](batch.source)[:, :1]
        return {"loss": l1(prediction, self._mean_ct(batch.target), batch.target_mask)}

    def preview(self, batch: Batch) -> Preview:
        """Of slices: a drawn MR, the CT made of it, and the CT drawn with it."""
        if self.setting.view.dims == 3:
            return {}
        drawn = self.draw(batch)
        sct = self.networks["generator"](drawn.source)[:, :1]
        images = {"MR": self._middle(drawn.source), "sCT": sct, "CT": drawn.target}
        return {name: ((image + 1) / 2).clamp(0, 1) for name, image in images.items()}

    def draw(self, batch: Batch) -> Batch:
        """Pairs of MR and CT, in network units, of the label maps that stand for the source of a batch.

        The slices of a 2.5D view are drawn together, as the volume that they are; of the CT the middle one is learned.
        """
        labels = batch.source[:, None] if self.setting.view.context else batch.source
        pairs = draw_pairs(labels, self.settings.generation)
        mr, ct, mask = (image.view_as(batch.source) for image in (pairs.mr, pairs.ct, pairs.mask))
        mr = ONTO[0] + (ONTO[1] - ONTO[0]) * mr**self._power
        gain, shift = (amount * _signed_like(mr) for amount in (self.settings.gain, self.settings.shift))
        source, target, mask = (1 + gain) * mr + shift, self._to_network(self._middle(ct)), self._middle(mask)
        return replace(batch, source=source, target=target, source_mask=mask, target_mask=mask)

    def synthesize(self, scan: Volume) -> Volume:
        """The CT, on the scan's own grid: one of all exposures; see `transmodal.methods.exposures`."""
        network, prepared = self.networks["generator"], prepare_source(scan, self.setting)
        return self._place([predict_prepared(network, prepared, exposure).mean for exposure in self._exposures], prepared, scan)

    def synthesize_with_uncertainty(self, scan: Volume) -> tuple[Volume, Volume]:
        """The same, and a standard deviation in HU, float32, 0 outside the head.

        Its square is the variance over the exposures, and the mean of what each has by itself: the variance over mirror images and that
        of the Laplace distribution which the network has learned; times a factor for all to cover what they should
        (`AnyMRSettings.calibration`).
        """
        network, prepared = WithSpread(self.networks["generator"]), prepare_source(scan, self.setting)
        made, between, own = [], Moments(), Moments()
        for exposure in self._exposures:
            found, learned = predict_channels(network, prepared, exposure, 2)
            made.append(found.mean)
            between.add(found.mean)
            own.add(found.sd**2 + 2 * learned.mean**2)
        sd = np.float32(self.settings.calibration * self.setting.target_map.scale) * np.sqrt(between.sd**2 + own.mean)
        return self._place(made, prepared, scan), place_soft(sd, prepared, scan, "uncertainty")

    def _place(self, exposures: Sequence[Float[np.ndarray, "x y z"]], prepared: PreparedScan, scan: Volume) -> Volume:
        ct = fuse(*(self.setting.target_map.inverse(exposure) for exposure in exposures))
        return place_result(ct, prepared, scan, self.setting.target)

    def _middle(self, slices: Shaped[Tensor, "b c *s"]) -> Shaped[Tensor, "b 1 *s"]:
        context = self.setting.view.context
        return slices[:, context : context + 1]

    def _mean_ct(self, labels: Float[Tensor, "b 1 *s"]) -> Float[Tensor, "b 1 *s"]:
        table = tissue_table()
        hu = torch.tensor([table[tissue].hu for tissue in Tissue], device=labels.device)
        return self._to_network(hu[labels.long()])

    def _to_network(self, hu: Float[Tensor, "b 1 *s"]) -> Float[Tensor, "b 1 *s"]:
        window = self.setting.target_map
        return (hu.clamp(window.lower, window.upper) - window.shift) / window.scale


class WithSpread(nn.Module):
    """A network of two channels of output, with the mean absolute error that it expects of itself in place of its logarithm."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.stride = network, getattr(network, "stride", 1)

    def forward(self, image: Float[Tensor, "b c *s"]) -> Float[Tensor, "b 2 *s"]:
        """The CT and that error, in network units."""
        ct, log_spread = self.network(image).float().split(1, dim=1)
        return torch.cat([ct, log_spread.clamp(*_LOG_SPREAD).exp()], dim=1)


def _signed_like(images: Float[Tensor, "b c *s"]) -> Float[Tensor, "b 1 *ones"]:
    """A number from -1 to 1 for each image."""
    return 2 * torch.rand(len(images), *[1] * (images.ndim - 1), device=images.device) - 1


def _drawable(setting: Setting) -> PercentileIntensity:
    """How MRs are scaled, if they can be drawn so."""
    if setting.direction != "mr2ct":
        raise ConfigError(f"direction = {setting.direction}: MRs of any contrast are drawn, and CTs learned; set mr2ct")
    mr, ct = setting.intensity["mr"], setting.intensity["ct"]
    as_drawn = (*PERCENTILES, ONTO, None)
    if isinstance(mr, PercentileIntensity) and isinstance(ct, WindowIntensity) and (mr.lower, mr.upper, mr.onto, mr.levels) == as_drawn:
        return mr
    raise ConfigError(
        f"drawn MRs are scaled by the percentiles {PERCENTILES[0]:g} and {PERCENTILES[1]:g} onto [-1, 1], and drawn CTs are in HU; "
        'set intensity.mr.kind = "percentile", without lower, upper, onto and levels, and intensity.ct.kind = "window"'
    )
