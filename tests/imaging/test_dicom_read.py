import os
import struct

import gdcm
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from dicom_series import enhanced_mr, image, rewritten, rotated, straight, uid, write_slices
from transmodal.core.errors import ConfigError, DataError, FileError
from transmodal.imaging.dicom_read import find_series, read_series

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


def to_jpeg_lossless(folder):
    """As most archives compress what they keep."""
    for path in folder.glob("*.dcm"):
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
    return folder


def test_jpeg_lossless(array, tmp_path):
    folder = to_jpeg_lossless(write_slices(tmp_path, array))
    assert pydicom.dcmread(next(folder.glob("*.dcm"))).file_meta.TransferSyntaxUID == JPEGLosslessSV1
    np.testing.assert_array_equal(read_series(folder, "ct").volume.array, array)


def test_compressed_data_of_another_syntax_than_the_header_says(array, tmp_path):
    folder = write_slices(tmp_path, array, edit=lambda ds, k: ds.compress(JPEGLSLossless, generate_instance_uid=False))
    for path in folder.glob("*.dcm"):
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.4.80", b"1.2.840.10008.1.2.4.70"))
    with pytest.raises(FileError, match=r"cannot be read as DICOM .*; copy or export it again"):
        read_series(folder, "ct")


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
    with pytest.raises(ConfigError, match="--series 5: no series has"):
        read_series(tmp_path, "ct", series="5")
    with pytest.raises(DataError, match="its modality is CT, and MR is wanted"):
        read_series(tmp_path, "mr", series="4")
    with pytest.raises(DataError, match="no MR series is a volume"):
        read_series(tmp_path, "mr")
