"""Files that are whole or absent: atomic writes, hashes, and one worker per folder."""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from transmodal.core.errors import BusyError, FileError

PARTIAL_SUFFIX = ".transmodal-partial"
LOCK_NAME = ".transmodal-lock"


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target` that takes its place when the block ends well.

    A crash, a kill or an exception leaves `target` as it was. The temporary file keeps the suffixes of `target`, because many
    writers choose the format by them.

    Raises
    ------
    FileError
        If the folder cannot be made or written, or the disk is full.
    """
    target = Path(target)
    with _writing(target) as prefix:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=prefix, suffix="".join(target.suffixes[-2:]))
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            _take_place(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def require_room(target: Path) -> None:
    """Raise `FileError` if it can be known already that `target` cannot be written; for asking before long work."""
    folder = next(path for path in Path(target).absolute().parents if path.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise FileError(f"{target}: cannot be written, because {folder} is read-only or no folder; choose another place")
    if shutil.disk_usage(folder).free == 0:
        raise FileError(f"{target}: cannot be written, because the disk is full; make room, or choose another place")


def require_apart(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise `FileError` if one of the files to be written is one of those that are read."""
    read = {path.resolve() for path in inputs}
    for output in outputs:
        if output.resolve() in read:
            raise FileError(f"{output}: is what the result is made of, and would be overwritten; choose another name for the result")


def require_new_folder(target: Path) -> None:
    """Raise `FileError` unless there is nothing at `target`, or an empty folder."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise FileError(f"{target}: there is something already; name a new folder, or remove that one")


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `target` that takes its place, with the files put into it, when the block ends well.

    Raises
    ------
    FileError
        If there is something at `target` already, other than an empty folder, or the disk cannot be written.
    """
    require_new_folder(target)
    with _writing(target) as prefix:
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=prefix))
        try:
            yield temporary
            for path in temporary.iterdir():
                _flush(path)
            temporary.chmod(0o777 & ~_umask())
            _take_place(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[str]:
    """Make room for a temporary beside `target`; yield what its name begins with."""
    with refusals(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep_partials(target.parent, target.name)
        yield f".{os.getpid()}{PARTIAL_SUFFIX}.{target.name[:60]}."


@contextlib.contextmanager
def refusals(target: Path) -> Iterator[None]:
    """Turn what the system refuses while `target` is written, such as room on the disk, into a `FileError`."""
    try:
        yield
    except OSError as error:
        raise FileError(f"{target}: cannot be written ({error.strerror or error}); check the space and the permissions there") from error


def _take_place(temporary: Path, target: Path) -> None:
    """Put a finished temporary in the place of `target`, on the disk before anyone sees it."""
    _flush(temporary)
    temporary.replace(target)
    _flush(target.parent)


def write_text(target: Path, text: str) -> None:
    """Write `text` to `target` as UTF-8, whole or not at all."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Write `value` to `target` as indented JSON, whole or not at all."""
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n")


def read_json(source: Path) -> Any:
    """Read JSON, or raise `FileError` naming the file."""
    try:
        return json.loads(Path(source).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileError(f"{source}: there is no such file") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FileError(f"{source}: not readable as JSON ({error})") from error


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of the bytes of a file, or `FileError` where they cannot be read."""
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        hint = "it links to what is not there; get its contents first" if Path(path).is_symlink() else "check the name and the permissions"
        raise FileError(f"{path}: cannot be read ({error.strerror or error}); {hint}") from error


def digest_files(paths: Iterable[Path]) -> str:
    """SHA-256 over the hashes of files, whatever they are called and wherever they lie."""
    return hashlib.sha256("".join(sorted(sha256(path) for path in paths)).encode()).hexdigest()


def folders_below(folder: Path) -> list[Path]:
    """A folder and all folders below it, sorted; one that links lead to as well, or back to, is there only once."""
    found: dict[Path, Path] = {}
    for path in sorted(path for path in (folder, *folder.rglob("*")) if path.is_dir()):
        found.setdefault(path.resolve(), path)
    return list(found.values())


def sweep_partials(folder: Path, name: str = "") -> None:
    """Remove what killed writers left in `folder`: partial files whose process is gone (of the target `name`, if one is given)."""
    for path in folder.glob(f".*{PARTIAL_SUFFIX}.{glob_escape(name[:60])}*"):
        pid = path.name[1:].split(PARTIAL_SUFFIX)[0]
        if pid.isdigit() and _alive(int(pid)):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def glob_escape(text: str) -> str:
    """Escape the characters that have a meaning in a glob pattern."""
    import glob

    return glob.escape(text)


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; a second one is refused, and a lock whose owner is gone is taken over.

    Raises
    ------
    BusyError
        If a living process on this machine, or any process on another one, holds the folder.
    """
    folder = Path(folder)
    lock = folder / LOCK_NAME
    _acquire(lock)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _acquire(lock: Path) -> None:
    me = {"pid": os.getpid(), "host": socket.gethostname()}
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            with contextlib.suppress(FileExistsError):
                handle = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                with os.fdopen(handle, "w") as stream:
                    json.dump(me, stream)
                return
            if not _is_stale(lock):
                break
            lock.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"{lock.parent}: cannot be written ({error.strerror or error}); check the permissions there") from error
    raise BusyError(
        f"{lock.parent}: in use by another process ({_read_owner(lock)}); wait for it to end, or delete {lock} if it no longer runs"
    )


def _read_owner(lock: Path) -> dict[str, Any]:
    try:
        owner = json.loads(lock.read_text())
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _is_stale(lock: Path) -> bool:
    owner = _read_owner(lock)
    if not owner:
        return False  # being written at this moment, or not ours: only its owner or the user may remove it
    return owner.get("host") == socket.gethostname() and not _alive(int(owner.get("pid", -1)))


def _alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush(path: Path) -> None:
    """Ask the system to put a file, or the entries of a folder, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
