"""The models that come with the package: runs without their checkpoints, with weights in half precision and a card."""

from importlib import resources
from pathlib import Path

from transmodal.core.errors import CheckpointError, FileError
from transmodal.core.files import sha256
from transmodal.engine.run import RUN_NAME
from transmodal.engine.train import WEIGHTS_NAME

DEFAULT_MODEL = "any-mr"
CARD_NAME = "card.md"
# One line as sha256sum writes it, so that it can be checked without the package.
HASH_NAME = "weights.sha256"
FOLDER = Path(str(resources.files("transmodal"))) / "models"


def builtin_models() -> dict[str, Path]:
    """The folder of each built-in model by its name."""
    return {path.parent.name: path.parent for path in sorted(FOLDER.glob(f"*/{RUN_NAME}"))}


def find_model(model: str | Path) -> Path:
    """The folder of a model: that of a run, or of a built-in model that is named, whose weights are checked.

    A folder of that name comes before the built-in model.

    Raises
    ------
    FileError
        If there is neither a folder nor a built-in model of that name.
    CheckpointError
        If the weights of the built-in model are not those that it came with.
    """
    if Path(model).exists():
        return Path(model)
    built_in = builtin_models().get(str(model))
    if built_in is None:
        raise FileError(f"{model}: no folder of a run, and no built-in model, of which there are {', '.join(builtin_models())}")
    expected = (built_in / HASH_NAME).read_text().split()[0]
    weights = built_in / WEIGHTS_NAME
    if not weights.is_file() or sha256(weights) != expected:
        raise CheckpointError(f"{weights}: not the weights that this version of transmodal came with; install it again")
    return built_in
