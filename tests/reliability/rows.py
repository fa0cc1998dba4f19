"""What a row of the corpus of bad input is, and the good head that rows are made from."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from phantoms import phantom, write_subject
from transmodal.core.volume import Volume

Command = Literal["synthesize", "prepare", "evaluate", "train"]
Make = Callable[[Path], Path]


@dataclass(frozen=True)
class Row:
    """One case.

    Parameters
    ----------
    make : callable
        Writes the files into a folder, and returns the file (or folder) that the message must name.
    code : int
        The exit code; 0 where the input is valid and must work.
    word : str
        A pattern in the message.
    command : str
        Which command reads it.
    """

    make: Make
    code: int
    word: str = ""
    command: Command = "synthesize"


VALID = 0
FILE, GEOMETRY, DATA, CONFIG, CHECKPOINT = 3, 4, 5, 6, 7
# Commands that go through several subjects end with this when one of them fails.
SOME_FAILED = 2


@cache
def head() -> dict[str, Volume]:
    """A phantom head; in 16-bit integers, so that the offsets of its file are simple."""
    volumes = phantom(0)
    return {**volumes, "mr": volumes["mr"].with_array(np.rint(volumes["mr"].array).astype(np.int16))}


def subject(names: str = "mr ct mask", /, bad: str = "", **changes: Volume) -> Make:
    """A subject of several scans, some replaced; `bad` is the one that the message must name."""

    def make(folder: Path) -> Path:
        write_subject(folder, {**{name: head()[name] for name in names.split()}, **changes})
        return folder / f"{bad}.nii.gz" if bad else folder

    return make
