import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st

from transmodal.core.errors import DataError, FileError, GeometryError
from transmodal.core.volume import Volume
from transmodal.imaging.scan import find_scan, read_scan, strip_scan_suffix, write_scan

WRITTEN = (".nii", ".nii.gz", ".mgh", ".mgz", ".mha", ".nrrd")
seeds = st.integers(0, 10_000)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, suffix=st.sampled_from(WRITTEN), dtype=st.sampled_from(["u1", "i2", "u2", "i4", "f4"]))
def test_every_format_returns_voxels_exactly_and_places_within_a_micron(seed, suffix, dtype, make_affine, tmp_path_factory):
    rng = np.random.default_rng(seed)
    limits = (0, 200) if dtype == "u1" else (0, 60_000) if dtype == "u2" else (-1000, 3000)
    array = rng.uniform(*limits, rng.integers(1, 9, 3)).astype(dtype)
    volume = Volume(array, make_affine(seed), "mr")
    path = tmp_path_factory.mktemp("scans") / f"mr{suffix}"
    write_scan(volume, path)
    result = read_scan(path, "mr")
    np.testing.assert_array_equal(result.array, array)
    assert result.array.dtype == dtype or (suffix in (".mgh", ".mgz") and dtype == "u2")
    assert np.abs(result.grid.corners() - volume.grid.corners()).max() < 1e-3


@settings(max_examples=15, deadline=None)
@given(seed=seeds, suffix=st.sampled_from([".nii.gz", ".mha", ".nrrd"]))
def test_another_program_finds_the_same_voxels_at_the_same_places(seed, suffix, make_affine, tmp_path_factory):
    volume = Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), make_affine(seed), "ct")
    path = tmp_path_factory.mktemp("scans") / f"ct{suffix}"
    write_scan(volume, path)
    image = SimpleITK.ReadImage(str(path))
    for index in [(0, 0, 0), (2, 3, 4), (1, 0, 3)]:
        assert image.GetPixel(index) == volume.array[index]
        world = np.array(image.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)
        np.testing.assert_allclose(world, volume.grid.to_world(np.array(index, dtype=float)), atol=1e-3)


@pytest.mark.parametrize(
    ("modality", "values", "stored", "expected"),
    [
        ("ct", np.array([-1024.4, 0.6, 4e4, -4e4], dtype=np.float32), np.int16, [-1024, 1, 32767, -32768]),
        ("mr", np.array([0.25, 1.5, -2.0, 3.0]), np.float32, [0.25, 1.5, -2.0, 3.0]),
        ("mr", np.array([0, 1, 2, 700], dtype=np.uint16), np.uint16, [0, 1, 2, 700]),
        ("mask", np.array([True, False, True, False]), np.uint8, [1, 0, 1, 0]),
        ("labels", np.array([0, 3, 255, 1], dtype=np.int64), np.uint8, [0, 3, 255, 1]),
        ("labels", np.array([0, 3, 256, 1], dtype=np.float32), np.uint16, [0, 3, 256, 1]),
    ],
)
@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_the_type_on_disk_follows_the_modality(modality, values, stored, expected, suffix, tmp_path):
    path = tmp_path / f"scan{suffix}"
    write_scan(Volume(values.reshape(2, 2, 1), np.eye(4), modality), path)
    on_disk = read_scan(path, "mr").array
    assert on_disk.dtype == stored
    np.testing.assert_array_equal(on_disk.ravel(), expected)


def test_masks_and_labels_come_back_as_bool_and_unsigned(tmp_path):
    write_scan(Volume(np.array([[[0, 255]]], dtype=np.uint8), np.eye(4), "mr"), tmp_path / "mask.nii")
    write_scan(Volume(np.array([[[0.0, 300.0]]]), np.eye(4), "mr"), tmp_path / "labels.nii")
    assert read_scan(tmp_path / "mask.nii", "mask").array.tolist() == [[[False, True]]]
    assert read_scan(tmp_path / "mask.nii", "mask").array.dtype == bool
    assert read_scan(tmp_path / "labels.nii", "labels").array.dtype == np.uint16


@pytest.mark.parametrize(
    ("modality", "values", "reason"),
    [
        ("mask", [0, 1, 2], "not a mask"),
        ("labels", [0, -1, 2], "not a label map"),
        ("labels", [0, 0.5, 2], "not a label map"),
        ("mr", [0, np.nan, np.inf], "2 voxels are NaN"),
    ],
)
def test_voxels_that_do_not_fit_the_modality_are_refused_both_ways(modality, values, reason, tmp_path):
    array = np.array(values, dtype=np.float32).reshape(3, 1, 1)
    with pytest.raises(DataError, match=reason) as caught:
        write_scan(Volume(array, np.eye(4), modality), tmp_path / "out.nii")
    assert "out.nii" in str(caught.value)
    assert not list(tmp_path.iterdir())
    image = SimpleITK.GetImageFromArray(array.T)
    SimpleITK.WriteImage(image, str(tmp_path / "in.nii"))
    with pytest.raises(DataError, match=reason):
        read_scan(tmp_path / "in.nii", modality)


def test_a_sheared_grid_is_not_written(tmp_path):
    affine = np.eye(4)
    affine[0, 1] = 0.3
    for suffix in WRITTEN:
        with pytest.raises(GeometryError, match="sheared by"):
            write_scan(Volume(np.zeros((9, 9, 9)), affine, "mr"), tmp_path / f"mr{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("spacing", [0.001, 1000.0])
def test_voxels_of_an_impossible_size_are_refused(spacing, tmp_path):
    write_scan(Volume(np.zeros((2, 2, 2)), np.diag([spacing, spacing, spacing, 1]), "mr"), tmp_path / "mr.mha")
    with pytest.raises(GeometryError, match="unit of length"):
        read_scan(tmp_path / "mr.mha", "mr")


@pytest.mark.parametrize("name", ["scan.dcm", "scan", "scan.gz", "nii.gz.txt"])
def test_other_formats_are_refused_naming_the_ones_that_work(name, tmp_path):
    with pytest.raises(FileError, match=r"\.nii\.gz.*\.nrrd"):
        read_scan(tmp_path / name, "mr")
    with pytest.raises(FileError, match=r"\.nii\.gz.*\.nrrd"):
        write_scan(Volume(np.zeros((2, 2, 2)), np.eye(4), "mr"), tmp_path / name)


def test_a_volume_in_two_files_is_read_but_not_written(tmp_path):
    image = SimpleITK.GetImageFromArray(np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    for suffix in (".mhd", ".nhdr"):
        SimpleITK.WriteImage(image, str(tmp_path / f"mr{suffix}"))
        volume = read_scan(tmp_path / f"mr{suffix}", "mr")
        assert volume.array[3, 2, 1] == 23
        with pytest.raises(FileError, match="not written"):
            write_scan(volume, tmp_path / f"new{suffix}")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgz", ".mha", ".mhd", ".nrrd", ".nhdr"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"", "empty"),
        (b"<!DOCTYPE html><html>Please sign in</html>" * 9, "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
    ],
)
def test_what_only_bears_the_name_of_a_scan(suffix, content, reason, tmp_path):
    path = tmp_path / f"mr{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FileError, match=reason) as caught:
        read_scan(path, "mr")
    assert path.name in str(caught.value)


def test_a_folder_is_not_a_scan(tmp_path):
    (tmp_path / "mr.nii").mkdir()
    with pytest.raises(FileError, match="cannot be read"):
        read_scan(tmp_path / "mr.nii", "mr")


def test_the_same_scan_gives_the_same_bytes_whatever_its_name(tmp_path):
    volume = Volume(np.arange(24).reshape(2, 3, 4), np.eye(4), "ct")
    for suffix in WRITTEN:
        write_scan(volume, tmp_path / f"first{suffix}")
        write_scan(volume, tmp_path / f"second{suffix}")
        assert (tmp_path / f"first{suffix}").read_bytes() == (tmp_path / f"second{suffix}").read_bytes()


def test_find_scan(tmp_path):
    assert find_scan(tmp_path, "mr") is None
    (tmp_path / "mr.mha").touch()
    (tmp_path / "mr2.nii.gz").touch()
    (tmp_path / "ct.nii").mkdir()
    assert find_scan(tmp_path, "mr") == tmp_path / "mr.mha"
    assert find_scan(tmp_path, "ct") is None
    (tmp_path / "mr.nii.gz").touch()
    with pytest.raises(FileError, match=r"mr\.nii\.gz, mr\.mha"):
        find_scan(tmp_path, "mr")


@pytest.mark.parametrize(("name", "stem"), [("mr.nii.gz", "mr"), ("a.b.MHA", "a.b"), ("mr.nii", "mr"), ("notes.txt", "notes.txt")])
def test_strip_scan_suffix(name, stem):
    assert strip_scan_suffix(name) == stem


def test_a_suffix_in_capitals_and_a_name_with_spaces(tmp_path):
    path = tmp_path / "Müller's scan (2).NII.GZ"
    volume = Volume(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4), "mr")
    write_scan(volume, path)
    np.testing.assert_array_equal(read_scan(path, "mr").array, volume.array)


WRITER = """
import sys
import numpy as np
from pathlib import Path
from transmodal.core.volume import Volume
from transmodal.imaging.scan import write_scan
volume = Volume(np.random.default_rng(0).normal(size=(128, 128, 128)).astype(np.float32), np.eye(4), "mr")
print("ready", flush=True)
while True:
    write_scan(volume, Path(sys.argv[1]))
"""


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha"])
def test_a_killed_writer_leaves_a_whole_file(suffix, tmp_path):
    path = tmp_path / f"mr{suffix}"
    old = Volume(np.full((4, 4, 4), 7, dtype=np.int16), np.eye(4), "mr")
    write_scan(old, path)
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    deadline = time.monotonic() + 20
    while not any(part.stat().st_size > 1000 for part in _partials(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert _partials(tmp_path)
    assert read_scan(path, "mr").shape in (old.shape, (128, 128, 128))
    write_scan(old, path)
    assert not _partials(tmp_path)


def _partials(folder: Path) -> list[Path]:
    return list(folder.glob(".*partial*"))


@pytest.mark.parametrize("suffix", WRITTEN)
def test_a_full_disk_leaves_the_old_file(suffix, tmp_path):
    path = tmp_path / f"mr{suffix}"
    old = Volume(np.full((4, 4, 4), 7, dtype=np.int16), np.eye(4), "mr")
    write_scan(old, path)
    code = WRITER.replace("while True:", "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\nif True:")
    result = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert f"FileError: {path}: cannot be written" in result.stderr
    assert read_scan(path, "mr").array.tolist() == old.array.tolist()
    assert list(tmp_path.iterdir()) == [path]


def test_real_scans_are_read(shared_data):
    assert read_scan(shared_data / "heads/t1_head.nii.gz", "mr").grid.axis_codes == "LIA"
    assert read_scan(shared_data / "heads/t1_head_defaced.mgz", "mr").grid.axis_codes == "LIA"
    assert read_scan(shared_data / "tiny/ct_head_coarse.nii.gz", "ct").array.dtype == np.int16
    coarse = read_scan(shared_data / "tiny/HeadMRVolume.mhd", "mr")
    assert (coarse.shape, coarse.spacing, coarse.grid.axis_codes) == ((48, 62, 42), (4.0, 4.0, 4.0), "LPS")
