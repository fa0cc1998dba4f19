"""Tables of subjects: comma- or tab-separated text with a header, whose mistakes are named with their line."""

import csv
from pathlib import Path

from transmodal.core.errors import DataError, FileError
from transmodal.imaging.layouts.subjects import Attributes, number_or_text

_ABSENT = {"", "n/a"}


def read_table(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Read the rows of a table with their lines in the file; cells that are empty or ``n/a`` are left out.

    Columns are separated by tabs in ``.tsv``, otherwise by commas (or semicolons, where the header has no comma). Their names are taken
    in small letters.

    Raises
    ------
    FileError
        If the file cannot be read as text, a column is named twice, or a row has more or fewer cells than the header.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            header = stream.readline()
            stream.seek(0)
            reader = csv.reader(stream, delimiter=_delimiter(path, header), strict=True)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"{path}: cannot be read as a table ({error}); save it as UTF-8 text") from error
    if not rows:
        raise FileError(f"{path}: an empty table; its first line names the columns")
    columns = [name.lower() for name in rows[0][1]]
    _require_distinct(columns, path)
    return [(line, _row(columns, cells, f"{path}, line {line}")) for line, cells in rows[1:]]


def _delimiter(path: Path, header: str) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    return ";" if ";" in header and "," not in header else ","


def _require_distinct(columns: list[str], path: Path) -> None:
    double = sorted({name for name in columns if columns.count(name) > 1})
    if double or "" in columns:
        raise FileError(f"{path}, line 1: every column needs a name of its own; these are {', '.join(columns)}")


def _row(columns: list[str], cells: list[str], where: str) -> dict[str, str]:
    if len(cells) != len(columns):
        raise FileError(f"{where}: {len(cells)} cells, and the header names {len(columns)} columns; quote what holds a separator")
    return {name: cell for name, cell in zip(columns, cells, strict=True) if cell.lower() not in _ABSENT}


def read_attributes(path: Path, key: str, rename: dict[str, str] | None = None) -> dict[str, Attributes]:
    """Read a table of attributes by subject.

    Parameters
    ----------
    path : Path
    key : str
        The column that names the subject.
    rename : dict, optional
        Attribute by the name of its column, where they differ.

    Raises
    ------
    FileError
        If the table is not readable, or has no such column.
    DataError
        If a row names no subject, or one that another row has named.
    """
    found: dict[str, Attributes] = {}
    for line, row in read_table(path):
        subject = row.pop(key, None)
        if subject is None:
            raise DataError(f"{path}, line {line}: the column {key!r} is absent or empty; it names the subject")
        if subject in found:
            raise DataError(f"{path}, line {line}: {subject} has a row above already; leave one")
        found[subject] = {(rename or {}).get(name, name): number_or_text(text) for name, text in row.items()}
    return found
