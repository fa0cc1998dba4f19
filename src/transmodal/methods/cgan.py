"""Paired adversarial regression: a network is fitted to true CTs, and a discriminator asks of its CTs that they look like true ones.

Two published methods are settings of this one:

- The adversarial U-Net in section 2.3 of the multi-atlas/U-Net/cGAN paper. With S the generator and C the discriminator, eqs. (3), (4):

  ``L(S) = mean (S(MR) - CT)² + GDL(S(MR), CT) + 1/2 (C(S(MR)) - 1)²``,
  ``L(C) = 1/2 (C(CT) - 1)² + 1/2 C(S(MR))²``

  Both are computed in one forward pass, and S is updated before C. The paper calls this a conditional GAN; but in both equations C is
  given a CT alone, so the recipe is not `conditional`.
- pix2pix (Isola, Zhu, Zhou, Efros, "Image-to-image translation with conditional adversarial networks", CVPR 2017), which the paper on
  CycleGAN from unpaired slices trains its own generator by for comparison. C is given source and target as two channels of one image:

  ``L(S) = 100 mean |S(MR) - CT| - log σ(C(MR, S(MR)))``,
  ``L(C) = -1/2 log σ(C(MR, CT)) - 1/2 log(1 - σ(C(MR, S(MR))))``

  Its section 3.3 trains the discriminator first, and halves its objective. The noise that pix2pix adds by dropout is that of its own
  U-Net; the generator of CycleGAN has none.

The papers go from MR to CT. With `both_ways`, another generator and another discriminator learn the way back from the same pairs. Nothing
passes between the two ways in training; the error of the first chooses the step whose weights of both are kept.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from transmodal.contracts import LearnedMethod, Metrics, Optimization, Preview, Update
from transmodal.core.config import Config
from transmodal.core.errors import ConfigError
from transmodal.core.volume import Direction, Volume, reverse, target_of
from transmodal.data.sampling import Batch
from transmodal.engine.health import ImageHealth
from transmodal.engine.predict import Setting, cycle, synthesize, synthesize_with_uncertainty
from transmodal.losses.adversarial import Adversarial, generator_loss
from transmodal.losses.voxel import l1
from transmodal.methods.adversary import Discriminator, Judge, PatchGANSettings, adam, require_images, require_slopes
from transmodal.methods.architecture import Network, UNetSettings
from transmodal.methods.paired_loss import Loss, PairedLoss

_EPSILON = 1e-6

Images = Float[Tensor, "b 1 h w"]


class CGANSettings(Config):
    """The ``[method]`` table of a paired adversarial recipe.

    Parameters
    ----------
    both_ways : bool
        Whether the way back is learned as well, which doubles the time of training.
    generator : Network
    discriminator : Discriminator
    conditional : bool
        Whether the discriminator sees the source beside the target, or the target alone.
    adversarial : {"least_squares", "cross_entropy", "wasserstein"}
    gradient_penalty : float
        Its weight, for ``wasserstein``.
    loss : Loss
        Weights of the terms between the synthetic image and the true one.
    adversarial_weight : float
        Of the adversarial term beside them.
    discriminator_weight : float
        The factor on the discriminator's loss.
    discriminator_first : bool
        Whether the discriminator is updated before the generator, whose loss is then computed with the discriminator's new weights.
    learning_rate_generator, learning_rate_discriminator : float
    beta_1, beta_2 : float
        Of Adam.
    """

    name: Literal["cgan"] = "cgan"
    both_ways: bool = False
    generator: Network = UNetSettings()
    discriminator: Discriminator = PatchGANSettings()
    conditional: bool = False
    adversarial: Adversarial = "least_squares"
    gradient_penalty: float = Field(default=10.0, ge=0)
    loss: Loss = Loss()
    adversarial_weight: float = Field(default=0.5, ge=0)
    discriminator_weight: float = Field(default=0.5, gt=0)
    discriminator_first: bool = False
    learning_rate_generator: float = Field(default=1e-4, gt=0)
    learning_rate_discriminator: float = Field(default=1e-4, gt=0)
    beta_1: float = Field(default=0.9, ge=0, lt=1)
    beta_2: float = Field(default=0.999, ge=0, lt=1)

    @model_validator(mode="after")
    def _fair(self) -> "CGANSettings":
        require_slopes(self.discriminator, self.adversarial)
        return self


class CGAN(LearnedMethod):
    """A generator and a discriminator for each way: ``generator_mr2ct`` and ``discriminator_ct``, and those of the way back.

    Parameters
    ----------
    settings : CGANSettings
    setting : Setting
        Its direction is the first of the two, or the only one. The view must be of single slices.

    Raises
    ------
    ConfigError
        If the networks are not for such images.
    """

    Settings = CGANSettings

    def __init__(self, settings: CGANSettings, setting: Setting) -> None:
        require_images(setting.view, 1, "method")
        if settings.both_ways and settings.loss.features:
            raise ConfigError("method.both_ways: the features of method.loss are those of CTs, and the way back makes MRs; set it to false")
        self.settings, self.setting, self.opinions = settings, setting, setting.opinions
        self.directions = (setting.direction, reverse(setting.direction)) if settings.both_ways else (setting.direction,)
        for direction in self.directions:
            target, unless = target_of(direction), "" if direction == setting.direction else ", unless method.both_ways = false"
            settings.generator.require_output(setting.intensity[target], f"intensity.{target}{unless}")
        self.networks: dict[str, nn.Module] = {}
        self._ways: dict[Direction, _Way] = {way: _Way(settings, setting.towards(way), self.networks) for way in self.directions}

    def initialize(self) -> None:
        """Begin with the weights, and the run of a segmentor, that the recipe names, if it does."""
        for way in self._ways.values():
            way.initialize()

    def optimizers(self) -> dict[str, Optimization]:
        """One over each network."""
        chosen, found = self.settings, {}
        for way in self._ways.values():
            rates = {way.generator: chosen.learning_rate_generator, way.discriminator: chosen.learning_rate_discriminator}
            for name, rate in rates.items():
                optimizer = adam(self.networks[name].parameters(), rate, (chosen.beta_1, chosen.beta_2))
                found[name] = Optimization(optimizer, (name,))
        return found

    def training_step(self, batch: Batch, update: Update) -> Metrics:
        """The step of each way."""
        metrics = {}
        for direction, way in self._ways.items():
            metrics |= way.training_step(self._towards(direction, batch), update)
        return metrics

    def validation_step(self, batch: Batch) -> Metrics:
        """Errors and losses of each way; the mean absolute error of the first, inside the head, chooses the best weights."""
        metrics = {}
        for direction, way in self._ways.items():
            metrics |= way.validation_step(self._towards(direction, batch))
        return {"loss": metrics[f"mae_{self.setting.target}"], **metrics}

    def preview(self, batch: Batch) -> Preview:
        """The source, the synthetic target and the true one, each between the darkest and the brightest of the batch's real images."""
        columns = {}
        for direction, way in self._ways.items():
            columns |= way.preview(self._towards(direction, batch))
        return columns

    def synthesize(self, scan: Volume) -> Volume:
        """The scan in the other modality, on its own grid; see `transmodal.engine.predict.synthesize`."""
        way = self._from(scan)
        return synthesize(self.networks[way.generator], scan, way.setting)

    def synthesize_with_uncertainty(self, scan: Volume) -> tuple[Volume, Volume]:
        """The same, and the spread over planes and mirror images; see `transmodal.engine.predict.synthesize_with_uncertainty`."""
        way = self._from(scan)
        return synthesize_with_uncertainty(self.networks[way.generator], scan, way.setting)

    def cycle(self, scan: Volume) -> Volume:
        """The scan made again by the one generator from what the other makes of it; see `transmodal.engine.predict.cycle`."""
        if not self.settings.both_ways:
            return super().cycle(scan)
        there = self._from(scan)
        back = self._ways[reverse(there.setting.direction)]
        return cycle(self.networks[there.generator], self.networks[back.generator], scan, there.setting)

    def state(self) -> Mapping[str, Any]:
        """What the losses and the health are measured by."""
        return {direction: way.state() for direction, way in self._ways.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        for direction, way in self._ways.items():
            way.load_state(state[direction])

    def _towards(self, direction: Direction, batch: Batch) -> Batch:
        """The batch, with source and target exchanged for the way back."""
        if direction == self.setting.direction:
            return batch
        return Batch(batch.target, batch.source, batch.target_mask, batch.source_mask, paired=batch.paired)

    def _from(self, scan: Volume) -> "_Way":
        """The way that begins at the scan's modality, or the first."""
        return next((way for way in self._ways.values() if way.setting.source == scan.modality), self._ways[self.setting.direction])


class _Way:
    """One direction: its two networks, which it adds to those of the method, and their losses."""

    def __init__(self, settings: CGANSettings, setting: Setting, networks: dict[str, nn.Module]) -> None:
        self.settings, self.setting, self.networks = settings, setting, networks
        self.generator, self.discriminator = f"generator_{setting.direction}", f"discriminator_{setting.target}"
        networks[self.generator] = settings.generator.build(setting.view)
        networks[self.discriminator] = settings.discriminator.build(setting.view, 2 if settings.conditional else 1)
        self._loss = PairedLoss(settings.loss, setting)
        self._judge = Judge(self.discriminator, settings.adversarial, settings.gradient_penalty)
        self._health = ImageHealth(self.generator)

    def initialize(self) -> None:
        self.settings.generator.initialize(self.networks[self.generator])
        self._loss.initialize()

    def training_step(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        """One forward pass of the generator, and then the step of each network in the order of the settings."""
        synthetic, metrics = self.networks[self.generator](batch.source), {}
        steps = [self._train_generator, self._train_discriminator]
        for train in reversed(steps) if self.settings.discriminator_first else steps:
            metrics |= train(batch, synthetic, update)
        return metrics | self._health.measure(batch.source, synthetic, batch.target)

    def validation_step(self, batch: Batch) -> dict[str, Tensor]:
        """The mean absolute error inside the head in network units, and the generator's losses."""
        synthetic = self.networks[self.generator](batch.source)
        error = l1(synthetic, batch.target, batch.target_mask)
        return {f"mae_{self.setting.target}": error, **self._generator_loss(batch, synthetic)[1]}

    def preview(self, batch: Batch) -> dict[str, Images]:
        synthetic, target = self.networks[self.generator](batch.source), self.setting.target.upper()
        return {
            self.setting.source.upper(): _grey(batch.source, batch.source),
            f"s{target}": _grey(synthetic, batch.target),
            target: _grey(batch.target, batch.target),
        }

    def state(self) -> dict[str, Any]:
        return {"loss": self._loss.state(), "health": self._health.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._loss.load_state(state["loss"])
        self._health.load_state(state["health"])

    def _train_generator(self, batch: Batch, synthetic: Images, update: Update) -> dict[str, Tensor]:
        loss, metrics = self._generator_loss(batch, synthetic)
        update(self.generator, loss)
        return metrics

    def _train_discriminator(self, batch: Batch, synthetic: Images, update: Update) -> dict[str, Tensor]:
        real, made = (self._shown(batch, images) for images in (batch.target, synthetic))
        loss, metrics = self._judge.loss(self.networks[self.discriminator], real, made)
        update(self.discriminator, self.settings.discriminator_weight * loss)
        return metrics

    def _generator_loss(self, batch: Batch, synthetic: Images) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The generator's loss, and its terms."""
        paired, target = self._loss(synthetic, batch), self.setting.target
        adversarial = generator_loss(self.settings.adversarial, self.networks[self.discriminator](self._shown(batch, synthetic)))
        total = paired + self.settings.adversarial_weight * adversarial
        terms = {self.generator: total, f"paired_{target}": paired, f"adversarial_{target}": adversarial}
        return total, {name: term.detach() for name, term in terms.items()}

    def _shown(self, batch: Batch, target: Images) -> Float[Tensor, "b c h w"]:
        """What the discriminator is given of a target, true or synthetic."""
        return torch.cat([batch.source, target], dim=1) if self.settings.conditional else target


def _grey(images: Images, real: Images) -> Images:
    """Images with 0 and 1 for the least and the greatest value of the real ones."""
    low, high = real.aminmax()
    return (images.float() - low) / (high - low).clamp(min=_EPSILON)
