"""The voxels of a dataset: one chunked Zarr v3 array per image, read in pieces."""

import functools
import itertools
from pathlib import Path

import numpy as np
import zarr
from jaxtyping import Shaped
from zarr.codecs import BloscCodec, BloscShuffle, Crc32cCodec

from transmodal.core.errors import FileError
from transmodal.core.files import refusals
from transmodal.data.manifest import Manifest, read_manifest

ARRAYS_NAME = "images.zarr"
# Measured for 128x128 slices along any axis and 96³ patches: smaller chunks cost more in calls than they save in decoding.
CHUNK = 64
# At most 1 GB of decoded chunks (of 4-byte voxels) stays in memory.
CACHED_CHUNKS = 1024


def write_image(dataset: Path, subject: str, name: str, voxels: Shaped[np.ndarray, "x y z"]) -> None:
    """Store the voxels of one image, replacing what was there; several processes may write those of different subjects at once."""
    chunks = tuple(min(CHUNK, n) for n in voxels.shape)
    # Blosc alone may make wrong voxels of a damaged chunk: the checksum tells.
    compressors = (BloscCodec(cname="zstd", clevel=3, shuffle=BloscShuffle.bitshuffle), Crc32cCodec())
    with refusals(Path(_arrays(dataset))):
        group = zarr.open_group(_arrays(dataset), mode="a", zarr_format=3)
        array = group.create_array(
            f"{subject}/{name}", shape=voxels.shape, dtype=voxels.dtype, chunks=chunks, compressors=compressors, overwrite=True
        )
        array[...] = voxels


def has_image(dataset: Path, subject: str, name: str) -> bool:
    """Whether the voxels of an image are stored."""
    return (Path(dataset) / ARRAYS_NAME / subject / name).is_dir()


class Dataset:
    """A prepared dataset, opened for reading.

    Parameters
    ----------
    folder : Path
        A folder written by ``transmodal prepare``.

    Raises
    ------
    FileError
        If it holds no dataset.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.manifest: Manifest = read_manifest(self.folder)
        self._array = functools.cache(self._open)
        self._chunk = functools.lru_cache(maxsize=CACHED_CHUNKS)(self._decode)

    def read(self, subject: str, name: str, start: tuple[int, int, int], stop: tuple[int, int, int]) -> Shaped[np.ndarray, "x y z"]:
        """The voxels from `start` up to, and without, `stop`; only the chunks that they lie in are decoded.

        The box must lie inside the image.
        """
        array = self._array(subject, name)
        assert all(0 <= a < b <= n for a, b, n in zip(start, stop, array.shape, strict=True)), (start, stop, array.shape)
        out = np.empty([b - a for a, b in zip(start, stop, strict=True)], dtype=array.dtype)
        spans = [range(a // c, (b - 1) // c + 1) for a, b, c in zip(start, stop, array.chunks, strict=True)]
        for index in itertools.product(*spans):
            origin = [i * c for i, c in zip(index, array.chunks, strict=True)]
            chunk = self._chunk(subject, name, index)
            first = [max(a, o) for a, o in zip(start, origin, strict=True)]
            last = [min(b, o + n) for b, o, n in zip(stop, origin, chunk.shape, strict=True)]
            into = tuple(slice(f - a, e - a) for f, e, a in zip(first, last, start, strict=True))
            out[into] = chunk[tuple(slice(f - o, e - o) for f, e, o in zip(first, last, origin, strict=True))]
        return out

    def read_all(self, subject: str, name: str) -> Shaped[np.ndarray, "x y z"]:
        """All voxels of one image."""
        return self._decoded(subject, name, (slice(None),) * 3)

    def _open(self, subject: str, name: str) -> zarr.Array:
        try:
            return zarr.open_array(_arrays(self.folder), path=f"{subject}/{name}", mode="r")
        except (FileNotFoundError, KeyError, ValueError) as error:
            raise FileError(
                f"{_arrays(self.folder)}: the image {subject}/{name} is missing or damaged; prepare the dataset again"
            ) from error

    def _decode(self, subject: str, name: str, index: tuple[int, int, int]) -> Shaped[np.ndarray, "x y z"]:
        array = self._array(subject, name)
        region = tuple(slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(index, array.chunks, array.shape, strict=True))
        return self._decoded(subject, name, region)

    def _decoded(self, subject: str, name: str, region: tuple[slice, ...]) -> Shaped[np.ndarray, "x y z"]:
        try:
            return np.asarray(self._array(subject, name)[region])
        except (RuntimeError, ValueError, OSError) as error:
            where = f"{_arrays(self.folder)}/{subject}/{name}"
            raise FileError(f"{where}: the image is damaged ({error}); delete this folder, and prepare the dataset again") from error


def _arrays(dataset: Path) -> str:
    return str(Path(dataset) / ARRAYS_NAME)
