"""DICOM out: a synthetic CT or MR as a series beside its source, in the same study, frame of reference and planes.

The attributes are those of the CT Image and MR Image objects of DICOM PS3.3 (A.3 and A.4), and those without which planning systems
refuse an import.
"""

import contextlib
import datetime
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int16, UInt16

from transmodal.core.errors import DataError, GeometryError
from transmodal.core.files import atomic_folder
from transmodal.core.volume import Array3D, Grid, Modality, Volume, whole_hu
from transmodal.imaging.dicom_files import faults
from transmodal.imaging.dicom_planes import Plane
from transmodal.imaging.dicom_read import DicomScan

if TYPE_CHECKING:
    from pydicom import Dataset

NOT_DIAGNOSTIC = "NOT FOR DIAGNOSTIC USE"
_SOP_CLASS = {"ct": "1.2.840.10008.5.1.4.1.1.2", "mr": "1.2.840.10008.5.1.4.1.1.4"}
_EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
# The derived series stands behind the acquired ones in every list.
_SERIES_NUMBER_OFFSET = 1000
# Arbitrary units of an MR fill the range that scanners use.
_MR_MAXIMUM = 4095
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])

_COPIED = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "PatientPosition",
    "BodyPartExamined",
    "SliceThickness",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
# Attributes that must be present, though the standard lets them be empty.
_PRESENT = ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "PatientPosition", "SliceThickness")
# Attributes whose absence or emptiness makes planning systems refuse an import.
_NEVER_EMPTY = {
    "PatientName": "UNKNOWN",
    "PatientID": "UNKNOWN",
    "StudyID": "1",
    "ReferringPhysicianName": "UNKNOWN",
    "PositionReferenceIndicator": "UNKNOWN",
    "BodyPartExamined": "HEAD",
}
_CT = {
    "RescaleIntercept": "0",
    "RescaleSlope": "1",
    "RescaleType": "HU",
    "KVP": "120",  # no tube was on: a nominal value, because importers need one
    "PixelRepresentation": 1,
}
_MR = {
    "ScanningSequence": "RM",
    "SequenceVariant": "NONE",
    "ScanOptions": "",
    "MRAcquisitionType": "3D",
    "RepetitionTime": "",
    "EchoTime": "",
    "EchoTrainLength": "",
    "PixelRepresentation": 0,
}
_PIXEL_FORMAT = {
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
}


def write_series(volume: Volume, reference: DicomScan, out: Path, *, description: str, software: str, model_hash: str) -> Path:
    """Write a volume as a DICOM series, whole or not at all.

    Parameters
    ----------
    volume : Volume
        HU for a CT, which is rounded and clipped to int16; an MR is scaled to 0 ... 4095.
    reference : DicomScan
        The scan that the volume was made from, on the same grid. Patient, study, frame of reference and the places of the slices
        are taken from it.
    out : Path
        The folder to make; ``00001.dcm`` and so on are the files.
    description : str
        Begins the series description.
    software : str
        Name and version of the program.
    model_hash : str
        Of the weights, at most 64 characters.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    GeometryError
        If the volume is not on the grid of the reference.
    DataError
        If voxels are NaN or infinite, or the volume is neither a CT nor an MR.
    FileError
        If `out` is there already, or cannot be written.
    """
    if volume.modality not in _SOP_CLASS:
        raise DataError(f"{out}: a {volume.modality} volume is no DICOM image; write it to a scan file such as {volume.modality}.nii.gz")
    if not volume.grid.matches(reference.volume.grid):
        raise GeometryError(f"{out}: the volume is not on the grid of its reference; resample it first")
    pixels = _pixels(volume.require_finite(str(out)))
    with faults(reference.planes[0].file.path):
        common = _common(volume.modality, reference, description, software, model_hash)
        sources = [_reference(plane) for plane in reference.planes]
    with atomic_folder(out) as folder:
        for k in range(volume.shape[2]):
            # An interpolated slice has no one source, so it names them all.
            made_from = sources if reference.regularized else [sources[k]]
            image = _image(common, pixels[:, :, k].T, _place(volume.grid, reference, k), made_from, k + 1)
            image.save_as(folder / f"{k + 1:05d}.dcm", enforce_file_format=True)
    return out


def _pixels(volume: Volume) -> Int16[np.ndarray, "x y z"] | UInt16[np.ndarray, "x y z"]:
    if volume.modality == "ct":
        return whole_hu(volume.array)
    return _mr_levels(volume.array)


def _mr_levels(array: Array3D) -> UInt16[np.ndarray, "x y z"]:
    low, high = min(0.0, float(array.min())), float(array.max())
    return np.rint((array.astype(np.float64) - low) * (_MR_MAXIMUM / max(high - low, 1e-12))).astype(np.uint16)


def _common(modality: Modality, reference: DicomScan, description: str, software: str, model_hash: str) -> "Dataset":
    """Build the attributes that all images of the series share."""
    from pydicom.uid import generate_uid

    now, number = datetime.datetime.now(), reference.series.number
    common = _copy(reference.planes[0])
    common.SOPClassUID = _SOP_CLASS[modality]
    common.Modality = modality.upper()
    common.SeriesInstanceUID = generate_uid(prefix=None)
    common.SeriesNumber = _SERIES_NUMBER_OFFSET + (int(number) if number.isdecimal() else 0)
    common.SeriesDescription = f"{description[: 64 - len(NOT_DIAGNOSTIC) - 3]} - {NOT_DIAGNOSTIC}"
    common.ImageComments = f"{NOT_DIAGNOSTIC}. Synthetic {modality.upper()}, computed from another scan, not acquired."
    common.DerivationDescription = f"Synthetic {modality.upper()} by {software}, model {model_hash}"
    common.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if modality == "ct" else "OTHER"]
    common.Manufacturer = common.ManufacturerModelName = "transmodal"
    common.SoftwareVersions = [model_hash, software]  # a hash of 64 characters leaves no room for the padding of the last value
    common.SeriesDate = common.ContentDate = common.InstanceCreationDate = f"{now:%Y%m%d}"
    common.SeriesTime = common.ContentTime = common.InstanceCreationTime = f"{now:%H%M%S}"
    common.AcquisitionNumber = 1
    common.BurnedInAnnotation = "NO"
    if not common.SliceThickness or reference.regularized:
        common.SliceThickness = _decimals([reference.volume.spacing[2]])[0]
    common.ReferencedSeriesSequence = [_referenced_series(reference)]
    common.update(_as_dataset({**(_CT if modality == "ct" else _MR), **_PIXEL_FORMAT}))
    return common


def _copy(plane: Plane) -> "Dataset":
    """Take what says whose scan this is, and where it is, from a source image, and fill in what may not be absent."""
    from pydicom import Dataset
    from pydicom.uid import generate_uid

    copied = Dataset()
    copied.SpecificCharacterSet = "ISO_IR 192"  # UTF-8 holds every name, whatever the source was written in
    for keyword in _COPIED:
        with contextlib.suppress(ValueError, TypeError):  # a weight that is no number is no reason to lose the result
            value = plane.get(keyword, "PixelMeasuresSequence")
            if value not in (None, ""):
                setattr(copied, keyword, value)
    defaults = {
        **dict.fromkeys(_PRESENT, ""),
        **_NEVER_EMPTY,
        "StudyInstanceUID": generate_uid(prefix=None),
        "FrameOfReferenceUID": generate_uid(prefix=None),
    }
    if copied.get("PatientIdentityRemoved") == "YES":
        defaults["DeidentificationMethod"] = "UNKNOWN"
    for keyword, value in defaults.items():
        if keyword not in copied:
            setattr(copied, keyword, value)
    return copied


def _as_dataset(values: dict[str, Any]) -> "Dataset":
    from pydicom import Dataset

    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def _place(grid: Grid, reference: DicomScan, k: int) -> dict[str, Any]:
    """Where slice k lies: exactly as its source says, or as the grid of a regularized scan does."""
    if not reference.regularized:
        plane = reference.planes[k]
        row_mm, column_mm = plane.spacing
        position, cosines = plane.position, plane.get("ImageOrientationPatient", "PlaneOrientationSequence")
    else:
        column_mm, row_mm, _ = grid.spacing
        position = _LPS_TO_RAS @ grid.to_world(np.array([0.0, 0.0, k]))
        cosines = (_LPS_TO_RAS @ grid.affine[:3, :2] / grid.spacing[:2]).T.ravel()
    return {
        "ImagePositionPatient": _decimals(position),
        "ImageOrientationPatient": _decimals(cosines),
        "PixelSpacing": _decimals([row_mm, column_mm]),
    }


def _decimals(values: Iterable[float]) -> list[Any]:
    """Format numbers as decimal strings of at most 16 characters."""
    from pydicom.valuerep import DSfloat

    return [DSfloat(float(value), auto_format=True) for value in values]


def _image(
    common: "Dataset",
    pixels: Int16[np.ndarray, "y x"] | UInt16[np.ndarray, "y x"],
    place: dict[str, Any],
    sources: list["Dataset"],
    number: int,
) -> "Dataset":
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, generate_uid

    image = Dataset()
    image.update(common)
    image.update(_as_dataset(place))
    image.InstanceNumber = number
    image.SOPInstanceUID = generate_uid(prefix=None)
    image.SourceImageSequence = sources
    image.Rows, image.Columns = pixels.shape
    image.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = UID(_EXPLICIT_LITTLE_ENDIAN)
    image.preamble = bytes(128)  # a preamble can make a file that is two formats at once
    return image


def _reference(plane: Plane) -> "Dataset":
    """Name a source image, and its frame where it has several."""
    header = plane.file.header
    item = _as_dataset({"ReferencedSOPClassUID": header.SOPClassUID, "ReferencedSOPInstanceUID": header.SOPInstanceUID})
    if "PerFrameFunctionalGroupsSequence" in header:
        item.ReferencedFrameNumber = plane.frame + 1
    return item


def _referenced_series(reference: DicomScan) -> "Dataset":
    headers = [file.header for file in reference.series.files]
    instances = [_as_dataset({"ReferencedSOPClassUID": h.SOPClassUID, "ReferencedSOPInstanceUID": h.SOPInstanceUID}) for h in headers]
    return _as_dataset({"SeriesInstanceUID": headers[0].SeriesInstanceUID, "ReferencedInstanceSequence": instances})
