"""A table of scans: one row a subject, with a column for each kind of scan and any others for attributes."""

from pathlib import Path

from transmodal.core.errors import ConfigError, DataError, FileError, TransmodalError
from transmodal.core.volume import Modality
from transmodal.imaging.dicom_files import is_dicom
from transmodal.imaging.layouts.dicom import series_source
from transmodal.imaging.layouts.subjects import IMAGES, KINDS, Draft, Options, ScanSource, number_or_text
from transmodal.imaging.layouts.tables import read_table
from transmodal.imaging.scan import strip_scan_suffix

_LANDMARKS: dict[str, Modality] = {"mr_landmarks": "mr", "ct_landmarks": "ct"}


def recognize(source: Path) -> str | None:
    """By the suffix of the file."""
    return f"{source.name} is a table" if is_table(source) else None


def is_table(source: Path) -> bool:
    """Whether a file is called as a table is."""
    return source.suffix.lower() in (".csv", ".tsv") and source.is_file()


def read(source: Path, options: Options) -> list[Draft]:
    """List the subjects of a table; paths are relative to its folder.

    Raises
    ------
    FileError
        If the table cannot be read.
    ConfigError
        If it has no column ``mr`` and none ``ct``.
    DataError
        If it has no rows, a row has neither an MR nor a CT, or two rows have the same name.
    """
    if not is_table(source):
        raise FileError(f"{source}: not a table; give a .csv or .tsv file with the columns mr and ct, or choose another --layout")
    rows = read_table(source)
    if not rows:
        raise DataError(f"{source}: no rows below the header")
    if not any(kind in row for _, row in rows for kind in IMAGES):
        raise ConfigError(f"{source}: no scans in a column mr or ct; its columns with contents are {', '.join(sorted(rows[0][1]))}")
    drafts: dict[str, Draft] = {}
    for line, row in rows:
        draft = _draft(row, source, line, options)
        if draft.name in drafts:
            raise DataError(f"{source}, line {line}: a row above is called {draft.name} already; give a column subject with other names")
        drafts[draft.name] = draft
    return list(drafts.values())


def _draft(row: dict[str, str], source: Path, line: int, options: Options) -> Draft:
    where = f"{source}, line {line}"
    first = row.get("mr") or row.get("ct")
    if first is None:
        raise DataError(f"{where}: neither an MR nor a CT")
    files: dict[str, list[ScanSource]] = {}
    problem = None
    for kind in KINDS:
        if kind in row and (kind not in IMAGES or kind in options.wanted):
            try:
                files[kind] = [_scan(source.parent / row[kind], kind, f"{where}, {kind}", options)]
            except TransmodalError as error:
                problem = problem or error
    landmarks: dict[Modality, Path] = {modality: source.parent / row[name] for name, modality in _LANDMARKS.items() if name in row}
    missing = [path for path in landmarks.values() if not path.is_file()]
    if missing:
        problem = problem or FileError(f"{where}: {missing[0]}: there is no such file")
    known = {"subject", *KINDS, *_LANDMARKS}
    attributes = {name: number_or_text(text) for name, text in row.items() if name not in known}
    return Draft(row.get("subject", strip_scan_suffix(Path(first).name)), files, landmarks, attributes, problem)


def _scan(path: Path, kind: str, where: str, options: Options) -> ScanSource:
    """Take a scan file, or the one series that does of a DICOM file or folder."""
    if not path.exists():
        raise FileError(f"{where}: {path}: there is no such file")
    if (kind == "mr" or kind == "ct") and (path.is_dir() or is_dicom(path)):
        return series_source(path, kind, options)
    return ScanSource(path)
