"""How folders of scans are organised: which file is whose MR, CT or mask."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transmodal.core.errors import DataError, FileError
from transmodal.core.files import folders_below, read_json
from transmodal.core.volume import Modality
from transmodal.imaging.scan import find_scan

SCANS: tuple[Modality, ...] = ("mr", "ct", "mask", "labels")


@dataclass(frozen=True)
class SubjectFiles:
    """The files of one subject, by what they are (``mr``, ``ct``, ``mask``, ``labels``), and what is known of it."""

    id: str
    files: dict[Modality, Path]
    attributes: dict[str, Any] = field(default_factory=dict)


def find_subjects(source: Path) -> list[SubjectFiles]:
    """The subjects below a folder in SynthRAD layout: one folder each, with ``mr``, ``ct`` and ``mask`` in any format.

    The folders may lie at any depth (``Task1/brain/1BA001/mr.nii.gz``). A ``subject.json`` beside the scans may hold
    ``attributes``, as the simulator writes them.

    Raises
    ------
    FileError
        If the folder does not exist.
    DataError
        If no folder below it holds an MR or a CT, or two of them have the same name.
    """
    source = Path(source)
    if not source.is_dir():
        raise FileError(f"{source}: there is no such folder")
    subjects = [subject for folder in folders_below(source) if (subject := _read_folder(folder)) is not None]
    if not subjects:
        raise DataError(f"{source}: no folder below it holds a file mr.* or ct.*, such as 1BA001/mr.nii.gz and 1BA001/ct.nii.gz")
    names = [subject.id for subject in subjects]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise DataError(f"{source}: several folders are called {', '.join(double)}; subjects need names of their own")
    return subjects


def _read_folder(folder: Path) -> SubjectFiles | None:
    files: dict[Modality, Path] = {name: path for name in SCANS if (path := find_scan(folder, name)) is not None}
    if not {"mr", "ct"} & files.keys():
        return None
    description = folder / "subject.json"
    attributes = read_json(description).get("attributes", {}) if description.is_file() else {}
    return SubjectFiles(folder.resolve().name, files, attributes)
