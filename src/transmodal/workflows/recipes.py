"""What recipes there are."""

import json

import torch

from transmodal.contracts import LearnedMethod
from transmodal.engine.predict import Setting
from transmodal.imaging.intensity import IntensityStatistics
from transmodal.imaging.preparation import Preparation
from transmodal.methods.recipe import Recipe, build_method, load_recipe, recipe_names
from transmodal.networks.summary import count_convolutions, count_parameters


def show_recipes(*, details: bool, as_json: bool) -> None:
    """Print every recipe of the package: name, title, description; with `details` also the size of its networks."""
    loaded = [load_recipe(name) for name in recipe_names()]
    if as_json:
        rows = [{**recipe.model_dump(mode="json"), **({"networks": _networks(recipe)} if details else {})} for recipe in loaded]
        print(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("recipe", "what it is", *(["networks"] if details else []), box=None, header_style="bold")
    for recipe in loaded:
        sizes = "\n".join(
            f"{name}: {size['convolutions']} convolutions, {size['parameters']:,} values" for name, size in _networks(recipe).items()
        )
        table.add_row(recipe.name, f"{recipe.title}\n{recipe.description}\n", *([sizes] if details else []))
    Console(highlight=False).print(table)


def _networks(recipe: Recipe) -> dict[str, dict[str, int]]:
    """Layers and trainable values of each network of a recipe."""
    statistics = IntensityStatistics(mean=0, sd=1, percentiles=(0.0,) * 16)
    setting = Setting(
        direction=recipe.direction,
        preparation=Preparation(),
        intensity=recipe.intensity,
        statistics={"mr": statistics, "ct": statistics},
        view=recipe.view,
        prediction=recipe.predict,
    )
    with torch.device("meta"):  # counted, not filled with random numbers
        method = build_method(recipe, setting)
    if not isinstance(method, LearnedMethod):
        return {}
    return {
        name: {"convolutions": count_convolutions(network), "parameters": count_parameters(network)}
        for name, network in method.networks.items()
    }
