"""What the adversarial methods share: the tables ``[method.discriminator]``, and one discriminator's side of the game."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import Discriminator as Choice
from pydantic import Field, Tag
from torch import Tensor, nn

from transmodal.core.config import Config
from transmodal.core.errors import ConfigError
from transmodal.data.sampling import View
from transmodal.engine.health import discriminator_health
from transmodal.losses.adversarial import Adversarial, Scores, discriminator_loss, gradient_penalty
from transmodal.networks.dcgan import LatentDiscriminator
from transmodal.networks.patchgan import PatchGAN


class DiscriminatorSettings(Config, ABC):
    """What a discriminator is to be like."""

    @abstractmethod
    def build(self, view: View, inputs: int) -> nn.Module:
        """The network for images of so many channels, with random weights; `ConfigError` if it is not for such a view."""


class PatchGANSettings(DiscriminatorSettings):
    """See `transmodal.networks.patchgan.PatchGAN`."""

    kind: Literal["patch"] = "patch"
    channels: int = Field(default=64, gt=0)
    layers: int = Field(default=3, gt=0)

    def build(self, view: View, inputs: int) -> nn.Module:
        """The network for slices of at least ``3 * 2**layers`` pixels a side."""
        require_images(view, 3 * 2**self.layers, "method.discriminator")
        return PatchGAN(inputs, self.channels, self.layers)


class ImageDiscriminatorSettings(DiscriminatorSettings):
    """See `transmodal.networks.dcgan.LatentDiscriminator`, which judges whole images."""

    kind: Literal["image"] = "image"
    channels: int = Field(default=64, gt=0)

    def build(self, view: View, inputs: int) -> nn.Module:
        """The network for square slices of one size, a power of two."""
        require_squares(view, "method.discriminator")
        return LatentDiscriminator(inputs, self.channels, view.size[0])


def _kind(table: Any) -> Any:
    """A table without a kind is of a PatchGAN."""
    return table.get("kind", "patch") if isinstance(table, dict) else getattr(table, "kind", None)


Discriminator = Annotated[
    Annotated[PatchGANSettings, Tag("patch")] | Annotated[ImageDiscriminatorSettings, Tag("image")],
    Choice(_kind),
]


def require_slopes(discriminator: DiscriminatorSettings, adversarial: Adversarial) -> None:
    """Raise `ValueError` if the penalty on the slopes of a Wasserstein critic would be of other images of the batch as well."""
    if adversarial == "wasserstein" and isinstance(discriminator, ImageDiscriminatorSettings):
        raise ValueError(
            'adversarial = "wasserstein": the discriminator must not normalise over the batch; set discriminator.kind = "patch"'
        )


def require_images(view: View, smallest: int, where: str) -> None:
    """Raise `ConfigError` unless the view is of single slices that are not too small for a network."""
    if view.dims != 2 or view.context:
        raise ConfigError(f"{where}: adversarial methods are for single slices; set view.size to two numbers, view.context to 0")
    if min(view.size) < smallest:
        raise ConfigError(f"{where}: view.size = {view.size} is too small for its convolutions; every size must be at least {smallest}")


def require_squares(view: View, where: str) -> None:
    """Raise `ConfigError` unless the view is of single square slices, for a network that makes or judges them whole."""
    require_images(view, 16, where)
    if view.size[0] != view.size[1]:
        raise ConfigError(f"{where}: the network is for whole square images, and view.size = {view.size} is not square")


def adam(parameters: Iterable[nn.Parameter], learning_rate: float, betas: tuple[float, float]) -> torch.optim.Adam:
    """The optimiser of all the adversarial papers."""
    return torch.optim.Adam(parameters, learning_rate, betas)


Images = Float[Tensor, "b c h w"]


class Judge:
    """One discriminator's side of the game: its loss, and how it fares.

    Parameters
    ----------
    name : str
        Of the discriminator.
    kind : {"least_squares", "cross_entropy", "wasserstein"}
    penalty_weight : float
        Of the gradient penalty, which only ``wasserstein`` has.
    """

    def __init__(self, name: str, kind: Adversarial, penalty_weight: float) -> None:
        self.name, self.penalty_weight = name, penalty_weight
        self.kind: Adversarial = kind

    def loss(self, network: Callable[[Images], Scores], real: Images, synthetic: Images) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The discriminator's loss of real images and synthetic ones, into which no gradient goes, and numbers to log."""
        of_real: Scores = network(real)
        of_synthetic: Scores = network(synthetic.detach())
        loss = discriminator_loss(self.kind, of_real, of_synthetic)
        if self.kind == "wasserstein":
            bare = getattr(network, "module", network)  # what Fabric has wrapped; see `gradient_penalty`
            loss = loss + self.penalty_weight * gradient_penalty(bare, real, synthetic)
        return loss, {self.name: loss.detach(), **discriminator_health(self.name, self.kind, of_real, of_synthetic)}
