"""CycleGAN: both directions at once, from slices of different people.

Section 3 of the paper on MR to CT from unpaired data (Wolterink et al., 2017), after Zhu et al., "Unpaired image-to-image translation
using cycle-consistent adversarial networks", ICCV 2017. Two generators, MR to CT and CT to MR, and a discriminator for each modality:

- A discriminator tells real images from synthetic ones: eqs. (1) and (2), least squares, of the latest synthetic images and of a pool of
  past ones.
- The generators make images that the discriminators take for real, and that the other one takes back: eq. (3), weighted by λ.

``L(G) = Σ over modalities m of (D_m(synthetic_m) - 1)² + λ |cycled_m - real_m|``

The paper on an FCN and CycleGAN from DICOM is this with other sizes; its names of the parameters are understood as well. A is the source
there and B the target: ``lambda_ABA`` weighs the cycle that begins at the source.
"""

from collections.abc import Mapping
from itertools import chain
from typing import Any, Literal

from jaxtyping import Float
from pydantic import AliasChoices, ConfigDict, Field, model_validator
from torch import Tensor

from transmodal.contracts import Metrics, Optimization, Update
from transmodal.core.config import Config
from transmodal.core.volume import Modality, source_of, target_of
from transmodal.data.sampling import Batch
from transmodal.engine.pool import ImagePool
from transmodal.engine.predict import Setting
from transmodal.losses.adversarial import Adversarial, generator_loss
from transmodal.losses.voxel import l1, l2
from transmodal.methods.adversary import Discriminator, Judge, PatchGANSettings, adam, require_slopes
from transmodal.methods.architecture import Network, ResnetSettings
from transmodal.methods.two_way import DIRECTIONS, MODALITIES, Images, TwoWay

_CYCLE_LOSSES = {"l1": l1, "l2": l2}


class CycleGANSettings(Config):
    """The ``[method]`` table of a CycleGAN recipe; the names after "or" are those of the paper on an FCN and CycleGAN.

    Parameters
    ----------
    generator : Network
        Of both directions alike.
    discriminator : Discriminator
        Of both modalities alike.
    adversarial : {"least_squares", "cross_entropy", "wasserstein"}
    gradient_penalty : float
        Its weight, for ``wasserstein``.
    cycle_loss : {"l1", "l2"}
        Mean absolute or mean squared error of the cycles.
    cycle_weight_source, cycle_weight_target : float
        Of the cycle that begins at the source, or ``lambda_ABA``, and of the other, or ``lambda_BAB``.
    generator_iterations, discriminator_iterations : int
        How often each is trained on a batch.
    pool_size : int
        Past synthetic images of each modality; or ``synthetic_pool_size``.
    learning_rate_generator, learning_rate_discriminator : float
        Or ``learning_rate_G``, ``learning_rate_D``.
    beta_1, beta_2 : float
        Of Adam.
    """

    model_config = ConfigDict(populate_by_name=True)

    name: Literal["cyclegan"] = "cyclegan"
    generator: Network = ResnetSettings()
    discriminator: Discriminator = PatchGANSettings()
    adversarial: Adversarial = "least_squares"
    gradient_penalty: float = Field(default=10.0, ge=0)
    cycle_loss: Literal["l1", "l2"] = "l1"
    cycle_weight_source: float = Field(default=10.0, ge=0, validation_alias=AliasChoices("cycle_weight_source", "lambda_ABA"))
    cycle_weight_target: float = Field(default=10.0, ge=0, validation_alias=AliasChoices("cycle_weight_target", "lambda_BAB"))
    generator_iterations: int = Field(default=1, gt=0)
    discriminator_iterations: int = Field(default=1, gt=0)
    pool_size: int = Field(default=50, ge=0, validation_alias=AliasChoices("pool_size", "synthetic_pool_size"))
    learning_rate_generator: float = Field(default=2e-4, gt=0, validation_alias=AliasChoices("learning_rate_generator", "learning_rate_G"))
    learning_rate_discriminator: float = Field(
        default=2e-4, gt=0, validation_alias=AliasChoices("learning_rate_discriminator", "learning_rate_D")
    )
    beta_1: float = Field(default=0.5, ge=0, lt=1)
    beta_2: float = Field(default=0.999, ge=0, lt=1)

    @model_validator(mode="after")
    def _fair(self) -> "CycleGANSettings":
        require_slopes(self.discriminator, self.adversarial)
        return self


class CycleGAN(TwoWay):
    """Two generators and two discriminators.

    Parameters
    ----------
    settings : CycleGANSettings
    setting : Setting
        Its direction is that in which the source's cycle begins; both are trained, and done.
    """

    Settings = CycleGANSettings

    def __init__(self, settings: CycleGANSettings, setting: Setting) -> None:
        super().__init__(settings.generator, setting)
        self.settings = settings
        self.networks |= {f"discriminator_{modality}": settings.discriminator.build(setting.view, 1) for modality in MODALITIES}
        self._judges: dict[Modality, Judge] = {
            m: Judge(f"discriminator_{m}", settings.adversarial, settings.gradient_penalty) for m in MODALITIES
        }
        self._pools: dict[Modality, ImagePool] = {modality: ImagePool(settings.pool_size) for modality in MODALITIES}
        self._cycle_weights: dict[Modality, float] = {
            setting.source: settings.cycle_weight_source,
            setting.target: settings.cycle_weight_target,
        }

    def optimizers(self) -> dict[str, Optimization]:
        """One over both generators, and one over each discriminator."""
        chosen = self.settings
        betas, generators = (chosen.beta_1, chosen.beta_2), tuple(f"generator_{direction}" for direction in DIRECTIONS)
        parameters = chain.from_iterable(self.networks[name].parameters() for name in generators)
        judges = {
            judge.name: Optimization(adam(self.networks[judge.name].parameters(), chosen.learning_rate_discriminator, betas), (judge.name,))
            for judge in self._judges.values()
        }
        return {"generators": Optimization(adam(parameters, chosen.learning_rate_generator, betas), generators), **judges}

    def training_step(self, batch: Batch, update: Update) -> Metrics:
        """The generators' step, and then that of each discriminator."""
        real, synthetic, cycled, metrics = self.images(batch), {}, {}, {}
        for _ in range(self.settings.generator_iterations):
            synthetic, cycled = self._translate(real)
            loss, metrics = self._generator_loss(real, synthetic, cycled)
            update("generators", loss)
        for direction in DIRECTIONS:
            metrics |= self.health.measure(direction, real, synthetic[target_of(direction)], cycled[source_of(direction)])
        for _ in range(self.settings.discriminator_iterations):
            for modality, judge in self._judges.items():
                shown = self._pools[modality].exchange(synthetic[modality])
                loss, found = judge.loss(self.networks[judge.name], real[modality], shown)
                update(judge.name, loss)
                metrics |= found
        return metrics

    def validation_step(self, batch: Batch) -> Metrics:
        """The generators' losses, and, of pairs, the errors; a training without pairs does not choose its weights by them."""
        real = self.images(batch)
        synthetic, cycled = self._translate(real)
        return {**self._generator_loss(real, synthetic, cycled)[1], **self.errors(batch, synthetic)}

    def state(self) -> Mapping[str, Any]:
        """The pools, and what the health is measured by."""
        return {**{f"pool_{modality}": pool.state() for modality, pool in self._pools.items()}, "health": self.health.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        for modality, pool in self._pools.items():
            pool.load_state(state[f"pool_{modality}"])
        self.health.load_state(state["health"])

    def _translate(self, real: Images) -> tuple[Images, Images]:
        """The synthetic image of each modality, and what the other generator makes again of it."""
        synthetic: Images = {}
        cycled: Images = {}
        for direction in DIRECTIONS:
            synthetic[target_of(direction)], cycled[source_of(direction)] = self.translate(direction, real)
        return synthetic, cycled

    def _generator_loss(self, real: Images, synthetic: Images, cycled: Images) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss of both generators, and its terms."""
        cycle_loss, terms, total = _CYCLE_LOSSES[self.settings.cycle_loss], {}, real["ct"].new_zeros(())
        for modality in MODALITIES:
            scores = self.networks[f"discriminator_{modality}"](synthetic[modality])
            adversarial, cycle = generator_loss(self.settings.adversarial, scores), cycle_loss(cycled[modality], real[modality])
            total = total + adversarial + self._cycle_weights[modality] * cycle
            terms |= {f"adversarial_{modality}": adversarial.detach(), f"cycle_{modality}": cycle.detach()}
        return total, {"generators": total.detach(), **terms}
