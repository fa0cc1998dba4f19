"""Recipes: one TOML a training, with every value that matters; those of the published systems come with the package."""

import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import SerializeAsAny, model_validator

from transmodal.contracts import LearnedMethod, Method
from transmodal.core.config import Config, override, read_toml, validate
from transmodal.core.errors import ConfigError
from transmodal.core.volume import Direction
from transmodal.data.augment import Augmentation
from transmodal.data.sampling import Sampling, View
from transmodal.engine.predict import Prediction, Setting
from transmodal.engine.train import Training
from transmodal.imaging.intensity import Intensity, PercentileIntensity, WindowIntensity
from transmodal.imaging.preparation import Preparation
from transmodal.methods import METHODS


class Recipe(Config):
    """Everything that a training depends on but the data.

    Parameters
    ----------
    name, title, description : str
    reference : str
        The paper, where there is one.
    direction : {"mr2ct", "ct2mr"}
    guarded : bool
        Whether `synthesize` looks at each scan first, and refuses what is no whole head; see `transmodal.imaging.guard`.
    method : Config
        The ``[method]`` table: an instance of the `Settings` of the method that its ``name`` chooses.
    intensity : dict
        Tables ``[intensity.mr]`` and ``[intensity.ct]``.
    preparation : Preparation, optional
        How the dataset is to be made, where the method needs it made in a certain way: ``transmodal prepare --recipe`` follows it.
    view, sampling, augment, predict, train
        The tables of these names.
    """

    name: str
    title: str
    description: str
    reference: str = ""
    direction: Direction = "mr2ct"
    guarded: bool = False
    method: SerializeAsAny[Config]
    intensity: dict[str, Intensity] = {"mr": PercentileIntensity(), "ct": WindowIntensity(lower=-1024, upper=3071)}
    preparation: Preparation | None = None
    view: View = View(size=(128, 128))
    sampling: Sampling = Sampling()
    augment: Augmentation = Augmentation()
    predict: Prediction = Prediction()
    train: Training | None = None

    @model_validator(mode="after")
    def _whole_slices(self) -> "Recipe":
        if self.view.fit != "square" and any(intensity.kind == "slice" for intensity in self.intensity.values()):
            raise ValueError("intensity of kind 'slice' is that of whole slices; set view.fit = 'square'")
        return self


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(entry.name.removesuffix(".toml") for entry in _folder().iterdir() if entry.name.endswith(".toml"))


def load_recipe(source: str, assignments: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    source : str
        The name of a recipe of the package, or the path of a TOML file.
    assignments : sequence of str
        Values to replace, as ``train.steps=500``.

    Raises
    ------
    ConfigError
        If there is no such recipe, or a setting is unknown, missing or impossible.
    """
    values = override(_read_values(source), list(assignments))
    return parse_recipe({"name": Path(source).stem, **values}, f"recipe {source}")


def load_preparation(source: str | None, assignments: Sequence[str] = ()) -> Preparation:
    """Read the table ``[preparation]`` of a recipe.

    Parameters
    ----------
    source : str, optional
        As for `load_recipe`; by default the preparation that is usual.
    assignments : sequence of str
        Values to replace, as ``preparation.bias_correction=true``.

    Raises
    ------
    ConfigError
        If there is no such recipe, or a setting is unknown, impossible, or of another table.
    """
    astray = [text for text in assignments if not text.strip().startswith("preparation.")]
    if astray:
        raise ConfigError(f"--set {astray[0]}: prepare takes settings of [preparation] only, such as preparation.bias_correction=true")
    values = override({} if source is None else _read_values(source), list(assignments))
    where = "--set" if source is None else f"recipe {source}, [preparation]"
    return validate(Preparation, values.get("preparation", {}), where)


def _read_values(source: str) -> dict[str, Any]:
    if source.endswith(".toml"):
        return read_toml(Path(source))
    if source not in recipe_names():
        raise ConfigError(f"there is no recipe {source!r}; there are {', '.join(recipe_names())}, or give the path of a .toml file")
    with importlib.resources.as_file(_folder() / f"{source}.toml") as file:
        return read_toml(file)


def parse_recipe(values: dict[str, Any], where: str) -> Recipe:
    """Build a recipe from plain values; the class of the ``[method]`` table is chosen by its ``name``."""
    table = values.get("method")
    name = table.get("name") if isinstance(table, dict) else None
    if name not in METHODS:
        raise ConfigError(f"{where}: method.name = {name!r}; there are {', '.join(sorted(METHODS))}")
    settings = validate(METHODS[name].Settings, table, f"{where}, [method]")
    recipe = validate(Recipe, {**values, "method": settings}, where)
    if issubclass(METHODS[name], LearnedMethod) and recipe.train is None:
        raise ConfigError(f"{where}: the table [train] with steps and batch_size is required, because {name} trains a network")
    return recipe


def build_method(recipe: Recipe, setting: Setting) -> Method:
    """The untrained method of a recipe."""
    name: str = getattr(recipe.method, "name")  # noqa: B009
    return METHODS[name](recipe.method, setting)


def _folder() -> Any:
    return importlib.resources.files("transmodal") / "recipes"
