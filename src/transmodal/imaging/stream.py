"""Reading bytes that cannot be trusted: bounded by what a header promises, checked to the end, refused with a reason."""

import contextlib
import gzip
import math
import os
import resource
import zlib
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from transmodal.core.errors import FileError, OutOfMemory

# A head at 0.2 mm has about 2e9 voxels; a header that promises more is damaged or hostile.
MAX_VOXELS = 2**31
# What may follow the voxels of a file: padding to a block of disk or tape.
TRAILING_BYTES = 8192
# Deflate never packs tighter than this (zlib's technical notes), so a small file cannot hold a large image.
_DEFLATE_RATIO = 1032
_CHUNK = 1 << 20
_DAMAGED = "copy or download it again"


@contextlib.contextmanager
def open_checked(path: Path, gzipped: bool) -> Iterator[BufferedIOBase]:
    """Open a file for reading, through gzip if `gzipped`; faults of the file or its compression become `FileError`."""
    _refuse_foreign(path, gzipped)
    try:
        with gzip.open(path, "rb") if gzipped else path.open("rb") as stream:
            yield stream
    except EOFError as error:
        raise FileError(f"{path}: the compressed data end too early; {_DAMAGED}") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise FileError(f"{path}: the compressed data are damaged ({error}); {_DAMAGED}") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> FileError:
    if isinstance(error, FileNotFoundError):
        return FileError(f"{path}: there is no such file")
    return FileError(f"{path}: cannot be read ({error.strerror or error})")


def _refuse_foreign(path: Path, gzipped: bool) -> None:
    """Recognize by its first bytes what only bears the name of a scan."""
    start = _first_bytes(path)
    if not start:
        raise FileError(f"{path}: the file is empty; {_DAMAGED}")
    if start.startswith(b"version https://git-lfs"):
        raise FileError(f"{path}: this is a Git LFS pointer, not the scan; fetch the scan with: git lfs pull")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise FileError(f"{path}: this is a web page, not a scan (a download that asked for a login?); download it again")
    is_gzip = start.startswith(b"\x1f\x8b")
    if gzipped and not is_gzip:
        raise FileError(f"{path}: not gzip-compressed, though its name says so; if it is an uncompressed scan, rename it")
    if is_gzip and not gzipped:
        raise FileError(f"{path}: gzip-compressed, though its name does not say so; rename it or decompress it")


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(64)
    except OSError as error:
        raise _unreadable(path, error) from error


def require_size(path: Path, shape: tuple[int, ...], itemsize: int, compressed: bool, offset: int = 0) -> int:
    """Bytes of the voxels that a header promises; raise before any are read if the file or the memory cannot hold them.

    Parameters
    ----------
    path : Path
        The file that holds the voxels.
    shape : tuple of int
        Voxels along each axis, all positive.
    itemsize : int
        Bytes a voxel.
    compressed : bool
        Whether the voxels are deflated, so that a small file may hold more than its own size.
    offset : int
        Bytes before the voxels.

    Raises
    ------
    FileError
        If the file cannot hold so many voxels.
    OutOfMemory
        If this process cannot.
    """
    voxels = math.prod(shape)
    if voxels > MAX_VOXELS:
        raise FileError(f"{path}: the header promises {_times(shape)} voxels, more than the {MAX_VOXELS} that are accepted; it is damaged")
    expected = voxels * itemsize
    present = path.stat().st_size
    if offset + expected > present * (_DEFLATE_RATIO if compressed else 1):
        raise FileError(
            f"{path}: truncated, or its header is damaged: {_times(shape)} voxels need {offset + expected} bytes, "
            f"and the {'compressed ' if compressed else ''}file has {present}; {_DAMAGED}"
        )
    if expected > (most := _memory_limit()):
        raise OutOfMemory(
            f"{path}: {_times(shape)} voxels need {expected >> 20} MB, and this process can have {most >> 20} MB of memory; "
            "resample or crop the scan, or use a larger machine"
        )
    return expected


def _memory_limit() -> int:
    """Bytes that this process can have at most: those of the machine, or what `ulimit -v` leaves of them."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    return machine if allowed == resource.RLIM_INFINITY else min(machine, allowed)


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in shape)


def read_exactly(stream: BufferedIOBase, count: int, path: Path, what: str) -> UInt8[np.ndarray, " count"]:
    """Read `count` bytes, or raise `FileError` saying that `what` is cut short."""
    data = np.empty(count, dtype=np.uint8)
    done = 0
    while done < count:
        got = stream.readinto(data.data[done : done + _CHUNK])
        if not got:
            raise FileError(f"{path}: truncated: {what} should have {count} bytes, and only {done} are there; {_DAMAGED}")
        done += got
    return data


def read_end(stream: BufferedIOBase, path: Path, allowed: int = TRAILING_BYTES) -> None:
    """Read to the end of the file, so that its checksum is verified, and refuse more than `allowed` bytes."""
    if len(stream.read(allowed + 1)) > allowed:
        raise FileError(f"{path}: far more data follow than its header promises; the header is damaged or the file is not to be trusted")


def inflate_checked(path: Path, offset: int, expected: int, allowed: int = TRAILING_BYTES) -> None:
    """Inflate the zlib or gzip stream at `offset` without keeping it, and raise `FileError` unless it is whole.

    Parameters
    ----------
    path : Path
    offset : int
        Where the stream begins in the file.
    expected : int
        Bytes that it must inflate to.
    allowed : int
        Bytes that may follow the stream in the file.
    """
    inflater = zlib.decompressobj(wbits=47)  # 32 for either header + 15 for the largest window
    inflated = 0
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            while not inflater.eof and inflated <= expected:
                data = inflater.unconsumed_tail or stream.read(_CHUNK)
                if not data:
                    break
                inflated += len(inflater.decompress(data, _CHUNK))
            trailing = len(inflater.unused_data) + len(stream.read(allowed + 1))
    except zlib.error as error:
        raise FileError(f"{path}: the compressed data are damaged ({error}); {_DAMAGED}") from error
    if inflated > expected or trailing > allowed:
        raise FileError(f"{path}: holds far more data than its header promises; the header is damaged or the file is not to be trusted")
    if not inflater.eof or inflated < expected:
        raise FileError(f"{path}: truncated: the voxels should have {expected} bytes, and only {inflated} are there; {_DAMAGED}")
