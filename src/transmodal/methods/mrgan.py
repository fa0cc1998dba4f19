"""MR-GAN: both directions, from pairs and from scans of different people, in turn.

Section II of the MR-GAN paper, which makes MRs of CTs. With S a generator and D the discriminator of what it makes, S' the generator back,
x the source and y the target:

=========  =======================================  ========================================================
step       discriminator D                          generator S
=========  =======================================  ========================================================
unpaired   (D(y) - 1)² + D(S(x))²                   (D(S(x)) - 1)² + λ |S'(S(x)) - x|
paired     -log D(x, y) - log(1 - D(x, S(x)))       -log D(x, S(x)) + λ |S'(S(x)) - x| + γ |S(x) - y|
=========  =======================================  ========================================================

These are eqs. (2) to (5), each a mean over scores or pixels, in the order of Algorithm 1: in every step first D and then S of the one
direction, and then both of the other, where each loss moves the parameters of its own network alone. Which steps are paired is for the
sampling to say (`transmodal.data.sampling.Sampling`).

Where Algorithm 1 is taken for something else than it prints:

- Its discriminators ascend (D(y) - 1)² + D(S(x))², and its generators descend D(S(x))². That is the wrong way round for the labels of
  section II.C, 1 for real images and 0 for synthetic ones: here D descends the former, and S descends (D(S(x)) - 1)².
- Its generators descend log(1 - D(x, S(x))), here -log D(x, S(x)); `transmodal.losses.adversarial` says why.
- It has neither λ nor γ, which eq. (5) and section II.D have.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from transmodal.contracts import Metrics, Optimization, Update
from transmodal.core.config import Config
from transmodal.core.volume import Direction, source_of, target_of
from transmodal.data.sampling import Batch, View
from transmodal.engine.predict import Setting
from transmodal.losses.adversarial import Scores, generator_loss
from transmodal.losses.voxel import l1
from transmodal.methods.adversary import Judge, require_images
from transmodal.methods.architecture import Network, ResnetSettings
from transmodal.methods.optimizer import Adam, Optimizer
from transmodal.methods.two_way import MODALITIES, Image, Images, TwoWay
from transmodal.networks.dual_discriminator import VARIANTS, DualDiscriminator, Variant


class DualDiscriminatorSettings(Config):
    """See `transmodal.networks.dual_discriminator.DualDiscriminator`."""

    variant: Variant = "D1"
    channels: int = Field(default=64, gt=0)

    def build(self, view: View) -> nn.Module:
        """The network for single slices that leave it at least one score."""
        require_images(view, VARIANTS[self.variant].smallest, f"method.discriminator.variant = {self.variant}")
        return DualDiscriminator(self.variant, self.channels)


class MRGANSettings(Config):
    """The ``[method]`` table of an MR-GAN recipe.

    Parameters
    ----------
    generator : Network
        Of both directions alike.
    discriminator : DualDiscriminatorSettings
        Of both modalities alike.
    adversarial_paired : {"cross_entropy", "least_squares"}
        Of pairs: the negative log-likelihood, or what unpaired images always have.
    cycle_weight : float
        λ, of the mean absolute error of the cycles.
    voxel_weight : float
        γ, of the mean absolute error of what is made of one of a pair.
    optimizer : Optimizer
        Of each network by itself.
    """

    name: Literal["mrgan"] = "mrgan"
    generator: Network = ResnetSettings()
    discriminator: DualDiscriminatorSettings = DualDiscriminatorSettings()
    adversarial_paired: Literal["cross_entropy", "least_squares"] = "cross_entropy"
    cycle_weight: float = Field(default=10.0, ge=0)
    voxel_weight: float = Field(default=100.0, ge=0)
    optimizer: Optimizer = Adam(learning_rate=2e-4, betas=(0.5, 0.999))


class MRGAN(TwoWay):
    """Two generators, and two discriminators that judge single images and pairs.

    Parameters
    ----------
    settings : MRGANSettings
    setting : Setting
        Its direction is the one that comes first in every step, and whose images of pairs tell which weights are the best.
    """

    Settings = MRGANSettings

    def __init__(self, settings: MRGANSettings, setting: Setting) -> None:
        super().__init__(settings.generator, setting)
        self.settings = settings
        self.networks |= {f"discriminator_{modality}": settings.discriminator.build(setting.view) for modality in MODALITIES}

    def optimizers(self) -> dict[str, Optimization]:
        """One for each network."""
        build = self.settings.optimizer.build
        return {name: Optimization(build(network.parameters()), (name,)) for name, network in self.networks.items()}

    def training_step(self, batch: Batch, update: Update) -> Metrics:
        """Discriminator and generator of the one direction, and then those of the other."""
        real, metrics = self.images(batch), {}
        for direction in self.directions:
            synthetic, cycled = self.translate(direction, real)
            loss, found = self._discriminator_loss(direction, real, synthetic, batch.paired)
            update(f"discriminator_{target_of(direction)}", loss)
            loss, terms = self._generator_loss(direction, real, synthetic, cycled, batch.paired)
            update(f"generator_{direction}", loss)
            metrics |= {**found, **terms, **self.health.measure(direction, real, synthetic, cycled)}
        return metrics

    def validation_step(self, batch: Batch) -> Metrics:
        """The generators' losses; of pairs also the errors, of which the target's is the ``loss``."""
        real, metrics, made = self.images(batch), {}, {}
        for direction in self.directions:
            synthetic, cycled = self.translate(direction, real)
            metrics |= self._generator_loss(direction, real, synthetic, cycled, batch.paired)[1]
            made[target_of(direction)] = synthetic
        errors = self.errors(batch, made)
        return {**metrics, **errors, **({"loss": errors[f"mae_{self.setting.target}"]} if batch.paired else {})}

    def state(self) -> Mapping[str, Any]:
        """What the health is measured by."""
        return {"health": self.health.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self.health.load_state(state["health"])

    def _discriminator_loss(
        self, direction: Direction, real: Images, synthetic: Image, paired: bool
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss of the discriminator of what this direction makes, and numbers to log."""
        source, target = real[source_of(direction)], real[target_of(direction)]
        judge = Judge(f"discriminator_{target_of(direction)}_{_kind(paired)}", self._adversarial(paired), penalty_weight=0.0)
        network = partial(self.networks[f"discriminator_{target_of(direction)}"], paired=paired)
        return judge.loss(network, _shown(source, target, paired), _shown(source, synthetic, paired))

    def _generator_loss(
        self, direction: Direction, real: Images, synthetic: Image, cycled: Image, paired: bool
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss of the generator of this direction, and its terms."""
        source, target = source_of(direction), target_of(direction)
        scores: Scores = self.networks[f"discriminator_{target}"](_shown(real[source], synthetic, paired), paired=paired)
        adversarial, cycle = generator_loss(self._adversarial(paired), scores), l1(cycled, real[source])
        terms = {f"adversarial_{target}_{_kind(paired)}": adversarial, f"cycle_{source}_{_kind(paired)}": cycle}
        total = adversarial + self.settings.cycle_weight * cycle
        if paired:
            terms[f"voxel_{target}"] = l1(synthetic, real[target])
            total = total + self.settings.voxel_weight * terms[f"voxel_{target}"]
        terms[f"generator_{direction}_{_kind(paired)}"] = total
        return total, {name: term.detach() for name, term in terms.items()}

    def _adversarial(self, paired: bool) -> Literal["cross_entropy", "least_squares"]:
        return self.settings.adversarial_paired if paired else "least_squares"


def _shown(source: Image, target: Image, paired: bool) -> Float[Tensor, "b c h w"]:
    """What a discriminator sees: the target by itself, or with its source before it."""
    return torch.cat((source, target), dim=1) if paired else target


def _kind(paired: bool) -> str:
    return "paired" if paired else "unpaired"
