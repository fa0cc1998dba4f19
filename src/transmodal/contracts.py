"""What a method is. Every method of the package, and everyone else's, is one class that fulfils one of these contracts."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.optim import Optimizer

from transmodal.core.config import Config
from transmodal.core.errors import ConfigError
from transmodal.core.jobs import HERE, Workers
from transmodal.core.volume import Direction, Product, Volume
from transmodal.data.extra_images import ExtraImages
from transmodal.data.sampling import Batch, Target
from transmodal.data.store import Dataset

# ``update(name, loss)`` takes one step of the optimiser `name` down the gradient of `loss`.
Update = Callable[[str, Float[Tensor, ""]], None]
Metrics = Mapping[str, Float[Tensor, ""]]
# Titles of columns, and their images: a row for each sample of a batch, with values from 0 to 1.
Preview = Mapping[str, Float[Tensor, "b 1 h w"]]


@dataclass(frozen=True)
class Optimization:
    """One optimiser and the networks whose parameters it moves, by name."""

    optimizer: Optimizer
    networks: tuple[str, ...]


class Method(ABC):
    """A way from one modality to the other, or to the bone in it.

    Attributes
    ----------
    Settings : type
        The class of the method's own settings, which are the ``[method]`` table of its recipes.
    directions : tuple
        What the method, as it is set up, can do; none if it turns no scan into another.
    product : {"image", "bone"}
        What it makes: the other modality, or a mask of the bone.
    opinions : int
        How many opinions its uncertainty comes of: predictions that are averaged, as those of several planes, and what a network has
        learned to expect of its own error.
    uses_brain : bool
        Whether a mask of the brain in the scan is of use to it; see `with_brain`.
    folder : Path or None
        The run that it belongs to, where it may keep files of its own; set by who builds or loads it.
    workers : Workers
        Who does work that can be shared; set by who builds or loads it.
    """

    Settings: ClassVar[type[Config]]
    directions: tuple[Direction, ...]
    product: Product = "image"
    opinions: int = 1
    uses_brain: bool = False
    folder: Path | None = None
    workers: Workers = HERE

    def with_brain(self, mask: Volume) -> "Method":
        """The same method, told the mask of the brain in the scan to come, on any grid; of methods that use it."""
        raise ConfigError("the model has no use for a mask of the brain; leave --brain out")

    @abstractmethod
    def synthesize(self, scan: Volume) -> Volume:
        """The other modality of `scan`, on the scan's own grid: HU for a CT, arbitrary units for an MR; or a mask of bone.

        Raises
        ------
        DataError
            If the scan holds no head that can be found, or has no contrast.
        """

    def synthesize_with_uncertainty(self, scan: Volume) -> tuple[Volume, Volume]:
        """What `synthesize` gives, and the standard deviation of the opinions in its unit (of a mask, of the probability of bone)."""
        assert self.opinions == 1, "a method of several opinions must tell how far they differ"
        result = self.synthesize(scan)
        return result, result.with_array(np.zeros(result.shape, dtype=np.float32), "uncertainty")

    def cycle(self, scan: Volume) -> Volume:
        """The scan made again from what the method makes of it, in the scan's own units; of methods that go both ways."""
        raise ConfigError("the model does not go both ways, so it cannot make the scan again from its result; leave --cycle out")


class FittedMethod(Method):
    """A method that learns from a dataset in one go, without gradients."""

    @abstractmethod
    def fit(self, dataset: Dataset, subjects: Sequence[str]) -> None:
        """Learn from these subjects."""

    @abstractmethod
    def state(self) -> dict[str, Shaped[np.ndarray, "..."]]:
        """What was learned, as named arrays."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
        """Take back what `state` gave."""


class LearnedMethod(Method):
    """A method that trains networks step by step.

    Attributes
    ----------
    networks : dict
        Every network by name. The engine moves them to its device and wraps each by itself: call them only through this dict.
    """

    networks: dict[str, nn.Module]

    def initialize(self) -> None:
        """Get what training is to begin with; called once before it, but not to go on from a checkpoint and not to predict.

        Files that prediction should not need are read here. By default there are none.
        """
        return

    def restart(self) -> None:
        """Forget how far the training came whose weights the networks have been given; called when another begins with them."""
        return

    @abstractmethod
    def optimizers(self) -> dict[str, Optimization]:
        """New optimisers, by name, over the parameters of the networks."""

    def learned_target(self, dataset: Dataset, subjects: Sequence[str]) -> Target | None:
        """What the batches of these subjects hold as the target; None where that is the other modality in network units."""
        return None

    def extra_images(self, dataset: Dataset, subjects: Sequence[str]) -> ExtraImages | None:
        """What the batches of these subjects hold beside the source, as further channels; by default nothing."""
        return None

    @abstractmethod
    def training_step(self, batch: Batch, update: Update) -> Metrics:
        """One step on one batch: compute the losses, and call ``update(name, loss)`` in the order of the method's paper.

        Returns
        -------
        dict
            Scalars to log, detached.
        """

    @abstractmethod
    def validation_step(self, batch: Batch) -> Metrics:
        """Scalars of one batch that was not trained on.

        The one called ``loss`` chooses the best weights, the less the better. Without one, as of a GAN that has no pairs to be scored by,
        the last weights are the best.
        """

    def preview(self, batch: Batch) -> Preview:
        """Images to look at as training goes on, of a batch that was not trained on; by default none."""
        return {}

    def state(self) -> Mapping[str, Any]:
        """What an exact resume needs beyond weights and optimisers, such as image pools; by default nothing.

        Tensors and plain values, in dicts and lists as `transmodal.engine.checkpoint.save_tree` takes them.
        """
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        assert not state, "a method that has a state must load it"
