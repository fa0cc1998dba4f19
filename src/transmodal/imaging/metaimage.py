"""MetaImage (``.mha``, ``.mhd`` with its data file): bounds are checked here, SimpleITK reads."""

from pathlib import Path

from transmodal.core.errors import FileError
from transmodal.core.volume import Affine, Array3D
from transmodal.imaging.header import TextHeader, check_voxels, read_text_header
from transmodal.imaging.itk import ITEMSIZE, read_itk, write_itk

_TYPES = {
    "MET_UCHAR": "u1",
    "MET_CHAR": "i1",
    "MET_USHORT": "u2",
    "MET_SHORT": "i2",
    "MET_UINT": "u4",
    "MET_INT": "i4",
    "MET_ULONG_LONG": "u8",
    "MET_LONG_LONG": "i8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}


def read_metaimage(path: Path) -> tuple[Array3D, Affine]:
    """Read the voxels and the affine to RAS+ mm.

    Raises
    ------
    FileError
        If the file or its data file is damaged, truncated, elsewhere, or holds something other than one image of real numbers.
    """
    return read_itk(path, "MetaImageIO", _check(path))


def write_metaimage(array: Array3D, affine: Affine, path: Path) -> None:
    """Write one compressed ``.mha`` file, and check that it is whole."""
    write_itk(array, affine, path, "MetaImageIO", _check)


def metaimage_data(path: Path) -> Path:
    """The file that holds the voxels: this one, or another beside it."""
    return _data_file(_read_header(path))[0]


def _read_header(path: Path) -> TextHeader:
    return read_text_header(path, "", _split, lambda line: line.replace(" ", "").startswith("ElementDataFile="))


def _check(path: Path) -> tuple[int, int, int]:
    """Refuse what is damaged or out of bounds, and return the size in the header."""
    header = _read_header(path)
    itemsize = ITEMSIZE[_type(header)]
    compressed = _flag(header, "compresseddata")
    for key, usual in (("binarydata", "true"), ("elementnumberofchannels", "1"), ("distanceunits", "mm")):
        if header.fields.get(key, usual).lower() not in (usual, "?"):
            raise FileError(f"{path}: {key} = {header.fields[key]} is not read; convert it to {usual}")
    data, offset = _data_file(header)
    shape = header.shape("dimsize")
    check_voxels(data, shape, itemsize, offset, compressed)
    return shape


def _split(line: str) -> tuple[str, str] | None:
    key, equals, value = line.partition("=")
    return (key, value) if equals else None


def _type(header: TextHeader) -> str:
    name = header.require("elementtype")
    if name not in _TYPES:
        raise FileError(f"{header.path}: holds voxels of a type that is not read ({name})")
    return _TYPES[name]


def _flag(header: TextHeader, key: str) -> bool:
    return header.fields.get(key, "False").lower() == "true"


def _data_file(header: TextHeader) -> tuple[Path, int]:
    """Find the file that holds the voxels, and where they begin in it."""
    name = header.require("elementdatafile")
    size = header.integers("headersize")[0] if "headersize" in header.fields else 0
    if name.upper() == "LOCAL":
        return header.path, header.end
    if name.upper().startswith("LIST") or "%" in name:
        raise FileError(f"{header.path}: its voxels are spread over several files ({name}); convert it to one file")
    if size < 0:
        raise FileError(f"{header.path}: HeaderSize = {size} is not read; convert it to one .mha file")
    return header.beside(name), size
