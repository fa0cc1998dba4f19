"""The tables ``[method.network]``: one class for each network that maps an image to an image; its ``kind`` chooses it."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator
from torch import nn

from transmodal.core.config import Config
from transmodal.core.errors import ConfigError
from transmodal.data.sampling import View
from transmodal.engine.checkpoint import load_weights, read_state_dict
from transmodal.imaging.intensity import Intensity
from transmodal.networks.layers import Norm
from transmodal.networks.light_unet import LightUNet
from transmodal.networks.resenc import ResEncUNet
from transmodal.networks.resnet_generator import ResnetGenerator
from transmodal.networks.unet import UNet
from transmodal.networks.vgg_unet import VGGUNet


class NetworkSettings(Config, ABC):
    """What a network is to be like."""

    @property
    def output(self) -> tuple[float, float] | None:
        """Where the network's output lies, so that the target must as well; None where it may be anywhere."""
        return None

    def require_output(self, intensity: Intensity, where: str) -> None:
        """Raise `ConfigError` unless these network units, those of the table `where`, are the network's output."""
        if self.output is not None and getattr(intensity, "onto", None) != self.output:
            low, high = self.output
            raise ConfigError(
                f"the network {getattr(self, 'kind')!r} gives values from {low:g} to {high:g}, and so must {where}: "  # noqa: B009
                f'set its kind to "window" or "percentile" and onto = [{low:g}, {high:g}]'
            )

    @abstractmethod
    def build(self, view: View) -> nn.Module:
        """The network, with random weights, for such images; `ConfigError` if it is not for such."""

    def initialize(self, network: nn.Module) -> None:
        """Give the network what it is to begin its training with; nothing, by default, but its random weights."""
        return


class UNetSettings(NetworkSettings):
    """See `transmodal.networks.unet.UNet`."""

    kind: Literal["unet"] = "unet"
    channels: tuple[int, ...] = Field(default=(64, 128, 256, 512), min_length=2)
    convolutions: int = Field(default=3, gt=0)
    last_convolutions: int = Field(default=1, gt=0)
    norm: Norm = "none"

    def build(self, view: View, outputs: int = 1, extra: int = 0) -> UNet:
        """The U-Net, of 2 or 3 dimensions, with one channel of output or as many as are wanted, and extra ones of input."""
        return UNet(view.dims, view.channels + extra, outputs, self.channels, self.convolutions, self.last_convolutions, self.norm)


class LightUNetSettings(NetworkSettings):
    """See `transmodal.networks.light_unet.LightUNet`."""

    kind: Literal["light_unet"] = "light_unet"
    channels: tuple[int, ...] = Field(default=(16, 32, 64, 128, 256), min_length=2)

    @property
    def output(self) -> tuple[float, float]:
        """It ends in a sigmoid."""
        return 0.0, 1.0

    def build(self, view: View) -> nn.Module:
        """The network for slices."""
        require_slices(view, "method.network", self.kind)
        return LightUNet(view.channels, self.channels)


class VGGUNetSettings(NetworkSettings):
    """See `transmodal.networks.vgg_unet.VGGUNet`.

    Parameters
    ----------
    channels : tuple of 5 int
        Those of VGG-16 by default.
    encoder_weights : str, optional
        A file with the weights of a VGG-16 that was trained on ImageNet, named as torchvision names them (``features.0.weight`` ...;
        those of the classifier are passed over), as safetensors or as a state dict of torch. It is read when training begins, and
        never again.
    """

    kind: Literal["vgg_unet"] = "vgg_unet"
    channels: tuple[int, int, int, int, int] = (64, 128, 256, 512, 512)
    encoder_weights: str | None = None

    @property
    def output(self) -> tuple[float, float]:
        """It ends in a sigmoid."""
        return 0.0, 1.0

    def build(self, view: View) -> nn.Module:
        """The network for single slices; its input is normalised as ImageNet's if it is to begin with weights from there."""
        if view.dims != 2 or view.context:
            raise ConfigError(f"method.network.kind = {self.kind!r} is for single slices; set view.size to two numbers, view.context to 0")
        return VGGUNet(self.channels, imagenet=self.encoder_weights is not None)

    def initialize(self, network: nn.Module) -> None:
        """Read the encoder's weights, if there is a file of them.

        Raises
        ------
        CheckpointError
            If the file is missing, or does not hold the weights of this encoder.
        """
        if self.encoder_weights is None:
            return
        weights = read_state_dict(Path(self.encoder_weights))
        encoder = nn.ModuleDict({"features": network.get_submodule("features")})
        kept = {name: tensor for name, tensor in weights.items() if not name.startswith("classifier.")}
        load_weights(encoder, kept, f"method.network.encoder_weights = {self.encoder_weights}")


class ResnetSettings(NetworkSettings):
    """See `transmodal.networks.resnet_generator.ResnetGenerator`."""

    kind: Literal["resnet"] = "resnet"
    channels: int = Field(default=64, gt=0)
    blocks: int = Field(default=9, gt=0)

    @property
    def output(self) -> tuple[float, float]:
        """It ends in a hyperbolic tangent."""
        return -1.0, 1.0

    def build(self, view: View) -> nn.Module:
        """The network for slices."""
        require_slices(view, "method.network", self.kind)
        return ResnetGenerator(view.channels, 1, self.channels, self.blocks)


class ResEncSettings(NetworkSettings):
    """See `transmodal.networks.resenc.ResEncUNet`."""

    kind: Literal["resenc"] = "resenc"
    channels: tuple[int, ...] = Field(default=(32, 64, 128, 256, 320, 320), min_length=2)
    blocks: tuple[int, ...] = (1, 3, 4, 6, 6, 6)

    @model_validator(mode="after")
    def _match(self) -> "ResEncSettings":
        if len(self.blocks) != len(self.channels):
            raise ValueError(f"blocks has {len(self.blocks)} numbers and channels has {len(self.channels)}; both have one for every level")
        return self

    def build(self, view: View) -> nn.Module:
        """The network, of 2 or 3 dimensions."""
        return ResEncUNet(view.dims, view.channels, 1, self.channels, self.blocks)


def require_slices(view: View, where: str, kind: str) -> None:
    """Raise `ConfigError` unless images are slices."""
    if view.dims != 2:
        raise ConfigError(f"{where}.kind = {kind!r} is for slices; view.size = {view.size} is of a volume")


def _kind(table: Any) -> Any:
    """A table without a kind is of a U-Net."""
    return table.get("kind", "unet") if isinstance(table, dict) else getattr(table, "kind", None)


Network = Annotated[
    Annotated[UNetSettings, Tag("unet")]
    | Annotated[LightUNetSettings, Tag("light_unet")]
    | Annotated[VGGUNetSettings, Tag("vgg_unet")]
    | Annotated[ResEncSettings, Tag("resenc")]
    | Annotated[ResnetSettings, Tag("resnet")],
    Discriminator(_kind),
]
