"""What made a result: the command, the versions, the machine, the seed and the hashes of the inputs."""

import contextlib
import datetime
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from transmodal.core.config import Config, validate
from transmodal.core.errors import ConfigError, FileError
from transmodal.core.files import read_json

RECORD_NAME = "record.json"
_PACKAGES = ("transmodal", "numpy", "scipy", "torch", "lightning-fabric", "SimpleITK", "nibabel", "zarr", "monai")


class Record(Config):
    """Provenance of the contents of a folder; written beside them as ``record.json``."""

    command: str
    created: str
    versions: dict[str, str]
    platform: str
    seed: int | None = None
    inputs: dict[str, str] = {}
    settings: dict[str, Any] = {}


def make_record(
    command: str, seed: int | None = None, inputs: dict[str, str] | None = None, settings: dict[str, Any] | None = None
) -> Record:
    """Describe the run of `command` now, on this machine.

    Parameters
    ----------
    command : str
        The verb, such as ``"train"``.
    seed : int, optional
    inputs : dict, optional
        Name of each input to its SHA-256.
    settings : dict, optional
        The resolved settings, as plain values.
    """
    return Record(
        command=command,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions=package_versions(),
        platform=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        seed=seed,
        inputs=inputs or {},
        settings=settings or {},
    )


def package_versions() -> dict[str, str]:
    """The version of each package that results depend on most, as far as it is installed."""
    return {name: version for name in _PACKAGES if (version := _version(name))}


def read_record(folder: Path) -> Record | None:
    """The record of a folder, or None if it has none.

    Raises
    ------
    FileError
        If it is no JSON.
    ConfigError
        If it is no record.
    """
    path = Path(folder) / RECORD_NAME
    return validate(Record, read_json(path), str(path)) if path.is_file() else None


def find_record(folder: Path) -> Record | None:
    """The record of a folder of which anyone may have made the contents; None as well if what is called so there is something else."""
    with contextlib.suppress(FileError, ConfigError):
        return read_record(folder)
    return None


def require_replaceable(note: Path, *commands: str) -> None:
    """Raise `FileError` unless there is no file, or one of the commands wrote it: a record, by itself or beside other facts."""
    if not note.exists():
        return
    found = read_json(note)
    records = [found, found.get("record"), found.get("Record")] if isinstance(found, dict) else []
    if not any(isinstance(record, dict) and record.get("command") in commands for record in records):
        raise FileError(f"{note}: was not written by {' or '.join(commands)}, and would be overwritten; choose another place, or move it")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
