"""DICOM series that are damaged, hostile, irregular, or odd and valid."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from dicom_series import Edit, image, only, rewritten, straight, write_slices
from reliability.rows import DATA, FILE, GEOMETRY, VALID, Make, Row, head


def _dicom(edit: Edit | None = None, **attributes: object) -> Make:
    """An MR of the phantom as a series; an edit bends its slices."""

    def make(folder: Path) -> Path:
        return write_slices(
            folder / "series", head()["mr"].array, straight(44, 4.5), edit, modality="MR", PixelSpacing=["4.5", "4.5"], **attributes
        )

    return make


def _bend(keyword: str, value: object) -> Make:
    return _dicom(only(20, lambda ds: setattr(ds, keyword, value)))


def _drop(keyword: str) -> Make:
    return _dicom(only(20, lambda ds: delattr(ds, keyword)))


def _shrunk(ds: Dataset) -> None:
    ds.Rows = ds.Columns = 4
    ds.PixelData = ds.PixelData[:32]


def _tilted(ds: Dataset, k: int) -> None:
    ds.ImagePositionPatient = [-10.0, -20.0 + 1.5 * k, 5.0 + 4.5 * k]


def _two_series(folder: Path) -> Path:
    for number in (3, 4):
        write_slices(folder / "series" / str(number), head()["mr"].array[:, :, :3], modality="MR", series=str(number), SeriesNumber=number)
    return folder / "series"


def _bytes_of_one(change: Callable[[bytes], bytes]) -> Make:
    def make(folder: Path) -> Path:
        path = _dicom()(folder) / "0014.dcm"
        path.write_bytes(change(path.read_bytes()))
        return path.parent

    return make


def _of_all(change: Callable[[bytes], bytes]) -> Make:
    def make(folder: Path) -> Path:
        series = _dicom()(folder)
        for path in series.glob("*.dcm"):
            path.write_bytes(change(path.read_bytes()))
        return series

    return make


def _deflate_bomb(folder: Path) -> Path:
    ds = image(head()["mr"].array[:, :, 0].T, (0, 0, 0), modality="MR")
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = folder / "bomb.dcm"
    ds.save_as(path, enforce_file_format=True)
    data = path.read_bytes()
    (length,) = struct.unpack("<I", data[140:144])
    packer = zlib.compressobj(1, wbits=-15)
    path.write_bytes(data[: 144 + length] + b"".join(packer.compress(bytes(1 << 20)) for _ in range(260)) + packer.flush())
    return path


def _nested(data: bytes) -> bytes:
    at = data.index(b"\x10\x00\x10\x00PN")
    sequence = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return data[:at] + sequence * 5000 + data[at:]


def _not_dicom(folder: Path) -> Path:
    path = folder / "0001.dcm"
    path.write_text("<html>")
    return path


def _dicomdir(folder: Path) -> Path:
    """A directory of DICOM files that lists one outside of the folder, beside a good series."""
    series = _dicom()(folder)
    ds = image(np.zeros((2, 2)), (0, 0, 0), modality="MR")
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = "1.2.840.10008.1.3.10"
    del ds.PixelData
    ds.ReferencedFileID = ["UP", "UP", "SECRET"]
    ds.save_as(series / "DICOMDIR", enforce_file_format=False, implicit_vr=False, little_endian=True)
    (series / "DICOMDIR").write_bytes((series / "DICOMDIR").read_bytes().replace(b"UP\\UP", b"..\\.."))
    return series


def _big_endian(folder: Path) -> Path:
    return rewritten(_dicom()(folder), ExplicitVRBigEndian)


DICOM = {
    "missing slice": Row(_dicom(lambda ds, k: k != 20), GEOMETRY, "missing slice"),
    "duplicate slice": Row(_bend("ImagePositionPatient", [-10, -20, 5 + 19 * 4.5]), GEOMETRY, "lie where another one does"),
    "gantry tilt": Row(_dicom(_tilted), GEOMETRY, "gantry tilt"),
    "uneven spacing": Row(_bend("ImagePositionPatient", [-10, -20, 5 + 20 * 4.5 + 1]), GEOMETRY, "uneven gaps"),
    "two series that would do": Row(_two_series, DATA, "choose one by its number, UID or description"),
    "two echoes in one series": Row(_bend("EchoTime", "30"), DATA, "EchoTime"),
    "two sizes": Row(_dicom(only(20, _shrunk)), GEOMETRY, "different sizes"),
    "two pixel spacings": Row(_bend("PixelSpacing", [4.5, 4.0]), GEOMETRY, "different pixel spacings"),
    "localizer mixed in": Row(_bend("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]), DATA, "a localizer"),
    "position missing": Row(_drop("ImagePositionPatient"), GEOMETRY, "ImagePositionPatient"),
    "position not a number": Row(_bytes_of_one(lambda data: data.replace(b"-10\\-20", b"nan\\-20")), GEOMETRY, "ImagePositionPatient"),
    "parallel cosines": Row(_bend("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), GEOMETRY, "unit vectors at right angles"),
    "zero spacing": Row(_bend("PixelSpacing", [0, 0]), GEOMETRY, "must be positive"),
    "truncated pixels": Row(_bytes_of_one(lambda data: data[:-500]), FILE, "truncated"),
    "Rows 65535": Row(_dicom(only(20, lambda ds: (setattr(ds, "Rows", 65535), setattr(ds, "Columns", 65535)))), FILE, "the header"),
    "NumberOfFrames 100000": Row(_bend("NumberOfFrames", "100000"), FILE, "truncated, or its header is damaged"),
    "no PixelData": Row(_drop("PixelData"), FILE, "without pixel data"),
    "no preamble": Row(_of_all(lambda data: data[132:]), VALID),
    "not DICOM": Row(_not_dicom, FILE, "not read|no DICOM"),
    "unknown syntax": Row(
        _of_all(lambda data: data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.3.4.5.6.7.8.9.1\0")), FILE, "unknown or retired"
    ),
    "lossy": Row(_bend("LossyImageCompression", "01"), DATA, "lossy"),
    "big-endian syntax": Row(_big_endian, FILE, "unknown or retired"),
    "deflate bomb": Row(_deflate_bomb, FILE, "inflates to more than"),
    "sequences 5000 deep": Row(_bytes_of_one(_nested), FILE, "nested too deep"),
    "hostile PatientName": Row(_dicom(PatientName="../../<script>"), VALID),
    "bad character set": Row(_of_all(lambda data: data.replace(b"ISO_IR 100", b"nonsense!!")), VALID),
    "DICOMDIR that points outside": Row(_dicomdir, VALID),
    "two patients": Row(_bend("PatientID", "P2"), DATA, "PatientID"),
}
