"""What every layout comes to: subjects with names that are safe, and for each the place of its scans."""

import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from transmodal.core.errors import ConfigError, DataError, TransmodalError
from transmodal.core.files import digest_files
from transmodal.core.volume import Modality, Volume
from transmodal.imaging.dicom_read import DicomScan, find_series, read_series
from transmodal.imaging.scan import read_scan, scan_hash, strip_scan_suffix

IMAGES: tuple[Modality, ...] = ("mr", "ct")
KINDS: tuple[str, ...] = ("mr", "ct", "mask", "labels", "brain")
Attributes = dict[str, str | float]

_MAX_NAME = 100


def is_number(value: object) -> bool:
    """Whether it may be the number of an attribute: JSON as Python writes it may hold NaN, which nothing can be ordered by."""
    return isinstance(value, int | float) and math.isfinite(value)


@dataclass(frozen=True)
class ScanSource:
    """Where one scan is: a file in any supported format, or one series of a DICOM folder.

    Parameters
    ----------
    path : Path
        The file, or the folder that holds the series.
    series : str, optional
        SeriesInstanceUID.
    files : tuple of Path
        The files of the series; without them the folder is searched.
    description : str
        SeriesDescription.
    force_geometry : bool
        Resample a series that is not on a regular grid instead of refusing it.
    """

    path: Path
    series: str | None = None
    files: tuple[Path, ...] = field(default=(), repr=False)
    description: str = ""
    force_geometry: bool = False

    def read(self, modality: Modality) -> Volume:
        """Read the voxels, in RAS+ mm on the scan's own grid; see `read_scan` and `read_series` for the errors."""
        return read_scan(self.path, modality) if self.series is None else self.read_dicom(modality).volume

    def read_dicom(self, modality: Modality) -> DicomScan:
        """Read a series with its headers."""
        assert self.series is not None
        return read_series(self.path, modality, series=self.series, files=self.files or None, force_geometry=self.force_geometry)

    def digest(self) -> str:
        """SHA-256 of the file, or over the hashes of the series' files."""
        if self.series is None:
            return scan_hash(self.path)
        found = self.files or [file.path for series in find_series(self.path) if series.uid == self.series for file in series.files]
        return digest_files(found)

    @property
    def name(self) -> str:
        """The file name, or the description of the series."""
        return self.path.name if self.series is None else self.description or "series"


@dataclass(frozen=True)
class SubjectFiles:
    """The scans of one subject, and what is known of it.

    Parameters
    ----------
    id : str
        Safe as the name of a folder.
    files : dict
        Scan by kind: ``mr``, ``ct``, ``mask`` (of the head), ``labels``, ``brain`` (a mask of the brain).
    landmarks : dict
        Table of landmarks by modality.
    attributes : dict
        Hospital, vendor, technique, age_years ...
    problem : TransmodalError, optional
        Why the subject cannot be used.
    """

    id: str
    files: dict[str, ScanSource]
    landmarks: dict[Modality, Path] = field(default_factory=dict)
    attributes: Attributes = field(default_factory=dict)
    problem: TransmodalError | None = None


@dataclass(frozen=True)
class Options:
    """What the user says beside the source; see `find_subjects`."""

    ct_source: Path | None = None
    mr_series: str | None = None
    ct_series: str | None = None
    force_geometry: bool = False
    wanted: tuple[Modality, ...] = IMAGES
    series_option: str | None = None

    def selector_name(self, kind: str) -> str:
        """What the user calls that choice, for messages."""
        return self.series_option or f"--{kind}-series"

    def selector(self, kind: str) -> str | None:
        """How the user names the one scan of several that is meant."""
        return {"mr": self.mr_series, "ct": self.ct_series}.get(kind)


@dataclass(frozen=True)
class Draft:
    """A subject as a layout finds it: under any name, with all files that qualify as each kind of scan."""

    name: str
    files: dict[str, list[ScanSource]]
    landmarks: dict[Modality, Path] = field(default_factory=dict)
    attributes: Attributes = field(default_factory=dict)
    problem: TransmodalError | None = None


def settle(drafts: Sequence[Draft], options: Options) -> list[SubjectFiles]:
    """Choose one file of each kind, or say why that cannot be done, and give every subject a name that is safe.

    Subjects without an image that is wanted are left out.
    """
    subjects = [_choose(draft, name, options) for draft, name in zip(drafts, safe_names([draft.name for draft in drafts]), strict=True)]
    return sorted((s for s in subjects if s.problem is not None or set(options.wanted) & s.files.keys()), key=lambda s: s.id)


def _choose(draft: Draft, name: str, options: Options) -> SubjectFiles:
    files, problem = {}, draft.problem
    for kind, scans in draft.files.items():
        if not scans or (kind in IMAGES and kind not in options.wanted):
            continue
        try:
            files[kind] = _one(scans, kind, options)
        except TransmodalError as error:
            problem = problem or error
    return SubjectFiles(name, files, draft.landmarks, draft.attributes, problem)


def _one(scans: list[ScanSource], kind: str, options: Options) -> ScanSource:
    if scans[0].series is not None:
        return scans[0]  # chosen among the series of its folder already
    wanted, option, folder = options.selector(kind), options.selector_name(kind), scans[0].path.parent
    named = [scan for scan in scans if wanted is None or fnmatchcase(scan.path.name.lower(), wanted.lower())]
    if len(named) == 1:
        return named[0]
    listing = ", ".join(scan.path.name for scan in (named or scans))
    if not named:
        raise ConfigError(f"{option} {wanted}: no file in {folder} is called so; there are {listing}")
    remedy = f"leave one, or choose one by a pattern of its name with {option}" if kind in IMAGES else "leave one, or name it in a CSV"
    raise DataError(f"{folder}: {len(named)} files would do as {kind}: {listing}; {remedy}")


def safe_names(names: Sequence[str]) -> list[str]:
    """Turn any text into names of folders, one for one: letters, digits, ``.``, ``_`` and ``-``.

    Other characters become ``-``. Names that would become the same (on some systems, small and capital letters are) get a hash of
    what they were, except one that is safe as it is.
    """
    safe = [_safe(name) for name in names]
    taken = Counter(name.casefold() for name in safe)
    unchanged = Counter(new.casefold() for old, new in zip(names, safe, strict=True) if old == new)
    return [
        new if taken[key := new.casefold()] == 1 or (old == new and unchanged[key] == 1) else f"{new}-{_hash(old)}"
        for old, new in zip(names, safe, strict=True)
    ]


def _safe(name: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("._-") or "subject"
    return safe if len(safe) <= _MAX_NAME else f"{safe[: _MAX_NAME - 9]}-{_hash(name)}"


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]


def number_or_text(text: str) -> str | float:
    """Read a number as a float, and anything else (names with leading zeros, ``nan``) as text."""
    return float(text) if re.fullmatch(r"[+-]?(0|[1-9]\d{0,15})(\.\d+)?([eE][+-]?\d{1,2})?", text, re.ASCII) else text


def walk(source: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yield every folder of a tree with the scan files in it, in order of their names; hidden ones are passed over.

    A link to a folder elsewhere is looked into but not below, so that no loop can trap the walk; one to a folder of the tree itself is
    passed over, so that nothing is there twice.
    """
    tree = source.resolve()
    for name, subfolders, names in os.walk(source):
        folder = Path(name)
        subfolders[:] = sorted(sub for sub in subfolders if not sub.startswith("."))
        yield folder, scans_among(folder, names)
        links = (folder / sub for sub in subfolders if (folder / sub).is_symlink())
        yield from ((link, scans_in(link)) for link in links if not link.resolve().is_relative_to(tree))


def scans_in(folder: Path) -> list[Path]:
    """List the scan files of a folder by their names; nothing where it cannot be read."""
    try:
        return scans_among(folder, [path.name for path in folder.iterdir()])
    except OSError:
        return []


def scans_among(folder: Path, names: Sequence[str]) -> list[Path]:
    """Those of the names that end as scan files do."""
    return [folder / name for name in sorted(names) if not name.startswith(".") and strip_scan_suffix(name) != name]


def folders_in(source: Path) -> list[Path]:
    """List the folders in a folder, without the hidden ones."""
    if not source.is_dir():
        return []
    return sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))
