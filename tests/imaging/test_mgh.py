import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from transmodal.core.errors import DataError, FileError, GeometryError
from transmodal.core.volume import Volume
from transmodal.imaging.scan import read_scan, write_scan

AFFINE = np.array([[-1.0, 0, 0, 20], [0, 0, 1.5, -30], [0, -2.0, 0, 5], [0, 0, 0, 1]])


def scan() -> Volume:
    return Volume(np.arange(210, dtype=np.int16).reshape(5, 6, 7), AFFINE, "mr")


def content(folder: Path) -> bytearray:
    write_scan(scan(), folder / "good.mgh")
    return bytearray((folder / "good.mgh").read_bytes())


@pytest.mark.parametrize(
    ("offset", "kind", "value", "error", "reason"),
    [
        (0, ">i", 7, FileError, "version 7"),
        (4, ">i", 0, FileError, "size"),
        (4, ">i", -3, FileError, "size"),
        (4, ">i", 6, FileError, "truncated"),
        (4, ">i", 2**31 - 1, FileError, "promises|truncated"),
        (16, ">i", 2, FileError, "several volumes"),
        (20, ">i", 9, FileError, "code 9"),
        (28, ">h", 0, GeometryError, "orientation"),
        (30, ">f", 0.0, GeometryError, "singular"),
        (42, ">f", np.nan, GeometryError, "finite"),
    ],
)
def test_a_damaged_header_is_refused_with_the_reason(offset, kind, value, error, reason, tmp_path):
    data = content(tmp_path)
    struct.pack_into(kind, data, offset, value)
    (tmp_path / "bad.mgh").write_bytes(data)
    with pytest.raises(error, match=reason) as caught:
        read_scan(tmp_path / "bad.mgh", "mr")
    assert "bad.mgh" in str(caught.value)


def test_truncated_damaged_and_oversized_files_are_refused(tmp_path):
    data = bytes(content(tmp_path))
    packed = bytearray(gzip.compress(data))
    packed[-6] ^= 1
    for name, bad, reason in [
        ("a.mgh", data[:200], "truncated"),
        ("b.mgh", data[:600], "truncated"),
        ("c.mgz", gzip.compress(data)[:-3], "too early"),
        ("d.mgz", bytes(packed), "damaged"),
        ("e.mgz", gzip.compress(data + bytes(5_000_000)), "far more data"),
        ("f.mgz", data, "not gzip-compressed"),
    ]:
        (tmp_path / name).write_bytes(bad)
        with pytest.raises(FileError, match=reason) as caught:
            read_scan(tmp_path / name, "mr")
        assert name in str(caught.value)


def test_a_footer_of_tags_is_skipped(tmp_path):
    (tmp_path / "mr.mgz").write_bytes(gzip.compress(bytes(content(tmp_path)) + b"\0\0\0\x03history of commands" * 500))
    np.testing.assert_array_equal(read_scan(tmp_path / "mr.mgz", "mr").array, scan().array)


@pytest.mark.parametrize(
    ("dtype", "stored"), [("u1", "u1"), ("i1", "i2"), ("i2", "i2"), ("u2", "i4"), ("i8", "i4"), ("u4", "i4"), ("f8", "f4")]
)
def test_integers_are_written_in_the_smallest_type_that_holds_them(dtype, stored, tmp_path):
    array = np.array([[[0, 1, 120]]], dtype=dtype)
    write_scan(Volume(array, np.eye(4), "mr"), tmp_path / "mr.mgz")
    result = read_scan(tmp_path / "mr.mgz", "mr").array
    assert result.dtype == stored
    np.testing.assert_array_equal(result, array)


def test_integers_beyond_the_format_are_refused(tmp_path):
    with pytest.raises(DataError, match="write NIfTI instead"):
        write_scan(Volume(np.array([[[2**40]]]), np.eye(4), "mr"), tmp_path / "mr.mgz")
    assert not list(tmp_path.iterdir())
