"""A plain GAN: slices of one modality out of random numbers.

The paper on an FCN and CycleGAN from DICOM begins with it ("Generator network", "Discriminator training", "Generator training"). The
discriminator learns the binary cross-entropy of real images (label 1) and of generated ones (label 0), their sum; then the generator, by
new random numbers and the discriminator's new weights, that of its images with the label 1. See `transmodal.networks.dcgan` for what the
paper leaves open about the networks.

It turns no scan into another. Its images are in the pictures that training keeps, always of the same random numbers.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from transmodal.contracts import LearnedMethod, Metrics, Optimization, Preview, Update
from transmodal.core.config import Config
from transmodal.core.errors import ConfigError
from transmodal.core.volume import Direction, Volume
from transmodal.data.sampling import Batch, View
from transmodal.engine.health import ImageHealth
from transmodal.engine.predict import Setting
from transmodal.losses.adversarial import generator_loss
from transmodal.methods.adversary import ImageDiscriminatorSettings, Judge, adam, require_squares
from transmodal.methods.architecture import NetworkSettings
from transmodal.networks.dcgan import LatentGenerator

# Of the pictures: their columns, and the images in each.
_COLUMNS, _ROWS = 8, 8


class LatentGeneratorSettings(NetworkSettings):
    """See `transmodal.networks.dcgan.LatentGenerator`."""

    kind: Literal["latent"] = "latent"
    latent: int = Field(default=128, gt=0)
    channels: int = Field(default=64, gt=0)

    @property
    def output(self) -> tuple[float, float]:
        """It ends in a hyperbolic tangent."""
        return -1.0, 1.0

    def build(self, view: View) -> nn.Module:
        """The network for square slices whose size is a power of two."""
        require_squares(view, "method.generator")
        return LatentGenerator(self.latent, 1, self.channels, view.size[0])


class GANSettings(Config):
    """The ``[method]`` table of a recipe that makes images out of random numbers.

    Parameters
    ----------
    generator : LatentGeneratorSettings
    discriminator : ImageDiscriminatorSettings
    learning_rate : float
        Of both networks.
    beta_1, beta_2 : float
        Of Adam.
    """

    name: Literal["gan"] = "gan"
    generator: LatentGeneratorSettings = LatentGeneratorSettings()
    discriminator: ImageDiscriminatorSettings = ImageDiscriminatorSettings()
    learning_rate: float = Field(default=2e-4, gt=0)
    beta_1: float = Field(default=0.5, ge=0, lt=1)
    beta_2: float = Field(default=0.999, ge=0, lt=1)


class GAN(LearnedMethod):
    """A generator of slices of the target modality, and a discriminator.

    Parameters
    ----------
    settings : GANSettings
    setting : Setting
        Direction, of which the target alone matters, preparation, intensities and view, which must be of square slices.

    Raises
    ------
    ConfigError
        If the networks are not for such images.
    """

    Settings = GANSettings
    directions: tuple[Direction, ...] = ()

    def __init__(self, settings: GANSettings, setting: Setting) -> None:
        self.settings, self.setting = settings, setting
        settings.generator.require_output(setting.intensity[setting.target], f"intensity.{setting.target}")
        self.networks: dict[str, nn.Module] = {
            "generator": settings.generator.build(setting.view),
            "discriminator": settings.discriminator.build(setting.view, 1),
        }
        self._judge = Judge("discriminator", "cross_entropy", penalty_weight=0.0)
        self._health = ImageHealth("generator")
        self._shown = self._draw(_COLUMNS * _ROWS)

    def optimizers(self) -> dict[str, Optimization]:
        """One over each network."""
        rate, betas = self.settings.learning_rate, (self.settings.beta_1, self.settings.beta_2)
        return {name: Optimization(adam(network.parameters(), rate, betas), (name,)) for name, network in self.networks.items()}

    def training_step(self, batch: Batch, update: Update) -> Metrics:
        """The discriminator's step, and then the generator's."""
        real = batch.target
        with torch.no_grad():
            made = self._make(self._draw(len(real)), real)
        loss, metrics = self._judge.loss(self.networks["discriminator"], real, made)
        update("discriminator", loss)
        made = self._make(self._draw(len(real)), real)
        loss = generator_loss("cross_entropy", self.networks["discriminator"](made))
        update("generator", loss)
        return {"generator": loss.detach(), **metrics, **self._health.measure(None, made, real)}

    def validation_step(self, batch: Batch) -> Metrics:
        """The losses of both networks, of the images of the pictures; neither tells which weights are the best."""
        real = batch.target[: len(self._shown)]
        made = self._make(self._shown[: len(real)], real)
        loss = generator_loss("cross_entropy", self.networks["discriminator"](made))
        return {"generator": loss, **self._judge.loss(self.networks["discriminator"], real, made)[1]}

    def preview(self, batch: Batch) -> Preview:
        """A grid of images of random numbers that are always the same, and, in the last column, real ones."""
        columns = self._make(self._shown, batch.target).split(_ROWS)
        images = {**{f"made {k}": column for k, column in enumerate(columns, start=1)}, self.setting.target.upper(): batch.target}
        return {title: (values + 1) / 2 for title, values in images.items()}

    def synthesize(self, scan: Volume) -> Volume:
        """Refused: `ConfigError`."""
        raise ConfigError("a plain GAN makes images out of random numbers, and turns no scan into another; choose another recipe")

    def state(self) -> Mapping[str, Any]:
        """The random numbers of the pictures, and what the health is measured by."""
        return {"shown": self._shown, "health": self._health.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self._shown = state["shown"]
        self._health.load_state(state["health"])

    def _draw(self, count: int) -> Float[Tensor, "n latent"]:
        """Random numbers by torch's generator of the CPU, so that the seed decides on every device."""
        return torch.randn(count, self.settings.generator.latent)

    def _make(self, latent: Float[Tensor, "n latent"], like: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "n 1 h w"]:
        """Images of random numbers, on the device of others."""
        return self.networks["generator"](latent.to(like.device))
