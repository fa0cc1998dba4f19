"""DICOM files that cannot be trusted: found in a folder tree, parsed within bounds, refused with a reason."""

import contextlib
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from jaxtyping import Shaped

from transmodal.core.errors import DataError, FileError, TransmodalError
from transmodal.imaging.stream import require_size

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

_MAGIC_AT = 128
_PIXEL_TAG = 0x7FE00008  # float pixels; PixelData itself is 7FE0,0010
_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_UNDEFINED = 0xFFFFFFFF
# Longer than any header and larger than any volume that is sent deflated; a bomb of 1 MB would become 1 GB.
_MAX_INFLATED = 256 << 20

_DEFLATED = "1.2.840.10008.1.2.1.99"
_IMPLICIT = "1.2.840.10008.1.2"
_EXPLICIT = "1.2.840.10008.1.2.1"
_NATIVE = {_IMPLICIT, _EXPLICIT, _DEFLATED}
_LOSSLESS = {
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.5",
}
# Markers that open the header of a frame: SOF0 to SOF15 without DHT, JPG and DAC, and SOF55 of JPEG-LS.
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
# JPEG 2000 and HTJ2K may be lossless under these too; the attribute LossyImageCompression then says so.
_EITHER = {"1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.203"}
_LOSSY = {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81"}
_CODESTREAMS = (_LOSSLESS - {"1.2.840.10008.1.2.5"}) | _EITHER | _LOSSY


@dataclass(frozen=True)
class DicomFile:
    """A DICOM file without its pixels.

    Parameters
    ----------
    path : Path
    header : pydicom.Dataset
        Everything before the pixels, with the file meta information.
    has_pixels : bool
        Whether pixel data follow the header.
    """

    path: Path
    header: "Dataset" = field(repr=False)
    has_pixels: bool

    @property
    def syntax(self) -> str:
        """UID of the transfer syntax."""
        return str(self.header.file_meta.TransferSyntaxUID)

    @property
    def lossy(self) -> bool:
        """Whether the pixels have ever been through lossy compression."""
        said = str(self.header.get("LossyImageCompression", ""))
        return self.syntax in _LOSSY or said == "01" or (self.syntax in _EITHER and said != "00")


def find_dicom(source: Path) -> Iterator[Path]:
    """Yield the DICOM files in a folder tree in order of their names, or the one file that `source` is.

    Links to folders are not followed, so that no loop can trap the walk, and nor is a DICOMDIR, which may point anywhere.
    """
    if source.is_file():
        yield from [source] if is_dicom(source) else []
        return
    for folder, subfolders, names in os.walk(source):
        subfolders.sort()
        yield from (path for name in sorted(names) if is_dicom(path := Path(folder) / name))


def is_dicom(path: Path) -> bool:
    """Whether a file begins as a DICOM image does: ``DICM`` after the preamble or, without one, the first group of a header."""
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return False
        with path.open("rb") as stream:
            start = stream.read(_MAGIC_AT + 4)
    except OSError:
        return False
    return start[_MAGIC_AT:] == b"DICM" or _is_bare(start)


def _is_bare(start: bytes) -> bool:
    """Without a preamble: an element of group 2 or 8 with a number below 0x100, and a value that is short or has a type."""
    known = start[:4] in {bytes([group, 0, element, 0]) for group in (2, 8) for element in range(0x20)}
    return known and (start[4:6].isalpha() or start[6:8] == b"\0\0")


def read_header(path: Path) -> DicomFile:
    """Parse a DICOM file up to its pixels.

    Raises
    ------
    FileError
        If the file is damaged, inflates beyond all bounds, or is written in a transfer syntax that is unknown or retired.
    """
    with faults(path), path.open("rb") as stream:
        dataset, rest = _parse(stream, path, to_pixels=True)
        return DicomFile(path, dataset, rest.read(4) == _PIXEL_DATA)


def read_pixels(file: DicomFile) -> Shaped[np.ndarray, "frames rows columns"]:
    """Decode the pixels of a file as they are stored, before any rescaling.

    Raises
    ------
    FileError
        If they are truncated or damaged, or no decoder for their compression is installed.
    """
    with faults(file.path), file.path.open("rb") as stream:
        dataset, _ = _parse(stream, file.path)
        if file.syntax in _CODESTREAMS:
            _require_codestreams(dataset, file.path)
        array = dataset.pixel_array
    return array if array.ndim == 3 else array[None]


def require_pixels_fit(file: DicomFile) -> tuple[int, int, int]:
    """Return (frames, rows, columns), or raise unless they are grey values in numbers that the file can hold.

    Raises
    ------
    FileError
        If the header promises more than the file has.
    DataError
        If there is no image, or one in colour.
    """
    header, path = file.header, file.path
    rows, columns = header.get("Rows"), header.get("Columns")
    frames = header.get("NumberOfFrames") or 1
    if not rows or not columns:
        raise DataError(f"{path}: no image (Rows {rows}, Columns {columns})")
    photometric = str(header.get("PhotometricInterpretation", ""))
    if header.get("SamplesPerPixel", 1) != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise DataError(f"{path}: not an image in grey values (PhotometricInterpretation {photometric!r})")
    bits = header.get("BitsAllocated")
    if bits not in (8, 16, 32):
        raise FileError(f"{path}: BitsAllocated {bits!r}; a scan has 8, 16 or 32 bits a pixel")
    if not file.has_pixels:
        raise FileError(f"{path}: a header without pixel data; export the images themselves")
    shape = int(frames), int(rows), int(columns)
    require_size(path, shape, bits // 8, compressed=file.syntax not in (_IMPLICIT, _EXPLICIT))
    return shape


def _require_codestreams(dataset: "Dataset", path: Path) -> None:
    """A decoder makes room for what the compressed data say, not for what the header does."""
    from pydicom.encaps import generate_frames

    expected = dataset.Rows, dataset.Columns
    for frame in generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1)):
        if (size := _codestream_size(frame)) != expected:
            raise FileError(f"{path}: the compressed image has {size} rows and columns, and the header says {expected}; it is damaged")


def _codestream_size(frame: bytes) -> tuple[int, int]:
    """Rows and columns by the SIZ segment of JPEG 2000 (ISO 15444-1 A.5.1), or the frame header of JPEG (ISO 10918-1 B.2.2) and JPEG-LS."""
    at = frame.find(b"\xff\x4f\xff\x51")
    if at >= 0:
        right, bottom, left, top = struct.unpack_from(">4I", frame, at + 8)
        return bottom - top, right - left
    at = 2
    while frame[at + 1] not in _FRAME_HEADERS:
        at += 2 + struct.unpack_from(">H", frame, at + 2)[0]
    return struct.unpack_from(">2H", frame, at + 5)


@contextlib.contextmanager
def faults(path: Path) -> Iterator[None]:
    """Turn whatever a hostile file makes the parser or a decoder raise into `FileError`, and keep warnings of oddities quiet."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except TransmodalError:
        raise
    except RecursionError as error:
        raise FileError(f"{path}: sequences are nested too deep for a real file; it is damaged or not to be trusted") from error
    except Exception as error:  # no list of what third-party decoders raise is complete
        raise FileError(f"{path}: cannot be read as DICOM ({_first_line(error)}){_remedy(error)}") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _remedy(error: Exception) -> str:
    if "decompress" in str(error) or isinstance(error, NotImplementedError):
        return "; export it again without compression, or decompress it with: gdcmconv --raw"
    return "; copy or export it again"


def _parse(stream: BinaryIO, path: Path, *, to_pixels: bool = False) -> tuple["Dataset", BinaryIO]:
    """Parse a stream, and return what it is read from, at the point where parsing stopped."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset
    from pydicom.uid import UID

    stream.seek(_MAGIC_AT + 4 if stream.read(_MAGIC_AT + 4)[_MAGIC_AT:] == b"DICM" else 0)
    meta = FileMetaDataset(read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2))
    meta.TransferSyntaxUID = syntax = UID(meta.get("TransferSyntaxUID") or _guess_syntax(stream))
    _require_syntax(syntax, path)
    # pydicom would inflate without a bound, so it is only given what is inflated already.
    body = BytesIO(_inflate(stream.read(), path)) if syntax == _DEFLATED else stream
    stop_when = (lambda tag, vr, length: tag >= _PIXEL_TAG) if to_pixels else None
    dataset = read_dataset(body, syntax == _IMPLICIT, True, stop_when=stop_when)
    dataset.file_meta = meta
    _require_whole(dataset, path)
    return dataset, body


def _require_whole(dataset: "Dataset", path: Path) -> None:
    """The parser takes what is there of a last value that is cut short."""
    from pydicom.dataelem import RawDataElement

    last = dataset.get_item(max(dataset.keys(), default=0)) if len(dataset) else None
    if isinstance(last, RawDataElement) and last.length != _UNDEFINED and len(last.value or b"") < last.length:
        raise FileError(f"{path}: truncated in the element {last.tag}; copy or export it again")


def _guess_syntax(stream: BinaryIO) -> str:
    """Find whether elements carry their types, where no meta information says so."""
    start = stream.read(6)
    stream.seek(-len(start), os.SEEK_CUR)
    return _EXPLICIT if start[4:6].isalpha() else _IMPLICIT


def _require_syntax(syntax: "UID", path: Path) -> None:
    if syntax not in _NATIVE | _LOSSLESS | _EITHER | _LOSSY:
        raise FileError(f"{path}: the transfer syntax {syntax.name} is unknown or retired; convert the files with: gdcmconv --raw")


def _inflate(data: bytes, path: Path) -> bytes:
    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    inflated = inflater.decompress(data, _MAX_INFLATED)
    if inflater.unconsumed_tail:
        raise FileError(f"{path}: inflates to more than {_MAX_INFLATED} bytes, which no real file does; it is not to be trusted")
    if not inflater.eof:
        raise FileError(f"{path}: truncated: the compressed data end too early; copy or export it again")
    return inflated
