"""Demonstrations on simulated heads: of the built-in model, and of the whole way from training to a report."""

import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from transmodal.imaging.preparation import Preparation
from transmodal.methods.builtin import DEFAULT_MODEL
from transmodal.methods.recipe import load_recipe
from transmodal.workflows.evaluate import evaluate
from transmodal.workflows.prepare import prepare
from transmodal.workflows.report import report
from transmodal.workflows.show import show
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
    """Make the CT of a simulated head with the built-in model, and judge it.

    Parameters
    ----------
    out : Path
        The folder to write. What an earlier call has finished there is kept.
    seed : int
        Of the head.

    Returns
    -------
    Path
        The report. Beside it is a picture, ``head.png``.
    """
    announce = _announcer()
    heads, predictions, scores, page = out / "head", out / "prediction", out / "scores", out / "report.html"
    announce("Simulating a head, with an MR and the CT that belongs to it")
    simulate(heads, subjects=1, seed=seed, spacing_mm=1.0)
    announce(f"Making its CT of the MR alone, with the built-in model {DEFAULT_MODEL}")
    (synthetic,) = synthesize(heads, predictions, layout="synthrad", uncertainty=True)
    announce("Comparing it with the true one")
    evaluate(predictions, heads, scores, protocols=("synthrad2023", "tissue", "uncertainty"))
    report([scores], page, title="A CT made of an MR alone")
    subject = next(heads.rglob("mr.nii.gz")).parent
    show([subject / "mr.nii.gz", synthetic], out / "head.png", reference=subject / "ct.nii.gz")
    announce("Done")
    return page


def walk(out: Path, *, seed: int = 0) -> Path:
    """Go the whole way of training: simulate heads, prepare them, train three methods, apply and score them on heads held out.

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
    announce, heads, dataset = _announcer(), out / "heads", out / "dataset"
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


def _announcer() -> Callable[[str], None]:
    """Tells what comes next, and how many seconds have gone."""
    console, began = Console(stderr=True, highlight=False), time.monotonic()
    return lambda text: console.print(f"[bold]{text}[/bold] [dim]({time.monotonic() - began:.0f} s)[/dim]", soft_wrap=True)


def _training(recipe: str) -> list[str]:
    """The split; a recipe without a training needs the two lengths as well."""
    needed = [] if load_recipe(recipe).train else ["train.steps=1", "train.batch_size=1"]
    return [*needed, *SPLIT]
