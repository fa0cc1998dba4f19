"""DICOM in: from a folder tree of mixed series to the one volume that is meant, or a refusal that says why.

Most readers turn a series with a missing slice, a tilted gantry or two pixel spacings into a volume without a word. Here a series
is a volume only if every slice is within a tenth of a millimetre of a regular grid; otherwise it must be asked for.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from jaxtyping import Float

from transmodal.core.errors import ConfigError, DataError, FileError, GeometryError, TransmodalError
from transmodal.core.files import digest_files
from transmodal.core.volume import Modality, Volume
from transmodal.imaging.dicom_files import DicomFile, faults, find_dicom, read_header, read_pixels
from transmodal.imaging.dicom_geometry import Stack, irregularity, regular_grid, regularize, stack
from transmodal.imaging.dicom_planes import Plane, planes_of, printable, require_alike, rescale
from transmodal.imaging.grid import AIR_HU
from transmodal.imaging.stream import MAX_VOXELS

_FORCE = "--force-geometry"
_DICOMDIR = "1.2.840.10008.1.3.10"


@dataclass(frozen=True, eq=False)
class Series:
    """What a folder holds under one series UID.

    Parameters
    ----------
    uid : str
        SeriesInstanceUID.
    number : str
        SeriesNumber, as text; empty if there is none.
    description, modality : str
        As the header has them.
    files : tuple of DicomFile
    stack : Stack or None
        The slices in order, if they are parallel and belong together.
    problem : TransmodalError or None
        Why the series is not a volume.
    note : str
        What had to be accepted to call it one.
    """

    uid: str
    number: str
    description: str
    modality: str
    files: tuple[DicomFile, ...] = field(repr=False)
    stack: Stack | None = field(repr=False)
    problem: TransmodalError | None
    note: str = ""

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """Columns, rows and slices, if there is a stack."""
        return self.stack.grid().shape if self.stack else None

    def is_called(self, text: str) -> bool:
        """Whether `text` is the number or the UID of the series, or a shell pattern (``*mprage*``) that its description matches."""
        return text in (self.number, self.uid) or fnmatchcase(self.description.lower(), text.lower())

    def describe(self) -> str:
        """One line for a list."""
        size = "x".join(str(n) for n in self.shape) if self.shape else "no volume"
        text = f"series {self.number or '(no number)'}: {self.modality}, {self.description or '(no description)'}, {size}"
        return f"{text}, {len(self.files)} files, {self.uid}" + (f"\n    refused: {self.problem}" if self.problem else "")


@dataclass(frozen=True, eq=False)
class DicomScan:
    """A series as a volume, with the headers that a derived series needs.

    Parameters
    ----------
    volume : Volume
    series : Series
    regularized : bool
        Whether the slices have been interpolated onto a regular grid; otherwise slice k of the volume is plane k of the stack.
    """

    volume: Volume
    series: Series
    regularized: bool

    @property
    def planes(self) -> tuple[Plane, ...]:
        """The slices as they were acquired, in order."""
        assert self.series.stack is not None
        return self.series.stack.planes

    def digest(self) -> str:
        """SHA-256 of the series' files; see `digest_files`."""
        return digest_files(file.path for file in self.series.files)


@dataclass(frozen=True, eq=False)
class Survey:
    """What a folder tree holds of DICOM.

    Parameters
    ----------
    series : tuple of Series
        By number. A series that is no volume says why.
    damaged : tuple of (Path, TransmodalError)
        Files that cannot be read, each of which might belong to any series.
    """

    series: tuple[Series, ...]
    damaged: tuple[tuple[Path, TransmodalError], ...]


def find_series(source: Path, *, files: Iterable[Path] | None = None, force_geometry: bool = False) -> list[Series]:
    """List the series below a folder, or in one file.

    Parameters
    ----------
    source : Path
        Other files than DICOM are passed over.
    files : iterable of Path, optional
        Of the files there, only these.
    force_geometry : bool
        Accept lossy compression, and slices that are not on a regular grid.

    Returns
    -------
    list of Series
        By number. A series that is no volume says why.

    Raises
    ------
    FileError
        If there is no DICOM file, or one of them is damaged: it might belong to any series.
    """
    found = survey(source, files=files, force_geometry=force_geometry)
    if found.damaged:
        raise found.damaged[0][1]
    return list(found.series)


def survey(source: Path, *, files: Iterable[Path] | None = None, force_geometry: bool = False) -> Survey:
    """List the series below a folder as `find_series` does, and the damaged files beside them.

    Raises
    ------
    FileError
        If there is no DICOM file.
    """
    if not source.exists():
        raise FileError(f"{source}: there is no such file or folder")
    groups: dict[str, list[DicomFile]] = {}
    damaged = []
    for path in find_dicom(source) if files is None else files:
        try:
            file = read_header(path)
            with faults(path):
                if file.header.file_meta.get("MediaStorageSOPClassUID") != _DICOMDIR:
                    groups.setdefault(_series_uid(file), []).append(file)
        except TransmodalError as error:
            damaged.append((path, error))
    if not groups and not damaged:
        raise FileError(f"{source}: no DICOM images there; give a DICOM file or a folder of them")
    found = [_series(uid, group, force_geometry) for uid, group in groups.items()]
    return Survey(tuple(sorted(found, key=lambda series: (len(series.number), series.number, series.uid))), tuple(damaged))


def _series_uid(file: DicomFile) -> str:
    """Without it a file is cut short, and its series would lack a slice unnoticed."""
    uid = printable(file.header.get("SeriesInstanceUID"))
    if not uid:
        raise FileError(f"{file.path}: the header is damaged: it has no SeriesInstanceUID; copy or export it again")
    return uid


def _series(uid: str, files: list[DicomFile], force: bool) -> Series:
    header = files[0].header
    stack_, problem, note = None, None, ""
    try:
        stack_ = _stack(files)
        note = _accept(files, stack_, force)
    except TransmodalError as error:
        problem = error
    with faults(files[0].path):
        number, description, modality = (printable(header.get(key)) for key in ("SeriesNumber", "SeriesDescription", "Modality"))
    return Series(uid, number, description, modality, tuple(files), stack_, problem, note)


def _stack(files: list[DicomFile]) -> Stack:
    planes = []
    for file in files:
        with faults(file.path):
            planes.extend(planes_of(file))
    with faults(files[0].path):
        require_alike(planes)
    if len(planes) * planes[0].shape[0] * planes[0].shape[1] > MAX_VOXELS:
        raise FileError(f"{files[0].path}: {len(planes)} slices of {planes[0].shape} pixels are more than the {MAX_VOXELS} voxels accepted")
    return stack(planes)


def _accept(files: list[DicomFile], stack_: Stack, force: bool) -> str:
    """Refuse, or with `force` tell, what makes the series less than an exact volume."""
    notes = []
    with faults(files[0].path):
        lossy = [file.path for file in files if file.lossy]
    if lossy:
        notes.append(f"{lossy[0]}: {len(lossy)} files have been through lossy compression, which changes values")
        if not force:
            raise DataError(f"{notes[0]}; export the originals, or accept the loss with {_FORCE}")
    reason = irregularity(stack_)
    if reason:
        notes.append(f"{reason}; resampled onto a regular grid of {regular_grid(stack_).describe()}")
        if not force:
            raise GeometryError(f"{files[0].path.parent}: {reason}; export the series again, or resample it with {_FORCE}")
    return "; ".join(notes)


def read_series(
    source: Path, modality: Modality, *, series: str | None = None, files: Iterable[Path] | None = None, force_geometry: bool = False
) -> DicomScan:
    """Read the one series of a modality that is a volume.

    Parameters
    ----------
    source : Path
        A folder tree, or one enhanced multi-frame file.
    modality : {"mr", "ct"}
    series : str, optional
        SeriesNumber, SeriesInstanceUID, or a shell pattern of the SeriesDescription, where several series would do.
    files : iterable of Path, optional
        Of the files there, only these.
    force_geometry : bool
        Resample slices that are tilted, missing or unevenly spaced onto a regular grid at right angles, linearly and in physical
        space, and accept lossy compression. `DicomScan.series.note` then says what was done.

    Returns
    -------
    DicomScan
        CT in HU; int16 where all values are whole numbers that fit, otherwise float32. Padding outside of the CT's reconstruction
        is -1024 HU.

    Raises
    ------
    FileError
        If a file is damaged, truncated, or in a syntax that cannot be decoded.
    GeometryError
        If slices are missing, doubled, tilted, unevenly spaced, or differ in size, spacing or orientation.
    DataError
        If no series of that modality is a volume, or several are and none is named.
    ConfigError
        If the named series is not there.
    """
    found = find_series(source, files=files, force_geometry=force_geometry)
    chosen = choose_series(found, modality, series, str(source))
    assert chosen.stack is not None
    array = _voxels(chosen.stack.planes, modality)
    grid, regularized = chosen.stack.grid(), irregularity(chosen.stack) is not None
    if regularized:
        grid = regular_grid(chosen.stack)
        array = regularize(chosen.stack, array, grid, AIR_HU if modality == "ct" else min(0.0, float(array.min())))
    volume = Volume(_narrow(array), grid.affine, modality).require_finite(str(source))
    return DicomScan(volume, chosen, regularized)


def choose_series(found: Sequence[Series], modality: Modality, wanted: str | None, where: str, option: str = "--series") -> Series:
    """Choose the one series of a modality that is a volume.

    Parameters
    ----------
    found : sequence of Series
    modality : {"mr", "ct"}
    wanted : str, optional
        See `Series.is_called`.
    where, option : str
        For messages: what was searched, and how the user names a series.

    Raises
    ------
    ConfigError
        If the wanted series is not there, or several are called so.
    DataError
        If no series of that modality is a volume, or several are and none is named.
    TransmodalError
        What is wrong with the only series that it can be.
    """
    kind = modality.upper()
    listing = "\n".join(f"  {series.describe()}" for series in found)
    candidates = [series for series in found if series.modality == kind]
    if wanted is not None:
        named = [series for series in found if series.is_called(wanted)]
        if not named:
            raise ConfigError(f"{option} {wanted}: no series has this number, UID or description; {where} holds:\n{listing}")
        candidates = [series for series in named if series.modality == kind]
        if not candidates:
            raise DataError(f"{option} {wanted}: its modality is {named[0].modality}, and {kind} is wanted")
    usable = [series for series in candidates if series.problem is None]
    if len(usable) == 1:
        return usable[0]
    if len(candidates) == 1:
        return _require_volume(candidates[0])
    if usable:
        raise DataError(
            f"{where}: {len(usable)} {kind} series would do; choose one by its number, UID or description with {option}:\n{listing}"
        )
    raise DataError(f"{where}: no {kind} series is a volume:\n{listing}")


def _require_volume(series: Series) -> Series:
    if series.problem is not None:
        raise series.problem
    return series


def _voxels(planes: tuple[Plane, ...], modality: Modality) -> Float[np.ndarray, "x y z"]:
    """Decode all planes, each file once, into the order of the stack."""
    rows, columns = planes[0].shape
    array = np.empty((columns, rows, len(planes)), dtype=np.float32)
    by_file: dict[Path, list[int]] = {}
    for k, plane in enumerate(planes):
        by_file.setdefault(plane.file.path, []).append(k)
    for path, indices in by_file.items():
        with faults(path):
            pixels = read_pixels(planes[indices[0]].file)
            for k in indices:
                array[:, :, k] = rescale(pixels[planes[k].frame], planes[k], modality).T
    return array


def _narrow(array: Float[np.ndarray, "x y z"]) -> np.ndarray:
    """Take int16 where it holds every value."""
    limits = np.iinfo(np.int16)
    if limits.min <= array.min() and array.max() <= limits.max and (array == np.rint(array)).all():
        return array.astype(np.int16)
    return array
