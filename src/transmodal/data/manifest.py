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

Row = tuple[float, float, float, float]


class Image(Config):
    """One stored array.

    Parameters
    ----------
    shape : tuple of int
    affine : 4 rows of 4
        Voxel indices to RAS+ mm, 4x4.
    statistics : IntensityStatistics, optional
        Inside the head mask; for MR and CT.
    box : tuple of pairs, optional
        Smallest box (first, last + 1) along each axis that holds the head mask; for MR and CT.
    litres : float, optional
        Volume of the head mask; for MR and CT.
    source : str
        File name of the scan that it was made from.
    sha256 : str
        Hash of that file.
    """

    shape: tuple[int, int, int]
    affine: tuple[Row, Row, Row, Row]
    statistics: IntensityStatistics | None = None
    box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None = None
    litres: float | None = None
    source: str = ""
    sha256: str = ""

    @property
    def grid(self) -> Grid:
        """The lattice that the voxels lie on."""
        import numpy as np

        return Grid(self.shape, np.array(self.affine))


class RegistrationNote(Config):
    """How the CT of a pair came onto its MR; see `transmodal.imaging.alignment.Alignment`.

    Parameters
    ----------
    kind : str
    matrix : 4 rows of 4
        Points of the MR to those of the CT, RAS+ mm, but for the deformation.
    free_form : bool
        Whether a deformation came before it.
    moved_mm, doubt_mm : float
    floor : dict
        The registration floor: the CT scored (SynthRAD 2023) against itself as a second registration places it.
    """

    kind: str
    matrix: tuple[Row, Row, Row, Row]
    free_form: bool
    moved_mm: float
    doubt_mm: float | None
    floor: dict[str, float] = {}


class Steps(Config):
    """What was done to a subject.

    Parameters
    ----------
    seconds : float
        How long it took.
    bias_range : (low, high), optional
        1st and 99th percentile over the head of the factor by which the bias field brightened the MR.
    template : 4 rows of 4, optional
        Points of the template to those of the subject, RAS+ mm.
    registration : RegistrationNote, optional
        Of the CT to the MR.
    """

    seconds: float = 0.0
    bias_range: tuple[float, float] | None = None
    template: tuple[Row, Row, Row, Row] | None = None
    registration: RegistrationNote | None = None


class Subject(Config):
    """One person: an MR, a CT, or both on one grid, each with its head mask.

    Parameters
    ----------
    id : str
    images : dict
        Image by name: ``mr``, ``ct``, their masks ``mr_mask`` and ``ct_mask``, ``labels``, and ``brain``, a mask.
    attributes : dict
        What is known of the subject (hospital, vendor, age ...), for studies of generalisability.
    steps : Steps
        How the images were made.
    """

    id: str
    images: dict[str, Image]
    attributes: dict[str, str | float] = {}
    steps: Steps = Steps()

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
