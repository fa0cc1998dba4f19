"""FreeSurfer volumes (``.mgh``, ``.mgz``), checked before a voxel is read."""

from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np

from transmodal.core.errors import DataError, FileError, GeometryError
from transmodal.core.volume import Affine, Array3D
from transmodal.imaging.stream import open_checked, read_end, read_exactly, require_size

_HEADER_BYTES = 284
_GOOD_RAS = slice(28, 30)
_DTYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
_WRITABLE = (np.uint8, np.int16, np.int32)
_FOOTER_BYTES = 1 << 20  # scan parameters, then tags such as the history of commands


def read_mgh(path: Path) -> tuple[Array3D, Affine]:
    """Read the voxels and the affine to RAS+ mm.

    Raises
    ------
    FileError
        If the file is damaged, truncated, or holds more than one volume.
    GeometryError
        If the header says that its orientation is not known.
    """
    gzipped = path.name.lower().endswith(".mgz")
    with open_checked(path, gzipped) as stream:
        header = _read_header(stream, path)
        shape, dtype = _shape(header, path), _dtype(header, path)
        affine = _affine(header)
        expected = require_size(path, shape, dtype.itemsize, gzipped, _HEADER_BYTES)
        data = read_exactly(stream, expected, path, "the voxels")
        read_end(stream, path, _FOOTER_BYTES)
    return data.view(dtype).reshape(shape, order="F").astype(dtype.newbyteorder("="), order="K", copy=False), affine


def write_mgh(array: Array3D, affine: Affine, path: Path) -> None:
    """Write voxels in the smallest of the format's types that holds them exactly (uint8, int16, int32; float32 for floats).

    Raises
    ------
    DataError
        If integers are too large for int32.
    """
    from nibabel.freesurfer.mghformat import MGHImage

    voxels: Any = array.astype(_writable(array))
    MGHImage(voxels, affine).to_filename(path)


def _writable(array: Array3D) -> np.dtype:
    if array.dtype.kind == "f":
        return np.dtype(np.float32)
    for dtype in _WRITABLE:
        if np.can_cast(array.dtype, dtype):
            return np.dtype(dtype)
    limits, low, high = np.iinfo(np.int32), int(array.min()), int(array.max())
    if low < limits.min or high > limits.max:
        raise DataError(f"the MGH format holds 32-bit integers at most, and the voxels run from {low} to {high}; write NIfTI instead")
    return np.dtype(np.int32)


def _read_header(stream: BufferedIOBase, path: Path) -> Any:
    from nibabel.freesurfer.mghformat import MGHHeader

    block = read_exactly(stream, _HEADER_BYTES, path, "the header").tobytes()
    header = MGHHeader(block, check=False)
    if header["version"] != 1:
        raise FileError(f"{path}: not a FreeSurfer volume, or damaged (version {int(header['version'])}, which must be 1)")
    if int.from_bytes(block[_GOOD_RAS], "big") != 1:  # nibabel has put in an orientation of its own by now
        raise GeometryError(f"{path}: the header says that its orientation is not known; set it (mri_convert does)")
    return header


def _shape(header: Any, path: Path) -> tuple[int, int, int]:
    x, y, z, frames = (int(n) for n in header["dims"])
    if min(x, y, z, frames) < 1:
        raise FileError(f"{path}: the header is damaged: it gives the size {[x, y, z, frames]}")
    if frames > 1:
        raise FileError(f"{path}: holds several volumes (size {[x, y, z, frames]}); extract the one to use")
    return x, y, z


def _dtype(header: Any, path: Path) -> np.dtype:
    code = int(header["type"])
    if code not in _DTYPES:
        raise FileError(f"{path}: holds voxels of a type that is not read (code {code})")
    return np.dtype(_DTYPES[code])


def _affine(header: Any) -> Affine:
    with np.errstate(all="ignore"):  # a header that is not finite is refused by the grid
        return np.asarray(header.get_affine(), dtype=np.float64)
