"""The Brain Imaging Data Structure: ``sub-01[/ses-2]/anat/sub-01[_ses-2]_T1w.nii.gz``, with the CT as ``..._ct.nii.gz``.

Format: BIDS 1.10 (Gorgolewski et al., Scientific Data 2016). Masks are taken from the subject's own folders and from those of
``derivatives/``, where they lie in the space of the scan.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transmodal.core.errors import DataError, TransmodalError
from transmodal.core.files import read_json
from transmodal.imaging.layouts.bids_names import CT_SUFFIX, MR_SUFFIXES, Name, parse_name
from transmodal.imaging.layouts.subjects import Attributes, Draft, Options, ScanSource, folders_in, is_number, walk
from transmodal.imaging.layouts.tables import read_attributes
from transmodal.imaging.scan import strip_scan_suffix

DESCRIPTION_NAME = "dataset_description.json"
_RENAMED = {"age": "age_years"}
_SIDECAR = {
    "Manufacturer": "vendor",
    "ManufacturersModelName": "model",
    "InstitutionName": "hospital",
    "MagneticFieldStrength": "field_strength_t",
    "ScanningSequence": "technique",
    "SequenceName": "technique",
    "PulseSequenceType": "technique",
}
_MASKS: dict[str | None, str] = {None: "mask", "head": "mask", "brain": "brain"}

Files = dict[str, list[ScanSource]]


@dataclass(frozen=True)
class Scan:
    """A file with a name of BIDS."""

    name: Name
    path: Path


def recognize(source: Path) -> str | None:
    """By the names of scans in folders ``sub-*``."""
    first = next(scans_of(source), None)
    if first is None:
        return None
    described = (source / DESCRIPTION_NAME).is_file()
    return f"{DESCRIPTION_NAME} and sub-* folders are there" if described else f"{first.path.relative_to(source)} is there"


def scans_of(source: Path) -> Iterator[Scan]:
    """Yield the scans of the folders ``sub-*``."""
    for folder in folders_in(source):
        if folder.name.startswith("sub-"):
            for _, paths in walk(folder):
                yield from (Scan(name, path) for path in paths if (name := parse_name(path)) is not None and name.person == folder.name)


def read(source: Path, options: Options) -> list[Draft]:
    """List the subjects: one for each session, or one for the person where the MR and the CT are in two sessions.

    Raises
    ------
    FileError, DataError
        If ``participants.tsv`` is not usable.
    DataError
        If there are no scans.
    """
    scans = list(scans_of(source))
    if not scans:
        raise DataError(f"{source}: no scan with a name of BIDS, such as sub-01/anat/sub-01_T1w.nii.gz")
    pipelines = [source / "derivatives", *folders_in(source / "derivatives")]
    masks = [scan for pipeline in pipelines for scan in scans_of(pipeline) if scan.name.suffix == "mask"]
    people: dict[str, dict[str, Files]] = {}
    for scan in (*scans, *masks):
        kind = kind_of(scan.path)
        if kind is not None:
            files = people.setdefault(scan.name.person, {}).setdefault(scan.name.case, {})
            files.setdefault(kind, []).append(ScanSource(scan.path))
    known = _participants(source / "participants.tsv")
    return [draft for person, sessions in people.items() for draft in _drafts(person, sessions, known.get(person, {}), options)]


def kind_of(path: Path) -> str | None:
    """Tell what a scan is by its name; synthetic images, phases and masks in the space of a template are nothing."""
    name = parse_name(path)
    if name is None or name.is_synthetic or name.entities.get("part", "mag") != "mag":
        return None
    if name.suffix == "mask":
        named = name.entities.get("desc") or name.entities.get("label")
        return _MASKS.get(named) if name.entities.get("space") in (None, "orig", *MR_SUFFIXES) else None
    if "space" in name.entities:
        return None
    return "mr" if name.suffix in MR_SUFFIXES else "ct" if name.suffix.lower() == CT_SUFFIX else None


def _drafts(person: str, sessions: dict[str, Files], known: Attributes, options: Options) -> list[Draft]:
    with_mr, with_ct = ([files for files in sessions.values() if kind in files] for kind in ("mr", "ct"))
    if len(with_mr) == len(with_ct) == 1 and with_mr[0] is not with_ct[0]:
        sessions = {person: {**with_mr[0], "ct": with_ct[0]["ct"]}}
    elif len(sessions) > 1:
        known = {"person": person, **known}
    return [_draft(case, files, known, options) for case, files in sessions.items()]


def _draft(case: str, files: Files, known: Attributes, options: Options) -> Draft:
    if "mr" in files and options.selector("mr") is None:
        files = {**files, "mr": _preferred(files["mr"])}
    try:
        return Draft(case, files, attributes=_of_sidecar(files) | known)
    except TransmodalError as error:
        return Draft(case, files, attributes=known, problem=error)


def _preferred(scans: list[ScanSource]) -> list[ScanSource]:
    """All scans of the first contrast in `MR_SUFFIXES` that there is."""
    by_suffix = {suffix: [scan for scan in scans if strip_scan_suffix(scan.path.name).endswith(f"_{suffix}")] for suffix in MR_SUFFIXES}
    return next(found for found in by_suffix.values() if found)


def _participants(path: Path) -> dict[str, Attributes]:
    return read_attributes(path, "participant_id", _RENAMED) if path.is_file() else {}


def _of_sidecar(files: Files) -> Attributes:
    """What the JSON beside the MR, or else beside the CT, says of the scanner."""
    first = (files.get("mr") or files.get("ct") or [None])[0]
    path = None if first is None else sidecar_of(first.path)
    if path is None or not path.is_file():
        return {}
    values = read_json(path)
    if not isinstance(values, dict):
        raise DataError(f"{path}: expected an object with the metadata of the scan")
    return {name: value for key, name in _SIDECAR.items() if (value := _plain(values.get(key))) is not None}


def _plain(value: Any) -> str | float | None:
    if isinstance(value, list):
        return "\\".join(str(part) for part in value)
    return value if (isinstance(value, str) and value) or is_number(value) else None


def sidecar_of(scan: Path) -> Path:
    """The JSON of a scan."""
    return scan.with_name(f"{strip_scan_suffix(scan.name)}.json")
