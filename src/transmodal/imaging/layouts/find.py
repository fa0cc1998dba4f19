"""From a folder or a table to its subjects, whatever the layout."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from transmodal.core.errors import ConfigError, DataError, FileError
from transmodal.core.volume import Modality
from transmodal.imaging.layouts import bids, dicom, folders, nnunet, synthrad, table, unpaired
from transmodal.imaging.layouts.subjects import IMAGES, Attributes, Draft, Options, SubjectFiles, safe_names, settle
from transmodal.imaging.layouts.tables import read_attributes

Layout = Literal["auto", "synthrad", "bids", "nnunet", "dicom", "csv", "folders", "unpaired"]

ATTRIBUTES_NAME = "subjects.csv"


@dataclass(frozen=True)
class _Reader:
    title: str
    recognize: Callable[[Path], str | None]
    read: Callable[[Path, Options], list[Draft]]


# In the order in which they are recognized: first what says what it is, last what lies anyhow.
_READERS: dict[Layout, _Reader] = {
    "csv": _Reader("a table of scans", table.recognize, table.read),
    "bids": _Reader("BIDS", bids.recognize, bids.read),
    "nnunet": _Reader("nnU-Net", nnunet.recognize, nnunet.read),
    "folders": _Reader("paired folders", folders.recognize, folders.read),
    "synthrad": _Reader("SynthRAD", synthrad.recognize, synthrad.read),
    "unpaired": _Reader("unpaired folders", unpaired.recognize, unpaired.read),
    "dicom": _Reader("DICOM", dicom.recognize, dicom.read),
}


_WITH_DICOM = ("dicom", "csv", "unpaired")


@dataclass(frozen=True)
class Found:
    """The subjects of a source.

    Parameters
    ----------
    layout : str
    reason : str
        By what the layout was recognized; empty where it was given.
    subjects : list of SubjectFiles
        In order of their names.
    """

    layout: Layout
    reason: str
    subjects: list[SubjectFiles]

    @property
    def explanation(self) -> str:
        """One line that tells the layout and why it was chosen."""
        reason = f", because {self.reason}; --layout chooses another" if self.reason else ", as --layout says"
        return f"layout: {_READERS[self.layout].title}{reason}"


def find_subjects(
    source: Path,
    layout: Layout = "auto",
    *,
    ct_source: Path | None = None,
    mr_series: str | None = None,
    ct_series: str | None = None,
    force_geometry: bool = False,
    wanted: tuple[Modality, ...] = IMAGES,
    series_option: str | None = None,
) -> Found:
    """List the subjects of a folder or table, with the scans of each. No voxel is read.

    A subject that cannot be used (two MRs would do, say) has a `SubjectFiles.problem`; the others are not stopped by it. A table
    ``subjects.csv`` in the source, with a column ``subject`` and others for attributes, adds to what the layout tells of them.

    Parameters
    ----------
    source : Path
    layout : str
        ``auto`` recognizes it.
    ct_source : Path, optional
        A folder with the CTs of other people than those whose MRs are in `source`.
    mr_series, ct_series : str, optional
        Which of several MRs (CTs) of a subject is meant: of DICOM, the number or UID of the series or a shell pattern of its
        description; of files, a shell pattern of the name.
    force_geometry : bool
        Of DICOM, accept lossy compression, and slices that are not on a regular grid.
    wanted : tuple of {"mr", "ct"}
        Look for these only; what is wrong with the others is no problem then.
    series_option : str, optional
        The name of the option behind `mr_series` and `ct_series`, for messages.

    Raises
    ------
    FileError
        If the source does not exist, or a file of the layout itself is not readable.
    DataError
        If no layout is recognized, or there are no subjects.
    ConfigError
        If options contradict the layout, or a table has no column of scans.
    """
    source = Path(source)
    if not source.exists():
        raise FileError(f"{source}: there is no such folder or table")
    options = Options(ct_source, mr_series, ct_series, force_geometry, wanted, series_option)
    layout, reason = _recognize(source, ct_source) if layout == "auto" else (layout, "")
    if ct_source is not None and layout != "unpaired":
        raise ConfigError(f"--ct {ct_source}: two folders of unpaired scans are one layout of their own, and --layout {layout} another")
    if source.is_file() and layout != "csv":
        raise FileError(f"{source}: not a folder; give the folder of the scans, or a table (.csv or .tsv) with the columns mr and ct")
    if force_geometry and layout not in _WITH_DICOM:
        raise ConfigError(f"--force-geometry is for DICOM, and {source} is {_READERS[layout].title}; leave it out")
    drafts = _READERS[layout].read(source, options)
    subjects = settle(_with_table(drafts, source), options)
    if not subjects:
        raise DataError(f"{source}: none of the subjects there has an {' or '.join(kind.upper() for kind in wanted)}")
    return Found(layout, reason, subjects)


def _recognize(source: Path, ct_source: Path | None) -> tuple[Layout, str]:
    if ct_source is not None:
        return "unpaired", "--ct names another folder"
    for layout, reader in _READERS.items():
        reason = reader.recognize(source)
        if reason is not None:
            return layout, reason
    raise DataError(
        f"{source}: no layout is recognized: no folder below it holds a file mr.* or ct.*, such as 1BA001/mr.nii.gz, and there are no "
        "folders sub-*, no imagesTr/, no folders mr/ and ct/, and no DICOM files; write a table of the scans, with the columns "
        "subject, mr and ct, and give that"
    )


def _with_table(drafts: list[Draft], source: Path) -> list[Draft]:
    """Add the attributes of ``subjects.csv``, which may name a subject as the source or as the dataset calls it."""
    path = (source if source.is_dir() else source.parent) / ATTRIBUTES_NAME
    if not path.is_file() or path == source:
        return drafts
    known = read_attributes(path, "subject")
    names = [draft.name for draft in drafts]
    rows: list[Attributes] = [known.get(name) or known.get(safe) or {} for name, safe in zip(names, safe_names(names), strict=True)]
    if known and not any(rows):
        raise DataError(f"{path}: none of its subjects ({next(iter(known))} ...) is one of those there ({names[0]} ...)")
    return [replace(draft, attributes=draft.attributes | row) for draft, row in zip(drafts, rows, strict=True)]
