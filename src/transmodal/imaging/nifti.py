"""NIfTI-1 and NIfTI-2 in one file (``.nii``, ``.nii.gz``): every field that matters is checked before a voxel is read.

The format is that of the NIfTI-1.1 header (Cox et al., 2004) and the NIfTI-2 header (2011).
"""

from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np

from transmodal.core.errors import FileError, GeometryError
from transmodal.core.volume import Affine, Array3D, Grid
from transmodal.imaging.stream import open_checked, read_end, read_exactly, require_size

# Furthest that the corners of the sform and of the qform may be apart. Two ways of writing one orientation differ by up to 0.45 mm
# over 256 mm near half a turn, as in any tilted LPS scan: readers derive the quaternion's first term from float32 values.
FORM_TOLERANCE_MM = 0.5

_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_REFUSED = {
    1: "one bit a voxel",
    32: "complex numbers",
    128: "RGB colours",
    1536: "128-bit floats",
    1792: "complex numbers",
    2048: "complex numbers",
    2304: "RGBA colours",
}
_UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_MAX_OFFSET = 1 << 24  # header extensions larger than this are refused


def read_nifti(path: Path) -> tuple[Array3D, Affine]:
    """Read the voxels, scaled and in the smallest type that holds them, and the affine to RAS+ mm.

    Raises
    ------
    FileError
        If the file is damaged, truncated, or holds something other than one image of real numbers.
    GeometryError
        If its orientation is absent, or its sform and qform contradict each other.
    """
    gzipped = path.name.lower().endswith(".gz")
    with open_checked(path, gzipped) as stream:
        header = _read_header(stream, path)
        shape, dtype = _shape(header, path), _dtype(header, path)
        slope, intercept = _scaling(header, path)
        affine = _affine(header, shape, path)
        offset = _offset(header, path)
        expected = require_size(path, shape, dtype.itemsize, gzipped, offset)
        read_exactly(stream, offset - int(header["sizeof_hdr"]), path, "the header extensions")
        data = read_exactly(stream, expected, path, "the voxels")
        read_end(stream, path)
    array = data.view(dtype).reshape(shape, order="F")
    return _scale(array.astype(dtype.newbyteorder("="), order="K", copy=False), slope, intercept), affine


def write_nifti(array: Array3D, affine: Affine, path: Path) -> None:
    """Write voxels as they are (slope 1), sform and qform both set to `affine`, and every free-text field empty.

    Parameters
    ----------
    array : ndarray, shape (x, y, z)
        Of any type in the NIfTI standard.
    affine : ndarray, shape (4, 4)
        Without shear, which a qform cannot hold.
    path : Path
        Ends in ``.nii`` or ``.nii.gz``.
    """
    import nibabel

    image = nibabel.Nifti1Image(array, affine, dtype=array.dtype)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(1.0, 0.0)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    nibabel.save(image, path)


def _read_header(stream: BufferedIOBase, path: Path) -> Any:
    import nibabel

    start = read_exactly(stream, 4, path, "the header").tobytes()
    kinds = {348: (nibabel.Nifti1Header, b"n+1"), 540: (nibabel.Nifti2Header, b"n+2")}
    sizes = {"<": int.from_bytes(start, "little"), ">": int.from_bytes(start, "big")}
    order = next((order for order, size in sizes.items() if size in kinds), None)
    if order is None:
        raise FileError(f"{path}: not a NIfTI file (it begins with {start!r})")
    kind, magic = kinds[sizes[order]]
    block = start + read_exactly(stream, sizes[order] - 4, path, "the header").tobytes()
    header = kind(block, endianness=order, check=False)
    found = header["magic"].item()
    if found in (b"ni1", b"ni2"):
        raise FileError(f"{path}: the header of a .hdr/.img pair; convert the pair to one .nii file")
    if found != magic:
        raise FileError(f"{path}: not a NIfTI file, or damaged (its magic is {found!r})")
    return header


def _shape(header: Any, path: Path) -> tuple[int, int, int]:
    dim = [int(n) for n in header["dim"]]
    if not 1 <= dim[0] <= 7:
        raise FileError(f"{path}: the header is damaged: dim[0] = {dim[0]}, which must be 1 to 7")
    sizes = dim[1 : dim[0] + 1]
    if min(sizes) < 1:
        raise FileError(f"{path}: the header is damaged: it gives the size {sizes}")
    if any(n > 1 for n in sizes[3:]):
        raise FileError(f"{path}: holds several volumes (size {sizes}); extract the one to use, as a three-dimensional file")
    if len(sizes) < 3:
        raise FileError(f"{path}: not a volume but an image of {len(sizes)} axes (size {sizes})")
    return sizes[0], sizes[1], sizes[2]


def _dtype(header: Any, path: Path) -> np.dtype:
    code = int(header["datatype"])
    if code in _REFUSED:
        raise FileError(f"{path}: holds {_REFUSED[code]} (datatype {code}); a scan has one real number a voxel")
    if code not in _DTYPES:
        raise FileError(f"{path}: the header is damaged: there is no datatype {code}")
    return np.dtype(_DTYPES[code]).newbyteorder(header.endianness)


def _scaling(header: Any, path: Path) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0:
        return 1.0, 0.0  # by the standard: not scaled
    if not np.isfinite([slope, intercept]).all():
        raise FileError(f"{path}: the header is damaged: scl_slope = {slope}, scl_inter = {intercept}; both must be finite")
    return slope, intercept


def _offset(header: Any, path: Path) -> int:
    offset, first = float(header["vox_offset"]), int(header["sizeof_hdr"]) + 4
    if not (first <= offset <= _MAX_OFFSET and offset.is_integer()):
        raise FileError(f"{path}: the header is damaged: vox_offset = {offset:g}, which must be {first} to {_MAX_OFFSET}")
    return int(offset)


def _affine(header: Any, shape: tuple[int, int, int], path: Path) -> Affine:
    pixdim = [float(p) for p in header["pixdim"][1:4]]
    if not (np.isfinite(pixdim).all() and min(pixdim) > 0):
        raise GeometryError(f"{path}: the header gives voxels of {pixdim} mm; set a valid pixdim")
    unit = int(header["xyzt_units"]) % 8
    if unit not in _UNIT_MM:
        raise FileError(f"{path}: the header is damaged: there is no unit of length with the code {unit}")
    grids = [_grid(shape, form, _UNIT_MM[unit], path) for form in _forms(header, path)]
    if not grids:
        raise GeometryError(f"{path}: the header has no orientation (sform_code and qform_code are 0); set one of them")
    _require_agreement(grids, path)
    return grids[0].affine


def _forms(header: Any, path: Path) -> list[Affine]:
    """Return the sform and the qform, as far as their codes say that they are set."""
    from nibabel.spatialimages import HeaderDataError

    if header["pixdim"][0] == 0:
        header["pixdim"][0] = 1  # by the standard: the handedness that is meant when none is given
    try:
        forms = [header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]]
    except (HeaderDataError, ValueError) as error:
        raise GeometryError(f"{path}: the orientation in the header is not valid ({error})") from error
    return [np.asarray(form, dtype=np.float64) for form in forms if form is not None]


def _grid(shape: tuple[int, int, int], form: Affine, unit_mm: float, path: Path) -> Grid:
    try:
        return Grid(shape, form * np.array([[unit_mm], [unit_mm], [unit_mm], [1.0]]))
    except GeometryError as error:
        raise GeometryError(f"{path}: the orientation in the header is not valid: {error}") from error


def _require_agreement(grids: list[Grid], path: Path) -> None:
    apart = float(np.abs(grids[0].corners() - grids[-1].corners()).max())
    if apart > FORM_TOLERANCE_MM:
        raise GeometryError(
            f"{path}: the sform and the qform disagree by {apart:.3g} mm:\n"
            f"  sform: {grids[0].describe()}\n  qform: {grids[-1].describe()}\n"
            "set the wrong one to the other, or its code to 0"
        )


def _scale(array: Array3D, slope: float, intercept: float) -> Array3D:
    """Apply the scaling; integers stay integers where it maps them to integers."""
    if (slope, intercept) == (1.0, 0.0):
        return array
    if array.dtype.kind in "iu" and slope.is_integer() and intercept.is_integer():
        ends = [int(value) * int(slope) + int(intercept) for value in (array.min(), array.max())]
        for dtype in (np.int16, np.int32):
            if np.iinfo(dtype).min <= min(ends) and max(ends) <= np.iinfo(dtype).max:
                return (array.astype(np.int64) * int(slope) + int(intercept)).astype(dtype)
    scaled = array.astype(np.float64) * slope + intercept
    return scaled if array.dtype == np.float64 else scaled.astype(np.float32)
