"""Images that a network is given beside the sources, such as what atlases have of each subject."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from transmodal.data.store import Dataset


@dataclass(frozen=True)
class ExtraImages:
    """Images that go with the sources of subjects, and that a network is given beside them.

    Parameters
    ----------
    folder : Path
        A dataset of their own, with the same subjects, on the grids of the sources.
    backgrounds : dict
        By name, in the order of the channels, what lies outside each image. They are stored in network units.
    make : callable
        Writes the dataset, unless it is there; called before the first batch is drawn.
    """

    folder: Path
    backgrounds: dict[str, float]
    make: Callable[[], None]

    @cached_property
    def dataset(self) -> Dataset:
        """The images, once they have been made."""
        return Dataset(self.folder)
