"""MetaImage and NRRD: a text header, and voxels after it or in a file beside it."""

import zlib
from pathlib import Path

import numpy as np
import pytest

from transmodal.core.errors import FileError, GeometryError, TransmodalError
from transmodal.core.volume import Volume
from transmodal.imaging.scan import read_scan, write_scan

VOXELS = np.arange(24, dtype="<i2")


def metaimage(**changes: str) -> str:
    fields = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "CompressedData": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "10 20 30",
        "ElementSpacing": "1 2 3",
        "DimSize": "2 3 4",
        "ElementType": "MET_SHORT",
    }
    data = changes.pop("ElementDataFile", "LOCAL")
    return "".join(f"{key} = {value}\n" for key, value in {**fields, **changes, "ElementDataFile": data}.items() if value)


def nrrd(**changes: str) -> str:
    fields = {
        "type": "short",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": "2 3 4",
        "space directions": "(1,0,0) (0,2,0) (0,0,3)",
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": "raw",
        "space origin": "(10,20,30)",
    }
    changes = {key.replace("_", " "): value for key, value in changes.items()}
    return "NRRD0004\n" + "".join(f"{key}: {value}\n" for key, value in {**fields, **changes}.items() if value) + "\n"


def save(path: Path, header: str, data: bytes = VOXELS.tobytes()) -> Path:
    path.write_bytes(header.encode() + data)
    return path


@pytest.mark.parametrize(("name", "header"), [("mr.mha", metaimage()), ("mr.nrrd", nrrd())])
def test_a_whole_file_is_read_in_ras(name, header, tmp_path):
    volume = read_scan(save(tmp_path / name, header), "mr")
    np.testing.assert_array_equal(volume.array, VOXELS.reshape((2, 3, 4), order="F"))
    np.testing.assert_array_equal(volume.affine, [[-1, 0, 0, -10], [0, -2, 0, -20], [0, 0, 3, 30], [0, 0, 0, 1]])


def test_the_three_spaces_of_nrrd_are_told_apart(tmp_path):
    for space, signs in (("left-posterior-superior", (-1, -1)), ("right-anterior-superior", (1, 1)), ("left-anterior-superior", (-1, 1))):
        affine = read_scan(save(tmp_path / "mr.nrrd", nrrd(space=space)), "mr").affine
        np.testing.assert_array_equal(affine[:3, 3], (10 * signs[0], 20 * signs[1], 30))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"DimSize": "2 3 5"}, "truncated"),
        ({"DimSize": "2 3"}, "2 axes"),
        ({"DimSize": "2 3 0"}, "size"),
        ({"DimSize": "2 3 -4"}, "size"),
        ({"DimSize": "2 3 x"}, "whole numbers"),
        ({"DimSize": "99999 99999 99999"}, "promises"),
        ({"DimSize": ""}, "dimsize"),
        ({"DimSize": "2 3 4\nDimSize = 2 3 5"}, "twice"),
        ({"ElementType": "MET_STRING"}, "MET_STRING"),
        ({"ElementType": "MET_DOUBLE"}, "truncated"),
        ({"ElementNumberOfChannels": "3"}, "channels"),
        ({"BinaryData": "False"}, "binarydata"),
        ({"DistanceUnits": "um"}, "distanceunits"),
        ({"CompressedData": "True"}, "damaged"),
        ({"ElementDataFile": "/etc/passwd"}, "same folder"),
        ({"ElementDataFile": "../mr.raw"}, "same folder"),
        ({"ElementDataFile": "C:\\mr.raw"}, "same folder"),
        ({"ElementDataFile": ".."}, "same folder"),
        ({"ElementDataFile": "LIST"}, "several files"),
        ({"ElementDataFile": "slice%03d.raw 1 4 1"}, "several files"),
        ({"ElementDataFile": "absent.raw"}, "absent.raw"),
        ({"ElementDataFile": ""}, "no end"),
    ],
)
def test_a_damaged_metaimage_is_refused_with_the_reason(changes, reason, tmp_path):
    path = save(tmp_path / "bad.mha", metaimage(**changes))
    with pytest.raises(FileError, match=reason) as caught:
        read_scan(path, "mr")
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sizes": "2 3 5"}, "truncated"),
        ({"sizes": "3 2 3 4", "dimension": "4"}, "4 axes"),
        ({"sizes": "2 3 0"}, "size"),
        ({"sizes": "99999 99999 99999"}, "promises"),
        ({"sizes": ""}, "sizes"),
        ({"type": "block"}, "block"),
        ({"type": "double"}, "truncated"),
        ({"encoding": "ascii"}, "ascii"),
        ({"encoding": "gzip"}, "damaged"),
        ({"byte_skip": "100"}, "byte skip"),
        ({"data_file": "/etc/passwd"}, "same folder"),
        ({"data_file": "../mr.raw"}, "same folder"),
        ({"data_file": "LIST"}, "several files"),
        ({"data_file": "slice%03d.raw 1 4 1"}, "several files"),
        ({"data_file": "absent.raw"}, "absent.raw"),
        ({"kinds": "vector domain domain"}, "values a voxel|cannot be read"),
    ],
)
def test_a_damaged_nrrd_is_refused_with_the_reason(changes, reason, tmp_path):
    path = save(tmp_path / "bad.nrrd", nrrd(**changes))
    with pytest.raises(FileError, match=reason) as caught:
        read_scan(path, "mr")
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("bad.mha", metaimage(ElementSpacing="1 0 3")),
        ("bad.mha", metaimage(ElementSpacing="1 nan 3")),
        ("bad.mha", metaimage(TransformMatrix="1 0 0 1 0 0 0 0 1")),
        ("bad.nrrd", nrrd(space_directions="(1,0,0) (0,0,0) (0,0,3)")),
        ("bad.nrrd", nrrd(space_directions="(1,0,0) (1,0,0) (0,0,3)")),
        ("bad.nrrd", nrrd(space_origin="(nan,0,0)")),
    ],
)
def test_a_degenerate_orientation_is_refused(name, header, tmp_path):
    with pytest.raises((FileError, GeometryError), match="bad"):
        read_scan(save(tmp_path / name, header), "mr")


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_compressed_voxels_are_checked_to_the_last_bit(suffix, tmp_path):
    volume = Volume(np.random.default_rng(0).integers(0, 9, (8, 8, 8)).astype(np.int16), np.eye(4), "mr")
    write_scan(volume, tmp_path / f"good{suffix}")
    content = (tmp_path / f"good{suffix}").read_bytes()
    start = content.index(b"LOCAL\n") + 6 if suffix == ".mha" else content.index(b"\n\n") + 2
    path = tmp_path / f"bad{suffix}"
    for length in range(5, len(content), 29):
        path.write_bytes(content[:length])
        with pytest.raises(FileError, match="bad"):
            read_scan(path, "mr")
    refused = 0
    for position in range(start, len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 4
        path.write_bytes(flipped)
        try:
            np.testing.assert_array_equal(read_scan(path, "mr").array, volume.array)
        except TransmodalError:
            refused += 1
    assert refused > 0.9 * (len(content) - start)


@pytest.mark.parametrize(("extra", "reason"), [(bytes(30_000_000), "far more data"), (b"", "truncated")])
def test_compressed_voxels_of_another_length_are_refused(extra, reason, tmp_path):
    data = zlib.compress((VOXELS.tobytes() + extra) if extra else VOXELS.tobytes()[:-2])
    header = metaimage(CompressedData="True", CompressedDataSize=str(len(data)))
    with pytest.raises(FileError, match=reason):
        read_scan(save(tmp_path / "bad.mha", header, data), "mr")


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_lengths_around_whole_chunks_are_inflated_to_the_end(extra, tmp_path):
    voxels = np.zeros((1 << 20) * 2 + extra, dtype=np.uint8)
    header = metaimage(CompressedData="True", DimSize=f"1 1 {voxels.size}", ElementType="MET_UCHAR")
    assert read_scan(save(tmp_path / "mr.mha", header, zlib.compress(voxels.tobytes())), "mr").array.shape == (1, 1, voxels.size)


def test_a_data_file_in_the_same_folder_is_read_and_checked(tmp_path):
    (tmp_path / "my mr.raw").write_bytes(VOXELS.tobytes())
    for name, header in (("mr.mhd", metaimage(ElementDataFile="my mr.raw")), ("mr.nhdr", nrrd(data_file="my mr.raw"))):
        np.testing.assert_array_equal(read_scan(save(tmp_path / name, header, b""), "mr").array.ravel("F"), VOXELS)
    (tmp_path / "my mr.raw").write_bytes(VOXELS.tobytes()[:-1])
    for name in ("mr.mhd", "mr.nhdr"):
        with pytest.raises(FileError, match=r"my mr\.raw: truncated"):
            read_scan(tmp_path / name, "mr")


def test_a_file_of_another_format_is_refused(tmp_path):
    for name in ("mr.mha", "mr.nrrd"):
        with pytest.raises(FileError, match="format"):
            read_scan(save(tmp_path / name, "", b"\x89PNG\r\n\x1a\n" + bytes(200_000)), "mr")
