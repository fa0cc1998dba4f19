"""Synthetic images as a BIDS derivative: names, and the descriptions that BIDS wants beside them.

Format: BIDS 1.10, "BIDS Derivatives". CT is not in BIDS yet, so a ``.bidsignore`` keeps validators from the files.
"""

import os
from pathlib import Path
from typing import Any

from transmodal import __version__
from transmodal.core.errors import FileError
from transmodal.core.files import read_json, write_json, write_text
from transmodal.core.record import RECORD_NAME
from transmodal.core.volume import Direction, Product
from transmodal.imaging.layouts.bids import DESCRIPTION_NAME, sidecar_of
from transmodal.imaging.layouts.bids_names import CYCLE, UNCERTAINTY, VERSION, Name, parse_name, result_name

_IGNORED = ("*_ct.nii.gz", "*_ct.json", "*_desc-bone_mask.*", f"*_desc-{UNCERTAINTY}_*", RECORD_NAME)
_SOURCE = "source"  # what URIs call the dataset of the scans


def derivative_paths(scan: Path, output: Path, direction: Direction, product: Product = "image") -> tuple[Path, Path]:
    """Where what is made of a scan goes, and its JSON: ``OUT/sub-01/anat/sub-01_space-T1w_desc-synthetic_ct.nii.gz``."""
    source = parse_name(scan)
    assert source is not None  # the layout lists no other files
    name = result_name(source, direction, product)
    target = output / name.folder / f"{name}.nii.gz"
    return target, sidecar_of(target)


def uncertainty_path(target: Path) -> Path:
    """Where the uncertainty of an image goes: ``..._desc-uncertainty_ct.nii.gz``."""
    return _described(target, target, UNCERTAINTY)


def cycle_path(scan: Path, target: Path) -> Path:
    """Where a scan goes that was made again from its result: beside it, ``sub-01_desc-cycle_T1w.nii.gz``."""
    return _described(target, scan, CYCLE)


def _described(target: Path, named: Path, description: str) -> Path:
    name = parse_name(named)
    assert name is not None  # we have given it, or the layout has found it by its name
    return target.with_name(f"{Name({**name.entities, 'desc': description}, name.suffix)}.nii.gz")


def describe_derivative(output: Path, source: Path) -> None:
    """Write what makes a folder a BIDS derivative.

    Raises
    ------
    FileError
        If the folder is another dataset already.
    """
    path = output / DESCRIPTION_NAME
    description = {
        "Name": "Synthetic images by transmodal: NOT FOR DIAGNOSTIC USE",
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "transmodal", "Version": __version__}],
        "DatasetLinks": {_SOURCE: Path(os.path.relpath(source, output)).as_posix()},
    }
    if path.is_file() and not _is_ours(read_json(path)):
        raise FileError(f"{path}: the output is another BIDS dataset; name a folder of its own, such as derivatives/transmodal there")
    write_json(path, description)
    write_text(output / ".bidsignore", "".join(f"{pattern}\n" for pattern in _IGNORED))


def _is_ours(description: Any) -> bool:
    made_by = description.get("GeneratedBy") if isinstance(description, dict) else None
    return isinstance(made_by, list) and any(isinstance(entry, dict) and entry.get("Name") == "transmodal" for entry in made_by)


def sidecar(scan: Path, source: Path, settings: dict[str, Any], product: Product = "image") -> dict[str, Any]:
    """The metadata of one image, by the scan that it was made of and the dataset that this is in."""
    kind = "Mask of bone" if product == "bone" else "Synthetic image"
    units = "HU" if settings["direction"] == "mr2ct" else "arbitrary"
    uri = f"bids:{_SOURCE}:{scan.relative_to(source).as_posix()}"
    return {
        "Description": f"{kind} ({settings['direction']}): NOT FOR DIAGNOSTIC USE",
        **({"Type": "ROI"} if product == "bone" else {"Units": units}),
        "Sources": [uri],
        "SpatialReference": uri,
        "Direction": settings["direction"],
        "Model": settings["title"],
        "ModelHash": settings["weights"],
    }
