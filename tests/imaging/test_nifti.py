import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest

from nifti_fields import FIELDS, set_fields
from transmodal.core.errors import FileError, GeometryError, TransmodalError
from transmodal.core.volume import Volume
from transmodal.imaging.scan import read_scan, write_scan

SHAPE = (5, 6, 7)
AFFINE = np.array([[-1.0, 0, 0, 20], [0, 1.5, 0, -30], [0, 0, 2.0, 5], [0, 0, 0, 1]])


def scan() -> Volume:
    return Volume(np.arange(210, dtype=np.int16).reshape(SHAPE) - 100, AFFINE, "ct")


def good_bytes(folder: Path) -> bytearray:
    write_scan(scan(), folder / "good.nii")
    content = bytearray((folder / "good.nii").read_bytes())
    (folder / "good.nii").unlink()
    return content


def edited(folder: Path, **values: float) -> Path:
    """A scan with fields of its header replaced."""
    content = good_bytes(folder)
    set_fields(content, **values)
    path = folder / "bad.nii"
    path.write_bytes(content)
    return path


def test_the_header_holds_the_geometry_and_nothing_else(tmp_path):
    write_scan(scan(), tmp_path / "ct.nii.gz")
    image = nibabel.load(tmp_path / "ct.nii.gz")
    header = image.header
    raw = gzip.decompress((tmp_path / "ct.nii.gz").read_bytes())
    assert struct.unpack_from("<2f", raw, FIELDS["scl_slope"][0]) == (1.0, 0.0)
    assert header["descrip"].item() == header["aux_file"].item() == header["intent_name"].item() == header["db_name"].item() == b""
    assert not header.extensions and len(raw) == 352 + scan().array.nbytes
    assert (int(header["sform_code"]), int(header["qform_code"]), header.get_xyzt_units()[0]) == (1, 1, "mm")
    np.testing.assert_array_equal(header.get_sform(), header.get_qform())
    np.testing.assert_array_equal(header.get_sform(), AFFINE)


@pytest.mark.parametrize(
    ("values", "error", "reason"),
    [
        ({"sizeof_hdr": 349}, FileError, "not a NIfTI file"),
        ({"dim0": 9}, FileError, "dim"),
        ({"dim0": 0}, FileError, "dim"),
        ({"dim0": 2}, FileError, "2 axes"),
        ({"dim1": 0}, FileError, "size"),
        ({"dim1": -5}, FileError, "size"),
        ({"dim1": 6}, FileError, "truncated"),
        ({"dim0": 4, "dim4": 2}, FileError, "several volumes"),
        ({"datatype": 128}, FileError, "RGB"),
        ({"datatype": 32}, FileError, "complex"),
        ({"datatype": 3}, FileError, "no datatype 3"),
        ({"vox_offset": 0}, FileError, "vox_offset"),
        ({"vox_offset": 352.5}, FileError, "vox_offset"),
        ({"vox_offset": 5000}, FileError, "truncated"),
        ({"vox_offset": 3e9}, FileError, "vox_offset"),
        ({"vox_offset": np.nan}, FileError, "vox_offset"),
        ({"scl_slope": np.nan}, FileError, "scl_slope"),
        ({"scl_slope": np.inf}, FileError, "scl_slope"),
        ({"scl_inter": np.nan}, FileError, "scl_inter"),
        ({"xyzt_units": 5}, FileError, "unit of length"),
        ({"pixdim1": 0}, GeometryError, "pixdim"),
        ({"pixdim1": np.nan}, GeometryError, "pixdim"),
        ({"sform_code": 0, "qform_code": 0}, GeometryError, "no orientation"),
        ({"srow_x0": np.nan}, GeometryError, "finite"),
        ({"srow_x0": 0}, GeometryError, "singular"),
        ({"quatern_b": 2, "sform_code": 0}, GeometryError, "not valid"),
        ({"qoffset_x": np.inf}, GeometryError, "finite"),
        ({"srow_x3": 21}, GeometryError, "disagree by 1 mm"),
        ({"srow_x0": 1}, GeometryError, "disagree"),
    ],
)
def test_a_damaged_header_is_refused_with_the_reason(values, error, reason, tmp_path):
    path = edited(tmp_path, **values)
    with pytest.raises(error, match=reason) as caught:
        read_scan(path, "ct")
    assert str(path) in str(caught.value)


def test_dimensions_that_no_file_could_hold_are_refused_before_any_memory_is_taken(tmp_path):
    content = good_bytes(tmp_path)
    struct.pack_into("<3h", content, 42, 32767, 32767, 32767)
    for name, data in (("bad.nii", bytes(content)), ("bad.nii.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FileError, match="32767x32767x32767"):
            read_scan(tmp_path / name, "ct")
    struct.pack_into("<3h", content, 42, 1000, 1000, 1000)
    (tmp_path / "bad.nii.gz").write_bytes(gzip.compress(content))
    with pytest.raises(FileError, match="truncated"):
        read_scan(tmp_path / "bad.nii.gz", "ct")


@pytest.mark.parametrize("magic", [b"ni1\0", b"n+3\0", b"\0\0\0\0"])
def test_another_magic_is_refused(magic, tmp_path):
    content = good_bytes(tmp_path)
    content[344:348] = magic
    (tmp_path / "bad.nii").write_bytes(content)
    with pytest.raises(FileError, match="pair" if magic.startswith(b"ni1") else "magic"):
        read_scan(tmp_path / "bad.nii", "ct")


def test_every_truncation_is_refused(tmp_path):
    content = bytes(good_bytes(tmp_path))
    for length in (1, 3, 100, 347, 350, 352, 360, len(content) - 1):
        (tmp_path / "bad.nii").write_bytes(content[:length])
        with pytest.raises(FileError, match="truncated"):
            read_scan(tmp_path / "bad.nii", "ct")


def test_every_truncated_or_flipped_byte_of_a_gzip_is_refused_or_harmless(tmp_path):
    write_scan(scan(), tmp_path / "good.nii.gz")
    packed = (tmp_path / "good.nii.gz").read_bytes()
    path = tmp_path / "bad.nii.gz"
    for length in range(1, len(packed), 7):
        path.write_bytes(packed[:length])
        with pytest.raises(FileError, match=r"bad\.nii\.gz"):
            read_scan(path, "ct")
    refused = 0
    for position in range(10, len(packed)):
        flipped = bytearray(packed)
        flipped[position] ^= 0x10
        path.write_bytes(flipped)
        try:
            np.testing.assert_array_equal(read_scan(path, "ct").array, scan().array)
        except TransmodalError as error:
            refused += "bad.nii.gz" in str(error)
    assert refused > 0.9 * (len(packed) - 10)


def test_a_wrong_checksum_is_refused(tmp_path):
    packed = bytearray(gzip.compress(good_bytes(tmp_path)))
    packed[-8] ^= 1
    (tmp_path / "bad.nii.gz").write_bytes(packed)
    with pytest.raises(FileError, match="damaged"):
        read_scan(tmp_path / "bad.nii.gz", "ct")


def test_a_file_that_inflates_beyond_its_header_is_refused(tmp_path):
    bomb = gzip.compress(bytes(good_bytes(tmp_path)) + bytes(50_000_000))
    assert len(bomb) < 100_000
    (tmp_path / "bomb.nii.gz").write_bytes(bomb)
    with pytest.raises(FileError, match="far more data"):
        read_scan(tmp_path / "bomb.nii.gz", "ct")


def test_a_name_that_denies_or_claims_compression_is_refused(tmp_path):
    content = bytes(good_bytes(tmp_path))
    (tmp_path / "plain.nii.gz").write_bytes(content)
    (tmp_path / "packed.nii").write_bytes(gzip.compress(content))
    with pytest.raises(FileError, match="not gzip-compressed, though"):
        read_scan(tmp_path / "plain.nii.gz", "ct")
    with pytest.raises(FileError, match="does not say so"):
        read_scan(tmp_path / "packed.nii", "ct")


def test_padding_and_header_extensions_are_skipped(tmp_path):
    content = bytes(good_bytes(tmp_path))
    extension = b"\1\0\0\0" + struct.pack("<ii", 32, 6) + b"Jane Doe, 1970-01-01....."[:24]
    header = bytearray(content[:348])
    struct.pack_into("<f", header, FIELDS["vox_offset"][0], 384)
    (tmp_path / "ct.nii").write_bytes(bytes(header) + extension + content[352:] + bytes(512))
    volume = read_scan(tmp_path / "ct.nii", "ct")
    np.testing.assert_array_equal(volume.array, scan().array)
    write_scan(volume, tmp_path / "clean.nii")
    assert b"Jane" not in (tmp_path / "clean.nii").read_bytes()


@pytest.mark.parametrize(("unit", "factor"), [(0, 1), (1, 1000), (2, 1), (3, 0.001)])
def test_lengths_come_back_in_millimetres(unit, factor, tmp_path):
    affine = AFFINE.copy()
    affine[:3] /= factor
    header = nibabel.Nifti1Header()
    header["xyzt_units"] = unit
    image = nibabel.Nifti1Image(scan().array, affine, header)
    image.set_qform(affine, 1)
    nibabel.save(image, tmp_path / "ct.nii")
    np.testing.assert_allclose(read_scan(tmp_path / "ct.nii", "ct").affine, AFFINE, rtol=1e-6)


@pytest.mark.parametrize(
    ("slope", "inter", "dtype", "expected"),
    [
        (0, 99, np.int16, scan().array),
        (1, -1024, np.int16, scan().array - 1024),
        (1000, 0, np.int32, scan().array.astype(int) * 1000),
        (0.5, 10, np.float32, scan().array * 0.5 + 10),
    ],
)
def test_scaling_keeps_integers_where_it_can(slope, inter, dtype, expected, tmp_path):
    volume = read_scan(edited(tmp_path, scl_slope=slope, scl_inter=inter), "ct")
    assert volume.array.dtype == dtype
    np.testing.assert_array_equal(volume.array, expected)


def test_one_form_is_enough(tmp_path):
    for codes in ({"sform_code": 0, "srow_x0": np.nan}, {"qform_code": 0, "quatern_b": np.nan}):
        np.testing.assert_allclose(read_scan(edited(tmp_path, **codes), "ct").affine, AFFINE, atol=1e-6)


def test_a_handedness_of_zero_means_right_handed_axes(tmp_path):
    affine = read_scan(edited(tmp_path, qfac=0, sform_code=0), "ct").affine
    np.testing.assert_allclose(affine, AFFINE @ np.diag([1, 1, -1, 1]), atol=1e-6)


def test_a_sheared_sform_is_read(tmp_path):
    volume = read_scan(edited(tmp_path, qform_code=0, srow_x1=0.4), "ct")
    assert volume.affine[0, 1] == pytest.approx(0.4)


def test_a_trailing_axis_of_one_is_dropped(tmp_path):
    np.testing.assert_array_equal(read_scan(edited(tmp_path, dim0=4, dim4=1), "ct").array, scan().array)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_versions_and_both_byte_orders(kind, order, tmp_path):
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.int16)
    nibabel.save(kind(scan().array, AFFINE, header), tmp_path / "ct.nii.gz")
    volume = read_scan(tmp_path / "ct.nii.gz", "ct")
    np.testing.assert_array_equal(volume.array, scan().array)
    assert volume.array.dtype.isnative
    np.testing.assert_array_equal(volume.affine, AFFINE)
