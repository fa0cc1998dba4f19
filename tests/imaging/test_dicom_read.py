import contextlib
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.spatial import get_volume_positions
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)
from scipy.ndimage import map_coordinates, maximum_filter
from scipy.spatial.transform import Rotation
from skimage.registration import phase_cross_correlation

from dicom_series import enhanced_mr, image, only, straight, uid, write_slices
from transmodal.core.errors import ConfigError, DataError, FileError, GeometryError
from transmodal.imaging.dicom_geometry import irregularity, stack
from transmodal.imaging.dicom_planes import planes_of
from transmodal.imaging.dicom_read import find_series, read_series
from transmodal.imaging.grid import canonical
from transmodal.imaging.scan import read_scan

SHAPE = (7, 6, 5)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@pytest.fixture
def array():
    return np.random.default_rng(0).integers(-1000, 2000, SHAPE).astype(np.int16)


def test_voxels_and_places_are_those_of_the_headers(array, tmp_path):
    scan = read_series(write_slices(tmp_path, array), "ct")
    assert scan.volume.array.dtype == np.int16
    np.testing.assert_array_equal(scan.volume.array, array)
    # Columns are 0.75 mm apart along x, rows 1.5 mm along y, slices 2 mm along z; the second of the spacings is along a row.
    expected = LPS_TO_RAS @ (np.array([-10.0, -20.0, 5.0]) + np.array([3, 4, 2]) * (0.75, 1.5, 2.0))
    np.testing.assert_allclose(scan.volume.grid.to_world(np.array([3.0, 4.0, 2.0])), expected)
    assert scan.series.note == ""
    assert not scan.regularized


def rotated(seed):
    cosines = Rotation.random(random_state=seed).as_matrix()[:, :2].T.ravel()
    return tuple(float(f"{v:.8g}") for v in cosines)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), reverse=st.booleans())
def test_any_orientation_and_order_of_slices_gives_each_voxel_its_place(seed, reverse, tmp_path_factory):
    cosines, rng = rotated(seed), np.random.default_rng(seed)
    array = rng.integers(0, 1000, (4, 3, 5)).astype(np.int16)
    positions = straight(5, 1.7, cosines)[:: -1 if reverse else 1]
    folder = write_slices(tmp_path_factory.mktemp("series"), array, positions, ImageOrientationPatient=list(cosines))
    volume = read_series(folder, "ct").volume
    i, j, k = rng.integers(0, array.shape)
    place = LPS_TO_RAS @ (positions[k] + i * 0.75 * np.array(cosines[:3]) + j * 1.5 * np.array(cosines[3:]))
    index = volume.grid.to_voxel(place)
    np.testing.assert_allclose(index, np.rint(index), atol=1e-3)
    assert volume.array[tuple(np.rint(index).astype(int))] == array[i, j, k]


def test_each_slice_has_its_own_rescaling_and_padding_is_air(array, tmp_path):
    def edit(ds, k):
        ds.RescaleSlope, ds.RescaleIntercept = "2", str(-k)
        ds.add_new("PixelPaddingValue", "SS", int(array[1, 2, 3]))

    volume = read_series(write_slices(tmp_path, array, edit=edit), "ct").volume
    expected = 2 * array.astype(int) - np.arange(SHAPE[2])
    expected[array == array[1, 2, 3]] = -1024
    np.testing.assert_array_equal(volume.array, expected)


def test_a_range_of_padding_and_its_wrong_sign(array, tmp_path):
    def edit(ds, k):
        ds.add_new("PixelPaddingValue", "US", 65536 - 1000)
        ds.add_new("PixelPaddingRangeLimit", "US", 65536 - 900)

    volume = read_series(write_slices(tmp_path, array, edit=edit), "ct").volume
    np.testing.assert_array_equal(volume.array, np.where(array <= -900, -1024, array))


def test_an_mr_keeps_its_padding_and_fractions(array, tmp_path):
    volume = read_series(
        write_slices(tmp_path, array, modality="MR", RescaleSlope="0.5", PixelPaddingValue=int(array[0, 0, 0])), "mr"
    ).volume
    assert volume.array.dtype == np.float32
    np.testing.assert_allclose(volume.array, 0.5 * array)


def test_an_enhanced_multi_frame_mr_with_frames_in_any_order(array, tmp_path):
    file = tmp_path / "enhanced.dcm"
    enhanced_mr(array, straight(5), (3, 0, 4, 1, 2)).save_as(file, enforce_file_format=True)
    scan = read_series(file, "mr")
    np.testing.assert_array_equal(scan.volume.array, array.astype(int) * np.arange(1, 6) + 10)
    assert scan.volume.spacing == pytest.approx((0.75, 1.5, 2.0))
    assert scan.planes[3].name == f"{file}, frame 1"


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless], ids=lambda syntax: syntax.name)
def test_lossless_compression(tmp_path, syntax):
    array = np.random.default_rng(0).integers(-1000, 2000, (40, 36, 3)).astype(np.int16)
    folder = write_slices(tmp_path, array, edit=lambda ds, k: ds.compress(syntax, generate_instance_uid=False))
    np.testing.assert_array_equal(read_series(folder, "ct").volume.array, array)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless], ids=lambda syntax: syntax.name)
def test_compressed_data_that_would_unpack_to_more_than_the_header_says(tmp_path, syntax):
    array = np.zeros((40, 36, 3), np.int16)
    folder = write_slices(tmp_path, array, edit=lambda ds, k: ds.compress(syntax, generate_instance_uid=False))
    for path in folder.glob("*.dcm"):
        header, mark, stream = path.read_bytes().partition(b"\xe0\x7f\x10\x00")
        layout, size = (">2I", (40, 36)) if syntax == JPEG2000Lossless else (">2H", (36, 40))
        path.write_bytes(header + mark + stream.replace(struct.pack(layout, *size), struct.pack(layout, 65000, 65000), 1))
    with pytest.raises(FileError, match=r"the compressed image has \(65000, 65000\) rows and columns"):
        read_series(folder, "ct")


def test_a_compression_without_a_decoder_names_one(array, tmp_path):
    folder = write_slices(tmp_path, array, edit=lambda ds, k: ds.compress(JPEGLSLossless, generate_instance_uid=False))
    for path in folder.glob("*.dcm"):
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.4.80", b"1.2.840.10008.1.2.4.70"))
    with pytest.raises(FileError, match=r"install a decoder .pip install python-gdcm., or decompress the files with"):
        read_series(folder, "ct")


def rewritten(folder: Path, syntax) -> Path:
    for path in folder.glob("*.dcm"):
        ds = pydicom.dcmread(path)
        ds.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(path, ds, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    return folder


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian], ids=lambda syntax: syntax.name)
def test_other_native_syntaxes(array, tmp_path, syntax):
    folder = rewritten(write_slices(tmp_path, array), syntax)
    np.testing.assert_array_equal(read_series(folder, "ct").volume.array, array)


@pytest.mark.parametrize("keep_meta", [True, False])
@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian], ids=str)
def test_no_preamble_is_valid(array, tmp_path, keep_meta, syntax):
    folder = write_slices(tmp_path, array)
    if syntax:
        rewritten(folder, syntax)
    for path in folder.glob("*.dcm"):
        data = path.read_bytes()[132:]
        (length,) = struct.unpack("<I", data[8:12])
        path.write_bytes(data if keep_meta else data[12 + length :])
    np.testing.assert_array_equal(read_series(folder, "ct").volume.array, array)


def test_other_files_links_and_loops_are_passed_over(array, tmp_path):
    folder = write_slices(tmp_path / "scan" / "deep", array).parent
    (folder / "notes.txt").write_text("hello")
    (folder / "empty").touch()
    (folder / "loop").symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")
    os.mkfifo(folder / "pipe")
    assert [series.shape for series in find_series(folder)] == [SHAPE]


def test_a_dicomdir_is_never_followed(array, tmp_path):
    write_slices(tmp_path / "outside", array, series="other")
    folder = write_slices(tmp_path / "scan", array)
    directory, record = image(array[:, :, 0].T, (0, 0, 0)), image(array[:, :, 0].T, (0, 0, 0))
    record.ReferencedFileID = ["XX", "OUTSIDE", "000"]
    directory.DirectoryRecordSequence = [record]
    directory.SOPClassUID = directory.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    directory.save_as(folder / "DICOMDIR", enforce_file_format=True)
    content = (folder / "DICOMDIR").read_bytes()
    (folder / "DICOMDIR").write_bytes(content.replace(b"XX\\OUTSIDE\\000", b"..\\outside\\000"))
    assert [series.uid for series in find_series(folder)] == [uid("series", "a")]


# --- what is refused


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


# --- which series


def test_the_one_series_that_is_a_volume_is_taken(array, tmp_path):
    write_slices(tmp_path / "t1", array, modality="MR", series="t1")
    write_slices(tmp_path / "scout", array[:, :, :1], modality="MR", series="scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_slices(tmp_path / "ct", array, series="ct")
    assert read_series(tmp_path, "mr").series.uid == uid("series", "t1")
    assert [series.problem is None for series in find_series(tmp_path)].count(True) == 2


def test_two_series_must_be_chosen_from(array, tmp_path):
    write_slices(tmp_path / "one", array, series="one", SeriesNumber=4, SeriesDescription="T1 pre")
    write_slices(tmp_path / "two", array, series="two", SeriesNumber=11, SeriesDescription="T1 post")
    with pytest.raises(DataError, match=r"(?s)2 CT series would do; choose one by .* with --series.*series 4.*T1 pre.*series 11"):
        read_series(tmp_path, "ct")
    assert read_series(tmp_path, "ct", series="11").series.description == "T1 post"
    assert read_series(tmp_path, "ct", series=uid("series", "one")).series.number == "4"
    with pytest.raises(ConfigError, match="--series 5: 0 series have"):
        read_series(tmp_path, "ct", series="5")
    with pytest.raises(DataError, match="its modality is CT, and MR is wanted"):
        read_series(tmp_path, "mr", series="4")
    with pytest.raises(DataError, match="no MR series is a volume"):
        read_series(tmp_path, "mr")


# --- forced geometry


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_ramp_in_space_stays_that_ramp_whatever_the_tilt_and_the_gaps(seed, tmp_path_factory):
    """Linear interpolation at the true places reproduces a linear image exactly; at any other places it does not."""
    rng = np.random.default_rng(seed)
    cosines = rotated(seed)
    normal = np.cross(cosines[:3], cosines[3:])
    heights = np.cumsum(rng.uniform(0.5, 5, 6))
    positions = np.array([5.0, -8.0, 3.0]) + heights[:, None] * (normal + rng.uniform(-0.5, 0.5) * np.array(cosines[3:]))
    positions = np.array([[float(f"{v:.8g}") for v in position] for position in positions])
    gradient = rng.uniform(-2, 2, 3)
    i, j = np.meshgrid(np.arange(20), np.arange(18), indexing="ij")
    points = positions[None, None] + (i[..., None] * 0.75 * np.array(cosines[:3]) + j[..., None] * 1.5 * np.array(cosines[3:]))[:, :, None]
    array = np.rint(points @ gradient * 100)
    folder = write_slices(tmp_path_factory.mktemp("s"), array, positions, ImageOrientationPatient=list(cosines), RescaleSlope="0.01")
    scan = read_series(folder, "ct", force_geometry=True)
    inside = scan.volume.array > -1000
    world = scan.volume.grid.to_world(np.argwhere(inside).astype(float)) @ LPS_TO_RAS
    error = np.abs(scan.volume.array[inside] - world @ gradient)
    # Where only one of two neighbouring slices reaches, the other one counts as air; those voxels are the minority.
    assert np.median(error) < 0.01
    assert scan.regularized == (irregularity(scan.series.stack) is not None)
    assert "resampled onto a regular grid" in scan.series.note


def test_a_missing_slice_is_interpolated_between_its_neighbours(array, tmp_path):
    folder = write_slices(tmp_path, array, edit=lambda ds, k: k != 2)
    scan = read_series(folder, "ct", force_geometry=True)
    expected = array.astype(np.float32)
    expected[:, :, 2] = (expected[:, :, 1] + expected[:, :, 3]) / 2
    np.testing.assert_allclose(scan.volume.array, expected, atol=1e-3)
    assert scan.regularized
    assert "1 missing slice" in scan.series.note


def test_lossy_compression_must_be_accepted(array, tmp_path):
    folder = write_slices(tmp_path, array, LossyImageCompression="01")
    with pytest.raises(DataError, match=r"5 files have been through lossy compression.*--force-geometry"):
        read_series(folder, "ct")
    scan = read_series(folder, "ct", force_geometry=True)
    assert "lossy" in scan.series.note
    assert not scan.regularized
    np.testing.assert_array_equal(scan.volume.array, array)


def test_a_lossy_syntax_is_named(array, tmp_path):
    folder = write_slices(tmp_path, array)
    for path in folder.glob("*.dcm"):
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", JPEGBaseline8Bit.encode()[:19] + b"0"))
    with pytest.raises((DataError, FileError)):
        read_series(folder, "ct")


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["straight", "missing", "tilt", "uneven"]))
def test_highdicom_finds_the_same_stacks_regular(seed, kind, tmp_path_factory):
    rng = np.random.default_rng(seed)
    cosines = np.array(rotated(seed))
    positions = straight(8, rng.uniform(0.8, 5), cosines)
    if kind == "missing":
        positions = np.delete(positions, rng.integers(1, 7), axis=0)
    if kind == "tilt":
        positions = positions + np.arange(8)[:, None] * rng.uniform(0.3, 1) * cosines[:3]
    if kind == "uneven":
        positions[3] += 0.3 * (positions[1] - positions[0])
    folder = write_slices(
        tmp_path_factory.mktemp("s"), np.zeros((2, 2, len(positions)), np.int16), positions, ImageOrientationPatient=list(cosines)
    )
    (series,) = find_series(folder)
    spacing, _ = get_volume_positions(positions, cosines, perpendicular_tol=1e-6)
    assert (series.problem is None) == (spacing is not None)
    if spacing is not None:
        assert series.stack.slice_mm == pytest.approx(spacing, abs=1e-4)


def test_the_planes_of_a_stack_are_ordered_along_their_normal(array, tmp_path):
    scan = read_series(write_slices(tmp_path, array), "ct")
    planes = [plane for file in scan.series.files for plane in planes_of(file)]
    assert [plane.name for plane in stack(planes).planes] == [plane.name for plane in stack(planes[::-1]).planes]
    heights = [plane.position[2] for plane in scan.planes]
    assert heights == sorted(heights)


# --- a real CT with a tilted gantry


def on_plane(volume, plane, indices):
    """Values of the volume at (row, column) indices of a slice, at the places that the file itself gives."""
    ds = pydicom.dcmread(plane.file.path)
    origin, cosines = np.array(ds.ImagePositionPatient, float), np.array(ds.ImageOrientationPatient, float)
    rows, columns = (indices * np.array(ds.PixelSpacing, float)).T[..., None]
    lps = origin + columns * cosines[:3] + rows * cosines[3:]
    return map_coordinates(volume.array.astype(np.float32), volume.grid.to_voxel(lps @ LPS_TO_RAS).T, order=1, mode="nearest")


def landmark_errors_mm(volume, plane):
    """How far the brightest place around each landmark (a point of dense bone) of a slice is from it in the volume."""
    ds = pydicom.dcmread(plane.file.path)
    pixels = ds.pixel_array.astype(float)
    steps = np.arange(-8, 8.1, 0.25)
    offsets = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    landmarks = np.argwhere((pixels == maximum_filter(pixels, 31)) & (pixels > 900))
    found = [offsets[on_plane(volume, plane, landmark + offsets).argmax()] for landmark in landmarks]
    return [np.linalg.norm(offset * np.array(ds.PixelSpacing, float)) for offset in found]


def shift_mm(volume, plane):
    """How far a whole slice must be moved to fit the volume."""
    ds = pydicom.dcmread(plane.file.path)
    pixels = ds.pixel_array.astype(float)
    inside = on_plane(volume, plane, np.argwhere(np.ones(pixels.shape))).reshape(pixels.shape)
    window = (-200, 1200)
    shift, *_ = phase_cross_correlation(np.clip(pixels, *window), np.clip(inside, *window), upsample_factor=20, normalization=None)
    return np.linalg.norm(shift * np.array(ds.PixelSpacing, float))


def test_a_real_ct_with_a_tilted_gantry_is_refused_and_right_when_forced(shared_data):
    """A reader that takes the first position and the mean gap is off by 19 mm in the last slices of this scan."""
    folder = shared_data / "ct_gantry_tilt_dicom"
    with pytest.raises(GeometryError, match=r"gantry tilt of 18\.5 degrees.*uneven gaps of 1\.08"):
        read_series(folder, "ct")
    scan = read_series(folder, "ct", force_geometry=True)
    assert scan.volume.array.min() == -1024
    errors = np.concatenate([landmark_errors_mm(scan.volume, plane) for plane in scan.planes[::3]])
    assert len(errors) > 100
    assert np.median(errors) < 0.488
    assert max(shift_mm(scan.volume, plane) for plane in scan.planes[::5]) < 0.488


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_real_head_is_the_same_by_dicom_in_any_cut(shared_data, tmp_path, axis):
    """So that whatever is computed from it is the same too."""
    head = read_scan(shared_data / "heads" / "t1_head.nii.gz", "mr")
    order = [(1, 2, 0), (0, 2, 1), (0, 1, 2)][axis]
    array = head.array.transpose(order).astype(np.int16)
    along = LPS_TO_RAS @ head.affine[:3, :3][:, order]
    start = LPS_TO_RAS @ head.affine[:3, 3]
    positions = start + np.arange(array.shape[2])[:, None] * along[:, 2]
    spacing = np.linalg.norm(along, axis=0)
    cosines = (along[:, :2] / spacing[:2]).T.ravel().tolist()
    write_slices(tmp_path, array, positions, modality="MR", ImageOrientationPatient=cosines, PixelSpacing=list(spacing[1::-1]))
    found, expected = canonical(read_series(tmp_path, "mr").volume), canonical(head)
    assert found.grid.matches(expected.grid)
    np.testing.assert_array_equal(found.array, expected.array)


def test_a_copy_of_the_same_image_is_named(array, tmp_path):
    folder = write_slices(tmp_path, array)
    shutil.copy(folder / "0000.dcm", folder / "copy.dcm")
    with pytest.raises(GeometryError, match=r"0000\.dcm and .*copy\.dcm .*keep one of each"):
        read_series(folder, "ct")
