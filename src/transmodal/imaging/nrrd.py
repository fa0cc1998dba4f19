"""NRRD (``.nrrd``, ``.nhdr`` with its data file): bounds are checked here, SimpleITK reads."""

from pathlib import Path

from transmodal.core.errors import FileError
from transmodal.core.volume import Affine, Array3D
from transmodal.imaging.header import TextHeader, check_voxels, read_text_header
from transmodal.imaging.itk import ITEMSIZE, read_itk, write_itk

# Every spelling in the format's definition (teem), by the type that it names.
_SPELLINGS = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
_TYPES = {spelling: dtype for dtype, spellings in _SPELLINGS.items() for spelling in spellings.split(", ")}
_COMPRESSED = {"raw": False, "gzip": True, "gz": True}


def read_nrrd(path: Path) -> tuple[Array3D, Affine]:
    """Read the voxels and the affine to RAS+ mm.

    Raises
    ------
    FileError
        If the file or its data file is damaged, truncated, elsewhere, or holds something other than one image of real numbers.
    """
    return read_itk(path, "NrrdImageIO", _check(path))


def write_nrrd(array: Array3D, affine: Affine, path: Path) -> None:
    """Write one compressed ``.nrrd`` file, and check that it is whole."""
    write_itk(array, affine, path, "NrrdImageIO", _check)


def nrrd_data(path: Path) -> Path:
    """The file that holds the voxels: this one, or another beside it."""
    return _data_file(_read_header(path))[0]


def _read_header(path: Path) -> TextHeader:
    return read_text_header(path, "NRRD000", _split, lambda line: line == "")


def _check(path: Path) -> tuple[int, int, int]:
    """Refuse what is damaged or out of bounds, and return the size in the header."""
    header = _read_header(path)
    if header.require("type").lower() not in _TYPES:
        raise FileError(f"{path}: holds voxels of a type that is not read ({header.fields['type']})")
    encoding = header.require("encoding").lower()
    if encoding not in _COMPRESSED:
        raise FileError(f"{path}: the encoding {encoding} is not read; convert it to raw or gzip")
    for key in ("line skip", "lineskip", "byte skip", "byteskip"):
        if header.fields.get(key, "0") != "0":
            raise FileError(f"{path}: {key}: {header.fields[key]} is not read; convert it to one .nrrd file")
    data, offset = _data_file(header)
    shape = header.shape("sizes")
    check_voxels(data, shape, ITEMSIZE[_TYPES[header.fields["type"].lower()]], offset, _COMPRESSED[encoding])
    return shape


def _split(line: str) -> tuple[str, str] | None:
    key, colon, value = line.partition(":")
    return None if not colon or line.startswith("#") or value.startswith("=") else (key, value)


def _data_file(header: TextHeader) -> tuple[Path, int]:
    """Find the file that holds the voxels, and where they begin in it."""
    name = header.fields.get("data file", header.fields.get("datafile"))
    if name is None:
        return header.path, header.end
    if name.upper().startswith("LIST") or "%" in name:
        raise FileError(f"{header.path}: its voxels are spread over several files ({name}); convert it to one file")
    return header.beside(name), 0
