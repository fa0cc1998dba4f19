"""What a run is of: the note that training begins a run with, and everything that reads one begins with too."""

from pathlib import Path
from typing import Any, Literal

from transmodal.core.config import Config, validate
from transmodal.core.files import read_json, write_json
from transmodal.data.splits import Split
from transmodal.engine.predict import Setting

RUN_NAME = "run.json"


class Run(Config):
    """What a run is of: the resolved recipe, what prediction must know, and who was trained on.

    Parameters
    ----------
    recipe : dict
        Plain values of the recipe.
    setting : Setting
    split : Split
    dataset : str
        SHA-256 of the dataset's manifest.
    begin : str, optional
        SHA-256 of the weights that it began with, if those were another run's.
    """

    version: Literal[2] = 2
    recipe: dict[str, Any]
    setting: Setting
    split: Split
    dataset: str
    begin: str | None = None


def write_run(folder: Path, run: Run) -> None:
    """Write what the run is of, whole or not at all."""
    write_json(folder / RUN_NAME, run.model_dump(mode="json"))


def read_run(folder: Path) -> Run:
    """Read what a run is of.

    Raises
    ------
    FileError
        If the folder is not a run.
    ConfigError
        If it was written by another version, or has been changed.
    """
    path = Path(folder) / RUN_NAME
    return validate(Run, read_json(path), str(path))
