"""Planes of DICOM images: where each lies, what its pixels mean, and whether planes belong together.

A plane is one file of a classic series, or one frame of an enhanced multi-frame file. Terms and coordinates are those of DICOM
PS3.3 C.7.6.2 (image plane) and C.7.6.16 (functional groups): millimetres in LPS, pixel spacing as (between rows, between columns).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from transmodal.core.errors import DataError, FileError, GeometryError
from transmodal.core.volume import Modality
from transmodal.imaging.dicom_files import DicomFile, require_pixels_fit
from transmodal.imaging.grid import AIR_HU

# Cosines and spacings that differ by less come from rounding.
_COSINE_TOLERANCE = 1e-4
_UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Plane:
    """One slice, where its header says that it lies.

    Parameters
    ----------
    file : DicomFile
    frame : int
        Which frame of the file, from 0.
    shape : tuple of int
        Rows and columns.
    position : ndarray, shape (3,)
        Centre of the first pixel, LPS mm.
    cosines : ndarray, shape (2, 3)
        Unit vectors along a row (towards higher columns) and down a column (towards higher rows), LPS.
    spacing : tuple of float
        Millimetres between rows and between columns.
    """

    file: DicomFile = field(repr=False)
    frame: int
    shape: tuple[int, int]
    position: Float[np.ndarray, "3"]
    cosines: Float[np.ndarray, "2 3"]
    spacing: tuple[float, float]

    @property
    def name(self) -> str:
        """The file, and the frame where there are several."""
        several = int(self.file.header.get("NumberOfFrames") or 1) > 1
        return f"{self.file.path}, frame {self.frame + 1}" if several else str(self.file.path)

    def get(self, keyword: str, group: str = "") -> Any:
        """Value of an attribute: from the functional group of this frame, else from the header, else None."""
        return _get(self.file.header, self.frame, keyword, group)


def planes_of(file: DicomFile) -> list[Plane]:
    """List the planes of one file.

    Raises
    ------
    FileError, DataError
        If the file holds no grey values, or not what its header promises.
    GeometryError
        If a position, orientation or spacing is missing or impossible.
    """
    if not (file.header.get("SOPClassUID") and file.header.get("SOPInstanceUID")):
        raise FileError(f"{file.path}: the header is damaged: it has no SOPClassUID or no SOPInstanceUID")
    frames, rows, columns = require_pixels_fit(file)
    described = file.header.get("PerFrameFunctionalGroupsSequence")
    if described is None and frames > 1:
        raise DataError(f"{file.path}: {frames} frames without a position of each; export the series as single slices")
    if described is not None and len(described) != frames:
        raise FileError(f"{file.path}: the header is damaged: NumberOfFrames is {frames}, and {len(described)} frames are described")
    return [_plane(file, frame, (rows, columns)) for frame in range(frames)]


def _plane(file: DicomFile, frame: int, shape: tuple[int, int]) -> Plane:
    position = _numbers(file, frame, "ImagePositionPatient", "PlanePositionSequence", 3)
    cosines = _numbers(file, frame, "ImageOrientationPatient", "PlaneOrientationSequence", 6).reshape(2, 3)
    spacing = _numbers(file, frame, "PixelSpacing", "PixelMeasuresSequence", 2)
    lengths = np.linalg.norm(cosines, axis=1)
    if np.abs(lengths - 1).max() > _UNIT_TOLERANCE or abs(cosines[0] @ cosines[1]) > _UNIT_TOLERANCE:
        raise GeometryError(f"{file.path}: ImageOrientationPatient {cosines.ravel().tolist()} is not two unit vectors at right angles")
    if spacing.min() <= 0:
        raise GeometryError(f"{file.path}: PixelSpacing {spacing.tolist()} must be positive")
    return Plane(file, frame, shape, position, cosines / lengths[:, None], (float(spacing[0]), float(spacing[1])))


def _numbers(file: DicomFile, frame: int, keyword: str, group: str, count: int) -> Float[np.ndarray, " count"]:
    value = None
    try:
        value = _get(file.header, frame, keyword, group)
        numbers = np.array([float(part) for part in value])
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise GeometryError(f"{file.path}: {keyword} {value!r} must be {count} numbers; without it the slice has no place")
    return numbers


def _get(header: Any, frame: int, keyword: str, group: str) -> Any:
    """Look into the group of the frame, the group that all frames share, and the header itself."""
    for groups, index in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        found = header.get(groups)
        items = found[index].get(group) if group and found and len(found) > index else None
        if items and keyword in items[0]:
            return items[0].get(keyword)
    return header.get(keyword)


def require_alike(planes: Sequence[Plane]) -> None:
    """Raise `DataError` or `GeometryError` unless all planes show one patient, once, in one way, on parallel planes of one size."""
    scouts = [plane.name for plane in planes if "LOCALIZER" in (plane.get("ImageType") or ())]
    if scouts:
        raise DataError(f"{scouts[0]}: a localizer ({len(scouts)} of {len(planes)} images); move localizers out of the folder")
    for keyword, group, remedy in _ONE_OF:
        _require_one(planes, keyword, group, remedy)
    _require_close(planes, [plane.shape for plane in planes], "sizes in pixels", 0)
    _require_close(planes, [plane.spacing for plane in planes], "pixel spacings", _COSINE_TOLERANCE)
    _require_close(planes, [plane.cosines.ravel() for plane in planes], "orientations", _COSINE_TOLERANCE)


_APART = "export one of them as a series of its own"
_ONE_OF = (
    ("PatientID", "", "a scan is of one patient"),
    ("Modality", "", _APART),
    ("StudyInstanceUID", "", _APART),
    ("FrameOfReferenceUID", "", "positions in different frames of reference cannot be compared; export one of them"),
    ("SOPClassUID", "", _APART),
    ("EchoTime", "", _APART),
    ("EffectiveEchoTime", "MREchoSequence", _APART),
)


def _require_one(planes: Sequence[Plane], keyword: str, group: str, remedy: str) -> None:
    values: dict[str, str] = {}
    for plane in planes:
        values.setdefault(printable(plane.get(keyword, group)), plane.name)
    if len(values) > 1:
        (first, one), (second, other) = list(values.items())[:2]
        # Who the patients are is not for messages, which end up in logs.
        shown = "" if keyword == "PatientID" else f" ({first}, {second})"
        raise DataError(f"the images differ in {keyword}{shown}: {one} and {other}; {remedy}")


def _require_close(planes: Sequence[Plane], values: Sequence[Any], what: str, tolerance: float) -> None:
    table = np.array(values, dtype=np.float64)
    apart = np.abs(table - table[0]).max(axis=1)
    if apart.max() > tolerance:
        k = int(apart.argmax())
        raise GeometryError(
            f"the images have different {what}: {planes[0].name} {table[0].tolist()}, {planes[k].name} {table[k].tolist()}; {_APART}"
        )


def printable(value: Any) -> str:
    """Text from a header for messages: without control characters, and not long."""
    return "".join(c if c.isprintable() else "?" for c in str("" if value is None else value))[:64]


def rescale(pixels: Shaped[np.ndarray, "rows columns"], plane: Plane, modality: Modality) -> Float[np.ndarray, "rows columns"]:
    """Stored values to HU (CT) or to the scanner's units (MR); pixels outside the reconstruction become air in a CT.

    Raises
    ------
    FileError
        If slope or intercept are not finite, or a CT is scaled by a table.
    """
    group = "PixelValueTransformationSequence"
    slope, intercept = plane.get("RescaleSlope", group), plane.get("RescaleIntercept", group)
    scale = np.array([1 if slope is None else slope, 0 if intercept is None else intercept], dtype=np.float64)
    if not np.isfinite(scale).all() or scale[0] == 0 or "ModalityLUTSequence" in plane.file.header:
        raise FileError(f"{plane.name}: RescaleSlope {slope}, RescaleIntercept {intercept} or a Modality LUT cannot be applied")
    values = (pixels * scale[0] + scale[1]).astype(np.float32)
    if modality == "ct":
        values[_padding(pixels, plane)] = AIR_HU
    return values


def _padding(pixels: Shaped[np.ndarray, "rows columns"], plane: Plane) -> Shaped[np.ndarray, "rows columns"]:
    """Whether each pixel holds the padding value, or lies in the range that it spans with PixelPaddingRangeLimit."""
    first = plane.get("PixelPaddingValue")
    if first is None:
        return np.zeros(pixels.shape, dtype=bool)
    last = plane.get("PixelPaddingRangeLimit")
    # Writers get the sign of these wrong; the bits are right.
    ends = np.array([first, first if last is None else last], dtype=np.int64).astype(pixels.dtype)
    return (pixels >= ends.min()) & (pixels <= ends.max())
