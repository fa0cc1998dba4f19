"""What MetaImage and NRRD share: a text header before the voxels, or beside them in a second file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transmodal.core.errors import FileError
from transmodal.imaging.stream import inflate_checked, open_checked, read_end, require_size

_MAX_HEADER = 1 << 16


@dataclass(frozen=True)
class TextHeader:
    """The fields of a text header, by lower-case name, and the offset of the first byte after it."""

    path: Path
    fields: dict[str, str]
    end: int

    def require(self, key: str) -> str:
        """Return the value of a field, or raise `FileError` naming the field that is absent."""
        if key not in self.fields:
            raise FileError(f"{self.path}: the header has no field {key!r}; it is damaged")
        return self.fields[key]

    def integers(self, key: str) -> tuple[int, ...]:
        """Return the value of a field as whole numbers separated by spaces."""
        try:
            return tuple(int(word) for word in self.require(key).split())
        except ValueError as error:
            raise FileError(f"{self.path}: the header is damaged: {key} = {self.fields[key]!r}, which must be whole numbers") from error

    def shape(self, key: str) -> tuple[int, int, int]:
        """Return the size of a three-dimensional image, all axes positive."""
        sizes = self.integers(key)
        if len(sizes) != 3:
            raise FileError(f"{self.path}: holds an image of {len(sizes)} axes ({key} = {self.fields[key]}); a volume has three")
        if min(sizes) < 1:
            raise FileError(f"{self.path}: the header is damaged: it gives the size {list(sizes)}")
        return sizes[0], sizes[1], sizes[2]

    def beside(self, name: str) -> Path:
        """Return the file `name` in the folder of the header; a path that leaves the folder is a `FileError`."""
        if name in ("", ".", "..") or any(sign in name for sign in "/\\:\0"):
            raise FileError(f"{self.path}: its voxels are said to be in {name!r}; they are only read from a file in the same folder")
        return self.path.parent / name


def read_text_header(path: Path, magic: str, split: Callable[[str], tuple[str, str] | None], is_last: Callable[[str], bool]) -> TextHeader:
    """Read the lines of a header up to and including the last.

    Parameters
    ----------
    path : Path
    magic : str
        How the first line must begin.
    split : callable
        Gives the key and the value of a line, or None for one without (a comment).
    is_last : callable
        Whether a line ends the header; the end of the file comes as an empty one.
    """
    fields: dict[str, str] = {}
    with open_checked(path, gzipped=False) as stream:
        while stream.tell() < _MAX_HEADER:
            line = stream.readline(_MAX_HEADER)
            text = line.decode("latin-1").strip()
            if stream.tell() == len(line) and not text.startswith(magic):
                raise FileError(f"{path}: not a file of the format that its name says (it begins with {text[:20]!r})")
            if pair := split(text):
                key, value = pair[0].strip().lower(), pair[1].strip()
                if fields.setdefault(key, value) != value:
                    raise FileError(f"{path}: the header is damaged: it gives {key} twice, as {fields[key]!r} and as {value!r}")
            if is_last(text):
                return TextHeader(path, fields, stream.tell())
            if not line:
                break
    raise FileError(f"{path}: the header has no end; the file is damaged or of another format")


def check_voxels(path: Path, shape: tuple[int, int, int], itemsize: int, offset: int, compressed: bool) -> None:
    """Raise `FileError` unless `path` holds, from `offset` on, the voxels that a header promises, whole."""
    try:
        expected = require_size(path, shape, itemsize, compressed, offset)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror or error}); the header names it as the file of the voxels") from error
    if compressed:
        inflate_checked(path, offset, expected)
        return
    with path.open("rb") as stream:
        stream.seek(offset + expected)
        read_end(stream, path)
