"""The errors that a user can meet. Each says what is wrong, where, and what to do about it.

Every class carries the exit code with which the command line ends when the error reaches it.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path


class TransmodalError(Exception):
    """Base of every error that is the user's to mend; shown as one message, without a traceback."""

    exit_code = 1


class CasesFailed(TransmodalError):
    """Some cases of many could not be done; the results of the others are there."""

    exit_code = 2


class FileError(TransmodalError):
    """A file that cannot be read or written: damaged, truncated, of another format, or out of bounds."""

    exit_code = 3


class GeometryError(TransmodalError):
    """A grid that is not usable, or two grids that should be one and are not."""

    exit_code = 4


class DataError(TransmodalError):
    """Data that are readable but not usable: an empty mask, a constant image, a case without its pair."""

    exit_code = 5


class ConfigError(TransmodalError):
    """A recipe or option with an unknown key, a wrong type or an impossible value."""

    exit_code = 6


class CheckpointError(TransmodalError):
    """Weights or training state that are missing, damaged, or belong to another architecture."""

    exit_code = 7


class TrainingError(TransmodalError):
    """Training that cannot go on, such as a loss that is not a number."""

    exit_code = 8


class BusyError(TransmodalError):
    """A folder that another process is working in."""

    exit_code = 9


class OutOfMemory(TransmodalError):
    """Work that needs more memory than this process can have."""

    exit_code = 10


class Interrupted(TransmodalError):
    """Work that SIGINT or SIGTERM ended at a clean boundary and that can be resumed."""

    exit_code = 130


@contextlib.contextmanager
def about(*paths: Path) -> Iterator[None]:
    """Let whatever goes wrong in the block name the file that it is about, and running out of memory be the user's to mend.

    Parameters
    ----------
    *paths : Path
        The files or folders that the block reads, the one to blame first.

    Raises
    ------
    TransmodalError
        Of the class that the block raised, with the first path before its message unless that names one of them already.
    OutOfMemory
        If memory could not be had.
    """
    try:
        yield
    except TransmodalError as error:
        if any(str(path) in str(error) for path in paths):
            raise
        raise type(error)(f"{paths[0]}: {error}") from error
    except MemoryError as error:
        raise OutOfMemory(
            f"{paths[0]}: there is not enough memory for it ({str(error) or 'no more could be had'}); "
            "close other programs, resample or crop it, or use a larger machine"
        ) from error
