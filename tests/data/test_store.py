import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transmodal.core.errors import FileError
from transmodal.data.manifest import Manifest, write_manifest
from transmodal.data.store import CHUNK, Dataset, write_image
from transmodal.imaging.preparation import Preparation

SHAPE = (70, 130, 33)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    voxels = np.random.default_rng(0).integers(-1000, 3000, SHAPE).astype(np.int16)
    write_image(folder, "a", "ct", voxels)
    write_manifest(folder, Manifest(preparation=Preparation(), subjects=()))
    return Dataset(folder), voxels


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_any_box_reads_what_was_written(stored, data):
    dataset, voxels = stored
    start = tuple(data.draw(st.integers(0, n - 1)) for n in SHAPE)
    stop = tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, SHAPE, strict=True))
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    np.testing.assert_array_equal(dataset.read("a", "ct", start, stop), voxels[box])


def test_the_whole_image_and_its_type(stored):
    dataset, voxels = stored
    whole = dataset.read_all("a", "ct")
    assert whole.dtype == np.int16
    np.testing.assert_array_equal(whole, voxels)


def test_a_patch_decodes_only_its_chunks(stored, monkeypatch):
    folder = stored[0].folder
    dataset = Dataset(folder)
    decoded = []
    original = dataset._decode
    monkeypatch.setattr(dataset, "_chunk", lambda *key: decoded.append(key[-1]) or original(*key))
    dataset.read("a", "ct", (0, CHUNK - 1, 0), (1, CHUNK + 1, 33))
    assert decoded == [(0, 0, 0), (0, 1, 0)]


def test_a_missing_image_and_a_missing_dataset_are_named(stored, tmp_path):
    with pytest.raises(FileError, match="b/ct"):
        stored[0].read_all("b", "ct")
    with pytest.raises(FileError, match=r"dataset\.json"):
        Dataset(tmp_path)


def _cut_short(whole):
    return whole[: len(whole) // 2]


def _one_bit_flipped(whole):
    middle = len(whole) // 2
    return whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]


@pytest.mark.parametrize("damage", [_cut_short, _one_bit_flipped])
def test_damage_to_any_chunk_is_named(stored, damage):
    dataset, voxels = stored
    for chunk in [path for path in (dataset.folder / "images.zarr" / "a" / "ct" / "c").rglob("*") if path.is_file()]:
        whole = chunk.read_bytes()
        chunk.write_bytes(damage(whole))
        try:
            with pytest.raises(FileError, match=r"a/ct: the image is damaged .*delete this folder"):
                Dataset(dataset.folder).read_all("a", "ct")
        finally:
            chunk.write_bytes(whole)
    np.testing.assert_array_equal(Dataset(dataset.folder).read_all("a", "ct"), voxels)
