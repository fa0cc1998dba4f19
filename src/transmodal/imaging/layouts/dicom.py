"""A tree of DICOM files of any number of patients, in any order: subjects by PatientID, and of each one MR and one CT series."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from transmodal.core.errors import DataError, TransmodalError
from transmodal.core.volume import Modality
from transmodal.imaging.dicom_files import DicomFile, faults, find_dicom
from transmodal.imaging.dicom_planes import printable
from transmodal.imaging.dicom_read import Series, choose_series, find_series, survey
from transmodal.imaging.layouts.subjects import IMAGES, Attributes, Draft, Options, ScanSource, number_or_text

_ATTRIBUTES = {"Manufacturer": "vendor", "ManufacturerModelName": "model", "InstitutionName": "hospital"}
_TECHNIQUE = ("SequenceName", "ScanningSequence")
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}

Damage = tuple[Path, TransmodalError]


def recognize(source: Path) -> str | None:
    """By the first DICOM file."""
    path = next(find_dicom(source), None)
    return None if path is None else f"{path.relative_to(source)} is a DICOM file"


def read(source: Path, options: Options) -> list[Draft]:
    """List the patients with an MR or a CT.

    Files without PatientID belong together when they lie in the same folder of `source`. Each header is read once.

    Raises
    ------
    FileError
        If there is no DICOM file, or it cannot be known whose a damaged one is: no patient's files lie in its folder, or in one above
        it that is below `source`.
    DataError
        If no patient has an MR or a CT.
    """
    found = survey(source, force_geometry=options.force_geometry)
    patients, damaged = _by_patient(found.series, source)
    problems: dict[str, TransmodalError] = {}
    for path, error in (*found.damaged, *damaged):
        for patient in _owners(path, error, patients, source):
            problems.setdefault(patient, error)
    drafts = [_draft(patient, series, problems.get(patient), source, options) for patient, series in patients.items()]
    if not any(draft.files or draft.problem for draft in drafts):
        listing = "\n".join(f"  {series.describe()}" for series in found.series)
        raise DataError(f"{source}: no MR and no CT there; it holds:\n{listing}")
    return drafts


def series_source(source: Path, kind: Modality, options: Options) -> ScanSource:
    """Choose the one series of a folder or file that does; see `choose_series` for the errors."""
    found = find_series(source, force_geometry=options.force_geometry)
    return _source(choose_series(found, kind, options.selector(kind), str(source), options.selector_name(kind)), options)


def _by_patient(found: Iterable[Series], source: Path) -> tuple[dict[str, list[Series]], list[Damage]]:
    """Series by patient; one with files of two patients is both's, and says so by its problem."""
    patients: dict[str, list[Series]] = {}
    damaged = []
    for series in found:
        names = set()
        for file in series.files:
            try:
                names.add(_patient(file, source))
            except TransmodalError as error:
                damaged.append((file.path, error))
        for name in names:
            patients.setdefault(name, []).append(series)
    return patients, damaged


def _patient(file: DicomFile, source: Path) -> str:
    with faults(file.path):
        name = str(file.header.get("PatientID") or "").strip()
    below = file.path.relative_to(source).parts if source.is_dir() else ()
    return name or (below[0] if len(below) > 1 else source.resolve().name)


def _owners(path: Path, error: TransmodalError, patients: dict[str, list[Series]], source: Path) -> list[str]:
    """The patients who have files in the folder of a damaged one, or in the nearest folder above that has any."""
    for folder in path.parents:
        if folder == source or not folder.is_relative_to(source):
            break
        owners = [
            patient
            for patient, found in patients.items()
            if any(file.path.is_relative_to(folder) for series in found for file in series.files)
        ]
        if owners:
            return owners
    raise error


def _draft(patient: str, found: list[Series], problem: TransmodalError | None, source: Path, options: Options) -> Draft:
    files: dict[str, list[ScanSource]] = {}
    attributes: Attributes = {}
    for kind in IMAGES:
        if kind not in options.wanted or not any(series.modality == kind.upper() for series in found):
            continue
        try:
            where = f"{source}, PatientID {printable(patient)}"
            series = choose_series(found, kind, options.selector(kind), where, options.selector_name(kind))
            files[kind] = [_source(series, options)]
            attributes = _attributes(series.files[0], kind) | attributes
        except TransmodalError as error:
            problem = problem or error
    return Draft(patient, files, attributes=attributes, problem=problem)


def _source(series: Series, options: Options) -> ScanSource:
    files = tuple(file.path for file in series.files)
    folder = Path(os.path.commonpath([path.parent for path in files]))
    return ScanSource(folder, series.uid, files, series.description, options.force_geometry)


def _attributes(file: DicomFile, kind: str) -> Attributes:
    with faults(file.path):
        values = {name: printable(file.header.get(keyword)) for keyword, name in _ATTRIBUTES.items()}
        attributes: Attributes = {name: text for name, text in values.items() if text}
        age = re.fullmatch(r"(\d{3})([YMWD])", printable(file.header.get("PatientAge")))
        if age:
            attributes["age_years"] = round(int(age[1]) * _YEARS[age[2]], 3)
        if kind == "mr":
            attributes |= _mr_attributes(file)
    return attributes


def _mr_attributes(file: DicomFile) -> Attributes:
    technique = next((text for keyword in _TECHNIQUE if (text := _joined(file.header.get(keyword)))), None)
    field = number_or_text(printable(file.header.get("MagneticFieldStrength")))
    return ({"technique": technique} if technique else {}) | ({"field_strength_t": field} if isinstance(field, float) else {})


def _joined(value: Any) -> str:
    """Several values as DICOM writes them."""
    several = isinstance(value, Sequence) and not isinstance(value, str)
    return printable("\\".join(str(part) for part in value) if several else value)
