"""What the methods share that learn both directions at once: two generators, each of which takes the other's images back."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from transmodal.contracts import LearnedMethod, Preview
from transmodal.core.volume import Direction, Modality, Volume, reverse, source_of, target_of
from transmodal.data.sampling import Batch
from transmodal.engine.health import ImageHealth
from transmodal.engine.predict import Setting, cycle, synthesize, synthesize_with_uncertainty
from transmodal.losses.voxel import l1
from transmodal.methods.adversary import require_images
from transmodal.methods.architecture import NetworkSettings

DIRECTIONS: tuple[Direction, Direction] = ("mr2ct", "ct2mr")
MODALITIES: tuple[Modality, Modality] = ("mr", "ct")

Image = Float[Tensor, "b 1 h w"]
Images = dict[Modality, Image]


class TwoWay(LearnedMethod):
    """The networks ``generator_mr2ct`` and ``generator_ct2mr``, and all that is done with them but their training.

    Parameters
    ----------
    generator : NetworkSettings
        Of both directions alike.
    setting : Setting
        Its direction is the first of the two; both are trained, and done.

    Raises
    ------
    ConfigError
        If the view is not of single slices, or the generator's output is not where the intensities of MR and CT are.
    """

    def __init__(self, generator: NetworkSettings, setting: Setting) -> None:
        self.setting, self.opinions = setting, setting.opinions
        self.directions = (setting.direction, reverse(setting.direction))
        require_images(setting.view, 1, "method")
        for modality in MODALITIES:
            generator.require_output(setting.intensity[modality], f"intensity.{modality}")
        self.networks: dict[str, nn.Module] = {f"generator_{direction}": generator.build(setting.view) for direction in DIRECTIONS}
        self.health = TwoWayHealth()

    def images(self, batch: Batch) -> Images:
        """The images of a batch by their modality."""
        return {self.setting.source: batch.source, self.setting.target: batch.target}

    def translate(self, direction: Direction, real: Images) -> tuple[Image, Image]:
        """The synthetic images that one generator makes of real ones, and what the other makes again of those."""
        synthetic = self.networks[f"generator_{direction}"](real[source_of(direction)])
        return synthetic, self.networks[f"generator_{reverse(direction)}"](synthetic)

    def preview(self, batch: Batch) -> Preview:
        """Real, synthetic and cycled images of both modalities, from the source to the target first."""
        real, columns = self.images(batch), {}
        for direction in self.directions:
            source, (synthetic, cycled) = source_of(direction), self.translate(direction, real)
            columns |= {source.upper(): real[source], f"s{target_of(direction).upper()}": synthetic, f"{source.upper()} again": cycled}
        return {title: (images + 1) / 2 for title, images in columns.items()}

    def synthesize(self, scan: Volume) -> Volume:
        """The scan in the other modality, whichever it is of; see `transmodal.engine.predict.synthesize`."""
        setting = self._from(scan)
        return synthesize(self.networks[f"generator_{setting.direction}"], scan, setting)

    def synthesize_with_uncertainty(self, scan: Volume) -> tuple[Volume, Volume]:
        """The same, and the spread over planes and mirror images; see `transmodal.engine.predict.synthesize_with_uncertainty`."""
        setting = self._from(scan)
        return synthesize_with_uncertainty(self.networks[f"generator_{setting.direction}"], scan, setting)

    def cycle(self, scan: Volume) -> Volume:
        """The scan made again by the one generator from what the other makes of it; see `transmodal.engine.predict.cycle`."""
        setting = self._from(scan)
        forward, backward = (self.networks[f"generator_{direction}"] for direction in (setting.direction, reverse(setting.direction)))
        return cycle(forward, backward, scan, setting)

    def errors(self, batch: Batch, synthetic: Images) -> dict[str, Tensor]:
        """Of pairs, the mean absolute error of the synthetic images of each modality inside the head, in network units."""
        masks = {self.setting.source: batch.source_mask, self.setting.target: batch.target_mask}
        return {f"mae_{m}": l1(synthetic[m], real, masks[m]) for m, real in self.images(batch).items() if batch.paired}

    def _from(self, scan: Volume) -> Setting:
        """The setting of the direction that begins at the scan's modality."""
        forward, backward = self.directions
        return self.setting.towards(backward if scan.modality == source_of(backward) else forward)


class TwoWayHealth:
    """Watches what both generators make."""

    def __init__(self) -> None:
        self._by_direction = {direction: ImageHealth(f"generator_{direction}") for direction in DIRECTIONS}

    def measure(self, direction: Direction, real: Images, synthetic: Image, cycled: Image) -> dict[str, Tensor]:
        """Numbers of one generator; see `transmodal.engine.health.ImageHealth.measure`."""
        return self._by_direction[direction].measure(real[source_of(direction)], synthetic, real[target_of(direction)], cycled)

    def state(self) -> dict[str, Tensor]:
        """What the next images are compared with."""
        return {name: tensor for health in self._by_direction.values() for name, tensor in health.state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        for health in self._by_direction.values():
            health.load_state(state)
