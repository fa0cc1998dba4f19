"""nnU-Net: ``imagesTr/<case>_0000.nii.gz``, where the number is that of a channel.

Format: nnU-Net v2, documentation/dataset_format.md (Isensee et al., Nature Methods 2021). A dataset made for synthesis says what its
channels are by ``channel_names`` in ``dataset.json`` (``modality`` in version 1).
"""

import re
from pathlib import Path
from typing import Any

from transmodal.core.errors import DataError
from transmodal.core.files import read_json
from transmodal.imaging.layouts.subjects import Draft, Options, ScanSource, scans_in
from transmodal.imaging.scan import strip_scan_suffix

_PARTS = ("Tr", "Ts")
_IMAGE = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


def recognize(source: Path) -> str | None:
    """By the folder of training images."""
    if any(_IMAGE.fullmatch(strip_scan_suffix(path.name)) for path in scans_in(source / "imagesTr")):
        return "imagesTr/ holds scans named CASE_0000"
    return None


def read(source: Path, options: Options) -> list[Draft]:
    """List the cases of ``imagesTr`` and ``imagesTs``.

    The CT is the channel that is called CT or, where none is, the file of the case in ``targetsTr``, or in ``labelsTr`` where
    ``dataset.json`` calls a label ``CT``. The MR is the first other channel. Other files in ``labelsTr`` are label maps.

    Raises
    ------
    DataError
        If there are no cases, or ``dataset.json`` is not that of nnU-Net.
    """
    description = _describe(source / "dataset.json")
    channels = _channels(description)
    drafts = [draft for part in _PARTS for draft in _read_part(source, part, channels, _labels_kind(description))]
    if not drafts:
        raise DataError(f"{source}: no scans named CASE_0000.nii.gz (or .mha, ...) in imagesTr or imagesTs")
    names = [draft.name for draft in drafts]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise DataError(f"{source}: imagesTr and imagesTs both hold the case {double[0]}; leave one")
    return drafts


def _read_part(source: Path, part: str, channels: dict[int, str], labels: str) -> list[Draft]:
    cases: dict[str, dict[str, list[ScanSource]]] = {}
    for path in scans_in(source / f"images{part}"):
        match = _IMAGE.fullmatch(strip_scan_suffix(path.name))
        if match and (kind := channels.get(int(match["channel"]))):
            cases.setdefault(match["case"], {}).setdefault(kind, []).append(ScanSource(path))
    for folder, kind in ((f"targets{part}", "ct"), (f"labels{part}", labels)):
        for path in scans_in(source / folder):
            files = cases.get(strip_scan_suffix(path.name), {})
            if kind not in files or kind != "ct":
                files.setdefault(kind, []).append(ScanSource(path))
    return [Draft(case, files) for case, files in cases.items()]


def _describe(path: Path) -> dict[str, Any]:
    description = read_json(path) if path.is_file() else {}
    if not isinstance(description, dict):
        raise DataError(f"{path}: not the description of a dataset of nnU-Net; see its documentation of the format")
    return description


def _channels(description: dict[str, Any]) -> dict[int, str]:
    """The kind of each channel that is used; without names the first is the MR, and the others could be anything."""
    names = description.get("channel_names") or description.get("modality") or {"0": "MR"}
    if not isinstance(names, dict) or not all(str(number).isdigit() for number in names):
        raise DataError(f'dataset.json: channel_names must be {{"0": "MR", "1": "CT"}} or the like; it is {names!r}')
    is_ct = {int(number): str(name).strip().lower() == "ct" for number, name in names.items()}
    ct = next((number for number in sorted(is_ct) if is_ct[number]), None)
    mr = next((number for number in sorted(is_ct) if not is_ct[number]), None)
    return {number: kind for number, kind in ((mr, "mr"), (ct, "ct")) if number is not None}


def _labels_kind(description: dict[str, Any]) -> str:
    labels = description.get("labels")
    return "ct" if isinstance(labels, dict) and any(str(name).lower() == "ct" for name in labels) else "labels"
