"""SynthRAD 2023 and 2025, and what `transmodal simulate` writes: a folder a subject, with files named by what they are.

``Task1/brain/1BA001/{mr,ct,mask}.nii.gz`` or ``.mha``, at any depth and in any format. Source of the names: the SynthRAD 2023 and
2025 challenges (Thummerer et al., Medical Physics 2023 and 2025).
"""

import re
from pathlib import Path

from transmodal.core.errors import DataError, TransmodalError
from transmodal.core.files import read_json
from transmodal.core.volume import Modality
from transmodal.imaging.layouts.subjects import IMAGES, KINDS, Attributes, Draft, Options, ScanSource, is_number, walk
from transmodal.imaging.scan import strip_scan_suffix

_REGIONS = {"B": "brain", "P": "pelvis", "HN": "head and neck", "AB": "abdomen", "TH": "thorax"}
# Task, region, centre, and a number: 1BA001, 1HNA001.
_ID = re.compile(rf"[12]({'|'.join(_REGIONS)})([A-Z])\d{{3}}")


def recognize(source: Path) -> str | None:
    """Name the first folder with an MR or a CT that is called so."""
    for _, scans in walk(source):
        for path in scans:
            if strip_scan_suffix(path.name) in IMAGES:
                return f"{path.relative_to(source)} is there"
    return None


def read(source: Path, options: Options) -> list[Draft]:
    """List the folders that hold an MR or a CT.

    Raises
    ------
    DataError
        If no folder does, or two that do have the same name.
    """
    drafts = [draft for folder, scans in walk(source) if (draft := _read_folder(folder, scans)) is not None]
    if not drafts:
        raise DataError(f"{source}: no folder below it holds a file mr.* or ct.*, such as 1BA001/mr.nii.gz and 1BA001/ct.nii.gz")
    names = [draft.name for draft in drafts]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise DataError(f"{source}: several folders are called {', '.join(double)}; subjects need names of their own")
    return drafts


def _read_folder(folder: Path, scans: list[Path]) -> Draft | None:
    files = {kind: [ScanSource(path) for path in scans if strip_scan_suffix(path.name) == kind] for kind in KINDS}
    if not files["mr"] and not files["ct"]:
        return None
    name = folder.resolve().name
    landmarks: dict[Modality, Path] = {kind: path for kind in IMAGES if (path := folder / f"{kind}_landmarks.csv").is_file()}
    try:
        return Draft(name, files, landmarks, _of_id(name) | _described(folder / "subject.json"))
    except TransmodalError as error:
        return Draft(name, files, landmarks, _of_id(name), error)


def _of_id(name: str) -> Attributes:
    """The region and the centre, which names in the challenges tell."""
    match = _ID.fullmatch(name)
    return {"region": _REGIONS[match[1]], "hospital": match[2]} if match else {}


def _described(path: Path) -> Attributes:
    """``attributes`` of a ``subject.json``, as the simulator writes it."""
    description = read_json(path) if path.is_file() else {}
    attributes = description.get("attributes", {}) if isinstance(description, dict) else None
    if not isinstance(attributes, dict) or not all(isinstance(value, str) or is_number(value) for value in attributes.values()):
        raise DataError(f'{path}: expected {{"attributes": {{...}}}} with texts and finite numbers')
    return attributes
