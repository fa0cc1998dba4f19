"""MRs of some people and CTs of others: two folders of scans in any layout, or files at any depth."""

from dataclasses import replace
from pathlib import Path

from transmodal.core.errors import DataError, FileError
from transmodal.core.volume import Modality
from transmodal.imaging.layouts import bids, dicom, folders, nnunet, synthrad
from transmodal.imaging.layouts.subjects import IMAGES, Draft, Options

_INNER = (bids, nnunet, synthrad)


def recognize(source: Path) -> str | None:
    """By folders of MRs and of CTs, of which no two scans have the same name where this is asked."""
    mr, ct = folders.kind_folder(source, "mr"), folders.kind_folder(source, "ct")
    found = mr and ct and folders.cases_in(mr, "mr") and folders.cases_in(ct, "ct")
    return "two folders, mr and ct, hold scans of different names" if found else None


def read(source: Path, options: Options) -> list[Draft]:
    """List the MRs of one folder and the CTs of the other, as subjects ``mr-<name>`` and ``ct-<name>``.

    Raises
    ------
    FileError
        If a folder is absent.
    DataError
        If a folder holds no scans.
    """
    mr, ct = (source, options.ct_source) if options.ct_source else (folders.kind_folder(source, kind) for kind in IMAGES)
    if mr is None or ct is None:
        raise DataError(f"{source}: give the folder of the CTs with --ct, or one folder that holds two called mr and ct")
    return [*_side(mr, "mr", options), *_side(ct, "ct", options)]


def _side(folder: Path, kind: Modality, options: Options) -> list[Draft]:
    if not folder.is_dir():
        raise FileError(f"{folder}: there is no such folder")
    options = replace(options, ct_source=None, wanted=(kind,))
    inner = next((layout for layout in _INNER if layout.recognize(folder)), None)
    drafts = inner.read(folder, options) if inner else folders.drafts_of(folders.cases_in(folder, kind)) or dicom.read(folder, options)
    found = [draft for draft in drafts if draft.problem or draft.files.get(kind)]
    if not found:
        raise DataError(f"{folder}: no {kind.upper()} there")
    return [_alone(draft, kind) for draft in found]


def _alone(draft: Draft, kind: Modality) -> Draft:
    """Without the other modality, which the other folder is for."""
    files = {name: scans for name, scans in draft.files.items() if name not in ("mr", "ct") or name == kind}
    landmarks = {name: path for name, path in draft.landmarks.items() if name == kind}
    return replace(draft, name=f"{kind}-{draft.name}", files=files, landmarks=landmarks)
