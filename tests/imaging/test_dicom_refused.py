import contextlib
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
)

from dicom_series import image, only, rewritten, straight, uid, write_slices
from transmodal.core.errors import DataError, FileError, GeometryError
from transmodal.imaging.dicom_read import find_series, read_series

SHAPE = (7, 6, 5)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@pytest.fixture
def array():
    return np.random.default_rng(0).integers(-1000, 2000, SHAPE).astype(np.int16)


def bend(keyword, value):
    return only(2, lambda ds: setattr(ds, keyword, value))


def tilted(ds, k):
    ds.ImagePositionPatient = [-10.0, -20.0 + 0.7 * k, 5.0 + 2 * k]


NAN = "nan"
REFUSED = {
    "missing slice": (lambda ds, k: k != 2, GeometryError, "1 missing slice: 4 mm between .*2 mm elsewhere"),
    "duplicate slice": (bend("ImagePositionPatient", [-10, -20, 7]), GeometryError, "lie where another one does"),
    "gantry tilt": (tilted, GeometryError, r"gantry tilt of 19\.3 degrees"),
    "uneven gaps": (bend("ImagePositionPatient", [-10, -20, 9.5]), GeometryError, r"uneven gaps of 1\.5 to 2\.5 mm"),
    "pixel spacings": (bend("PixelSpacing", [1.5, 1.5]), GeometryError, "different pixel spacings"),
    "sizes": (only(2, lambda ds: shrink(ds)), GeometryError, "different sizes in pixels"),
    "orientations": (bend("ImageOrientationPatient", [0, 1, 0, -1, 0, 0]), GeometryError, "different orientations"),
    "echoes": (bend("EchoTime", "30"), DataError, "differ in EchoTime"),
    "frames of reference": (bend("FrameOfReferenceUID", uid("else")), DataError, "differ in FrameOfReferenceUID"),
    "patients": (bend("PatientID", "P2"), DataError, "differ in PatientID: .*a scan is of one patient"),
    "localizer": (bend("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]), DataError, "a localizer"),
    "no position": (only(2, lambda ds: delattr(ds, "ImagePositionPatient")), GeometryError, "ImagePositionPatient None must be 3 numbers"),
    "empty position": (bend("ImagePositionPatient", None), GeometryError, "must be 3 numbers"),
    "two numbers of a position": (bend("ImagePositionPatient", [1, 2]), GeometryError, "must be 3 numbers"),
    "parallel cosines": (bend("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), GeometryError, "two unit vectors at right angles"),
    "zero cosines": (bend("ImageOrientationPatient", [0, 0, 0, 0, 0, 0]), GeometryError, "two unit vectors at right angles"),
    "zero spacing": (bend("PixelSpacing", [0, 0]), GeometryError, "must be positive"),
    "negative spacing": (bend("PixelSpacing", [-1, 1]), GeometryError, "must be positive"),
    "no pixels": (only(2, lambda ds: delattr(ds, "PixelData")), FileError, "without pixel data"),
    "short pixels": (only(2, lambda ds: setattr(ds, "PixelData", ds.PixelData[:40])), FileError, "truncated|less than expected"),
    "huge": (only(2, lambda ds: (setattr(ds, "Rows", 65535), setattr(ds, "Columns", 65535))), FileError, "the header promises"),
    "many frames": (bend("NumberOfFrames", "100000"), FileError, "truncated, or its header is damaged"),
    "colour": (bend("PhotometricInterpretation", "RGB"), DataError, "not an image in grey values"),
    "one bit": (bend("BitsAllocated", 1), FileError, "BitsAllocated 1"),
    "zero slope": (bend("RescaleSlope", "0"), FileError, "RescaleSlope 0"),
    "no instance": (only(2, lambda ds: delattr(ds, "SOPInstanceUID")), FileError, "no SOPInstanceUID"),
    "one slice": (lambda ds, k: k == 2, GeometryError, "a single slice"),
}


def shrink(ds):
    ds.Rows, ds.Columns = 4, 4
    ds.PixelData = ds.PixelData[:32]


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, array, tmp_path):
    edit, error, message = REFUSED[name]
    folder = tmp_path / "scan"
    folder.mkdir()
    for k in range(SHAPE[2]):
        ds = image(array[:, :, k].T, straight(5)[k], k)
        if edit(ds, k) is not False:
            ds.save_as(folder / f"{k}.dcm", implicit_vr=False, little_endian=True)
    with pytest.raises(error, match=message) as caught:
        read_series(folder, "ct")
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, "1.2.3.4.5"], ids=str)
def test_retired_and_unknown_syntaxes(array, tmp_path, syntax):
    if syntax == ExplicitVRBigEndian:
        folder = rewritten(write_slices(tmp_path, array), syntax)
    else:
        folder = write_slices(tmp_path, array)
        for path in folder.glob("*.dcm"):
            path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.3.4.5.6.7.8.9.1\0"))
    with pytest.raises(FileError, match="is unknown or retired; convert the files with"):
        read_series(folder, "ct")


def test_a_nan_in_a_position(array, tmp_path):
    folder = write_slices(tmp_path, array)
    path = folder / "0000.dcm"
    path.write_bytes(path.read_bytes().replace(b"-10\\-20\\5", b"nan\\-20\\5"))
    with pytest.raises(GeometryError, match="ImagePositionPatient"):
        read_series(folder, "ct")


@pytest.mark.parametrize("cut", [1, 60, 400, 1000])
def test_truncated_anywhere(array, tmp_path, cut):
    folder = write_slices(tmp_path, array)
    path = folder / "0014.dcm"
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises((FileError, GeometryError, DataError), match=r"0014\.dcm"):
        read_series(folder, "ct")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_damage_makes_a_traceback(data, tmp_path_factory):
    """Whatever bytes are changed, a scan is read or refused."""
    folder = write_slices(tmp_path_factory.mktemp("series"), np.zeros((3, 3, 3), np.int16))
    path = folder / "0007.dcm"
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(FileError, GeometryError, DataError):
        read_series(folder, "ct", force_geometry=data.draw(st.booleans()))


def test_a_deflate_bomb_is_not_inflated(array, tmp_path):
    ds = image(array[:, :, 0].T, (0, 0, 0))
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = tmp_path / "bomb.dcm"
    ds.save_as(path, enforce_file_format=True)
    data = path.read_bytes()
    (length,) = struct.unpack("<I", data[140:144])
    packer = zlib.compressobj(wbits=-15)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(300)) + packer.flush()
    path.write_bytes(data[: 144 + length] + bomb)
    with pytest.raises(FileError, match="inflates to more than"):
        find_series(tmp_path)


def test_sequences_nested_thousands_deep(array, tmp_path):
    path = write_slices(tmp_path, array) / "0000.dcm"
    data = path.read_bytes()
    sequence = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    at = data.index(b"\x10\x00\x10\x00PN")
    path.write_bytes(data[:at] + sequence * 5000 + data[at:])
    with pytest.raises(FileError, match="nested too deep"):
        find_series(tmp_path)


@pytest.mark.parametrize("charset", [b"ISO_IR 999", b"nonsense!!", b"ISO 2022 IR 87"[:10]])
def test_an_odd_character_set_and_a_hostile_description(array, tmp_path, charset):
    folder = write_slices(tmp_path, array, SeriesDescription="<script>", PatientName="../../x")
    for path in folder.glob("*.dcm"):
        path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", charset).replace(b"<script>", b"\xff\x1b[31m\x80<"))
    (series,) = find_series(folder)
    assert series.problem is None
    assert series.describe().isprintable()


def test_not_dicom(tmp_path):
    (tmp_path / "page.dcm").write_text("<html>")
    for path in (tmp_path, tmp_path / "page.dcm"):
        with pytest.raises(FileError, match="no DICOM images"):
            find_series(path)
    with pytest.raises(FileError, match="no such file"):
        find_series(tmp_path / "absent")
