"""What a DICOM folder holds."""

import json
from pathlib import Path
from typing import Any

from transmodal.imaging.dicom_planes import printable
from transmodal.imaging.dicom_read import Series, survey


def show_series(folder: Path, *, as_json: bool) -> None:
    """Print every series below a folder, with why it is no volume where it is none, and the files that cannot be read.

    Raises
    ------
    FileError
        If there is no DICOM file.
    """
    found = survey(folder)
    if as_json:
        damaged = [{"file": str(path), "problem": str(error)} for path, error in found.damaged]
        print(json.dumps({"series": [_row(series) for series in found.series], "damaged": damaged}, indent=2))
        return
    for series in found.series:
        print(series.describe())
    for _, error in found.damaged:
        print(f"damaged: {error}")


def _row(series: Series) -> dict[str, Any]:
    return {
        "patient": printable(series.files[0].header.get("PatientID")),
        "number": series.number,
        "uid": series.uid,
        "modality": series.modality,
        "description": series.description,
        "shape": series.shape,
        "files": len(series.files),
        "problem": None if series.problem is None else str(series.problem),
    }
