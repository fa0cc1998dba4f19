"""DICOM series that the tests write: small, valid, and bent where a test bends them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from scipy.spatial.transform import Rotation

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
Edit = Callable[[Dataset, int], object]


def uid(*words: object) -> str:
    """The same words give the same UID."""
    return generate_uid(entropy_srcs=[str(word) for word in words] or ["none"])


def straight(count: int, gap: float = 2.0, cosines: Sequence[float] = AXIAL, start: Sequence[float] = (-10.0, -20.0, 5.0)) -> np.ndarray:
    """Positions of slices that are stacked along their normal."""
    normal = np.cross(cosines[:3], cosines[3:])
    return np.array(start) + gap * np.arange(count)[:, None] * normal


def image(pixels: np.ndarray, position: Sequence[float], k: int = 0, *, modality: str = "CT", series: str = "a", **attributes) -> Dataset:
    """One image of a classic series; `pixels` as (rows, columns)."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    ds.SOPInstanceUID = uid(series, k)
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Doe^Jo", "P1", "19700101", "O"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20200101", "120000", "7", "A1"
    ds.ReferringPhysicianName = "Roe^Al"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = uid("study"), uid("series", series), uid("frame")
    ds.PositionReferenceIndicator = "OM"
    ds.Modality, ds.SeriesNumber, ds.SeriesDescription, ds.InstanceNumber = modality, 3, "head", k + 1
    ds.PatientPosition, ds.BodyPartExamined, ds.SliceThickness = "HFS", "HEAD", "2"
    ds.ImagePositionPatient = [f"{v:.8g}" for v in position]
    ds.ImageOrientationPatient = [f"{v:.8g}" for v in AXIAL]
    ds.PixelSpacing = ["1.5", "0.75"]
    ds.RescaleSlope, ds.RescaleIntercept = "1", "0"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 1
    ds.Rows, ds.Columns = pixels.shape
    ds.PixelData = pixels.astype("<i2").tobytes()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.preamble = bytes(128)
    return ds


def write_slices(folder: Path, array: np.ndarray, positions: np.ndarray | None = None, edit: Edit | None = None, **attributes) -> Path:
    """Write `array` (x, y, z) as one file a slice, in an order of names that is not that of the slices; `edit` bends each."""
    folder.mkdir(parents=True, exist_ok=True)
    positions = straight(array.shape[2]) if positions is None else positions
    for k in range(array.shape[2]):
        ds = image(array[:, :, k].T, positions[k], k, **attributes)
        if edit is None or edit(ds, k) is not False:
            ds.save_as(folder / f"{(7 * k) % 1009:04d}.dcm", enforce_file_format=True)
    return folder


def only(number: int, change: Callable[[Dataset], object]) -> Edit:
    """Bend one slice only."""
    return lambda ds, k: change(ds) if k == number else None


def enhanced_mr(array: np.ndarray, positions: np.ndarray, order: Sequence[int]) -> Dataset:
    """An enhanced multi-frame MR whose frames hold the slices of `array` (x, y, z) in the given order."""
    ds = image(array[:, :, 0].T, positions[0], modality="MR")
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "RescaleSlope",
        "RescaleIntercept",
        "SliceThickness",
    ):
        delattr(ds, keyword)
    ds.SOPClassUID = EnhancedMRImageStorage
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = ["1.5", "0.75"], "2"
    orientation.ImageOrientationPatient = list(AXIAL)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = [_frame(positions[k], k) for k in order]
    ds.NumberOfFrames = len(order)
    ds.PixelData = np.stack([array[:, :, k].T for k in order]).astype("<i2").tobytes()
    return ds


def _frame(position: np.ndarray, k: int) -> Dataset:
    frame, place, transformation = Dataset(), Dataset(), Dataset()
    place.ImagePositionPatient = [f"{v:.8g}" for v in position]
    transformation.RescaleSlope, transformation.RescaleIntercept, transformation.RescaleType = str(k + 1), "10", "US"
    frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [place], [transformation]
    return frame


def rewritten(folder: Path, syntax: UID) -> Path:
    """Write the files of a folder again in another uncompressed transfer syntax."""
    for path in folder.glob("*.dcm"):
        ds = pydicom.dcmread(path)
        ds.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(path, ds, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    return folder


def rotated(seed: int) -> tuple[float, ...]:
    """Cosines of slices that lie anyhow, to the digits of a header."""
    cosines = Rotation.random(random_state=seed).as_matrix()[:, :2].T.ravel()
    return tuple(float(f"{v:.8g}") for v in cosines)
