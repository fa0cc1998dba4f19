"""The whole flow on simulated heads: simulate, prepare, train, synthesize held-out heads, evaluate, report."""

import time
from pathlib import Path

from rich.console import Console

from transmodal.imaging.preparation import Preparation
from transmodal.methods.recipe import load_recipe
from transmodal.workflows.evaluate import evaluate
from transmodal.workflows.prepare import prepare
from transmodal.workflows.report import report
from transmodal.workflows.simulate import simulate
from transmodal.workflows.synthesize import synthesize
from transmodal.workflows.train import train

SUBJECTS = 12
SHAPE = (96, 112, 96)
SPACING_MM = 2.0
# The baselines take the same split, so that all three are tested on the same heads.
RECIPES = ("unet2d-quick", "baseline-threshold", "baseline-constant")
SPLIT = ("train.test_fraction=0.25", "train.validation_fraction=0.1")


def demo(out: Path, *, seed: int = 0) -> Path:
    """Run the demonstration.

    Parameters
    ----------
    out : Path
        The folder to write. What an earlier call has finished there is kept.
    seed : int
        Of the heads, the split and the training.

    Returns
    -------
    Path
        The report.
    """
    console = Console(stderr=True, highlight=False)
    began = time.monotonic()
    heads, dataset = out / "heads", out / "dataset"

    def announce(text: str) -> None:
        console.print(f"[bold]{text}[/bold] [dim]({time.monotonic() - began:.0f} s)[/dim]", soft_wrap=True)

    announce(f"Simulating {SUBJECTS} heads, each with an MR and a CT")
    simulate(heads, subjects=SUBJECTS, seed=seed, shape=SHAPE, spacing_mm=SPACING_MM)
    announce("Preparing them as a dataset")
    prepare(heads, dataset, Preparation(spacing_mm="native"), layout="synthrad")
    for name in RECIPES:
        announce(f"Training {name}")
        train(load_recipe(name, [*_training(name), f"train.seed={seed}"]), dataset, out / "runs" / name, resume=True)
    for name in RECIPES:
        announce(f"Making CTs of the held-out heads with {name}, and scoring them")
        synthesize(heads, out / "predictions" / name, out / "runs" / name, part="test", layout="synthrad")
        evaluate(out / "predictions" / name, heads, out / "scores" / name)
    page = out / "report.html"
    report([*(out / "scores" / name for name in RECIPES), out / "runs" / RECIPES[0]], page, title="transmodal demonstration")
    announce("Done")
    return page


def _training(recipe: str) -> list[str]:
    """The split; a recipe without a training needs the two lengths as well."""
    needed = [] if load_recipe(recipe).train else ["train.steps=1", "train.batch_size=1"]
    return [*needed, *SPLIT]
