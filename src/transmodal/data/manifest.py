"""What a dataset holds: its subjects, their images, and how they were prepared."""

from pathlib import Path
from typing import Literal

from transmodal.core.config import Config, validate
from transmodal.core.errors import DataError
from transmodal.core.files import read_json, write_json
from transmodal.core.volume import Grid
from transmodal.imaging.intensity import IntensityStatistics
from transmodal.imaging.preparation import Preparation

MANIFEST_NAME = "dataset.json"


class Image(Config):
    """One stored array.

    Parameters
    ----------
    shape : tuple of int
    affine : tuple of tuples
        Voxel indices to RAS+ mm, 4x4.
    statistics : IntensityStatistics, optional
        Inside the head mask; for MR and CT.
    box : tuple of pairs, optional
        Smallest box (first, last + 1) along each axis that holds the head mask; for MR and CT.
    source : str
        File name of the scan that it was made from.
    sha256 : str
        Hash of that file.
    """

    shape: tuple[int, int, int]
    affine: tuple[tuple[float, float, float, float], ...]
    statistics: IntensityStatistics | None = None
    box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None = None
    source: str = ""
    sha256: str = ""

    @property
    def grid(self) -> Grid:
        """The lattice that the voxels lie on."""
        import numpy as np

        return Grid(self.shape, np.array(self.affine))


class Subject(Config):
    """One person: an MR, a CT, or both on one grid, each with its head mask.

    Parameters
    ----------
    id : str
    images : dict
        Image by name: ``mr``, ``ct``, their masks ``mr_mask`` and ``ct_mask``, and ``labels``.
    attributes : dict
        What is known of the subject (hospital, vendor, age ...), for studies of generalisability.
    """

    id: str
    images: dict[str, Image]
    attributes: dict[str, str | float] = {}

    @property
    def person(self) -> str:
        """Who it is: the attribute ``person`` where several subjects (sessions, say) are one person's, else the subject itself."""
        return str(self.attributes.get("person", self.id))

    @property
    def paired(self) -> bool:
        """Whether both an MR and a CT are there."""
        return "mr" in self.images and "ct" in self.images


class Manifest(Config):
    """The table of contents of a dataset folder."""

    version: Literal[1] = 1
    preparation: Preparation
    subjects: tuple[Subject, ...]

    def subject(self, subject_id: str) -> Subject:
        """The subject of that name, or `DataError` listing those that there are."""
        for subject in self.subjects:
            if subject.id == subject_id:
                return subject
        raise DataError(f"there is no subject {subject_id!r} in the dataset; it has {', '.join(s.id for s in self.subjects)}")


def read_manifest(dataset: Path) -> Manifest:
    """Read the table of contents of a dataset folder.

    Raises
    ------
    FileError
        If the folder holds no readable manifest.
    ConfigError
        If the manifest is of another version, or has been damaged.
    """
    path = Path(dataset) / MANIFEST_NAME
    return validate(Manifest, read_json(path), str(path))


def write_manifest(dataset: Path, manifest: Manifest) -> None:
    """Write the table of contents, whole or not at all."""
    write_json(Path(dataset) / MANIFEST_NAME, manifest.model_dump(mode="json"))
