"""MRs of some people and CTs of others: two folders of scans in any layout, or files at any depth."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from transmodal.core.errors import DataError, FileError
from transmodal.core.volume import Modality
from transmodal.imaging.layouts import bids, dicom, folders, nnunet, synthrad
from transmodal.imaging.layouts.subjects import KINDS, Draft, Options, ScanSource, walk
from transmodal.imaging.scan import strip_scan_suffix

_INNER = (bids, nnunet, synthrad)


def recognize(source: Path) -> str | None:
    """By folders of MRs and of CTs of which no two scans have the same name."""
    mr, ct = folders.cases_of(source, "mr"), folders.cases_of(source, "ct")
    return "two folders, mr and ct, hold scans of different names" if mr and ct else None


def read(source: Path, options: Options) -> list[Draft]:
    """List the MRs of one folder and the CTs of the other, as subjects ``mr-<name>`` and ``ct-<name>``.

    Raises
    ------
    FileError
        If a folder is absent.
    DataError
        If a folder holds no scans.
    """
    if options.ct_source is not None:
        places = source, options.ct_source
    else:
        names = folders.kind_folder(source, "mr"), folders.kind_folder(source, "ct")
        if names[0] is None or names[1] is None:
            raise DataError(f"{source}: give the folder of the CTs with --ct, or one folder that holds two called mr and ct")
        places = source / names[0], source / names[1]
    return [*_side(places[0], "mr", options), *_side(places[1], "ct", options)]


def _side(folder: Path, kind: Modality, options: Options) -> list[Draft]:
    if not folder.is_dir():
        raise FileError(f"{folder}: there is no such folder")
    options = replace(options, ct_source=None, wanted=(kind,))
    inner = next((layout for layout in _INNER if layout.recognize(folder)), None)
    drafts = inner.read(folder, options) if inner else _loose(folder, kind) or dicom.read(folder, options)
    found = [draft for draft in drafts if draft.problem or draft.files.get(kind)]
    if not found:
        raise DataError(f"{folder}: no {kind.upper()} there")
    return [_alone(draft, kind) for draft in found]


def _alone(draft: Draft, kind: Modality) -> Draft:
    """Without the other modality, which the other folder is for."""
    files = {name: scans for name, scans in draft.files.items() if name not in ("mr", "ct") or name == kind}
    landmarks = {name: path for name, path in draft.landmarks.items() if name == kind}
    return replace(draft, name=f"{kind}-{draft.name}", files=files, landmarks=landmarks)


def _loose(folder: Path, kind: Modality) -> list[Draft]:
    """Files at any depth: ``CASE``, ``CASE_mr``, and beside them ``CASE_mask`` and the like."""
    cases: dict[Path, dict[str, list[ScanSource]]] = {}
    for place, scans in walk(folder):
        for path in scans:
            case, what = _split(strip_scan_suffix(path.name), kind)
            cases.setdefault(place.relative_to(folder) / case, {}).setdefault(what, []).append(ScanSource(path))
    found = {case: files for case, files in cases.items() if kind in files}
    names = Counter(case.name for case in found)
    return [Draft(case.name if names[case.name] == 1 else case.as_posix(), files) for case, files in found.items()]


def _split(stem: str, default: str) -> tuple[str, str]:
    for kind in KINDS:
        if stem.endswith(f"_{kind}"):
            return stem.removesuffix(f"_{kind}"), kind
    return stem, default
