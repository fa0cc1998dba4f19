"""From a dataset to a set of atlases, which is a run like any other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transmodal.core.errors import ConfigError, DataError
from transmodal.core.jobs import HERE, Workers
from transmodal.data.manifest import read_manifest
from transmodal.data.splits import Split
from transmodal.engine.hardware import choose_device
from transmodal.imaging.brain import BrainMeasures, measure_brain
from transmodal.methods.atlas import Atlas, AtlasSettings
from transmodal.methods.atlas_registration import AtlasHead
from transmodal.methods.recipe import Recipe
from transmodal.methods.runs import load_method
from transmodal.workflows.train import train


@dataclass(frozen=True)
class AtlasSummary:
    """What to check of an atlas.

    Parameters
    ----------
    id : str
    brain : BrainMeasures or None
        None where the recipe needs no brain and none was there.
    brain_found : bool
        Whether the mask of the brain was made, because none was given.
    bone_litres : float
    """

    id: str
    brain: BrainMeasures | None
    brain_found: bool
    bone_litres: float


def build_atlases(
    recipe: Recipe, dataset: Path, run: Path, *, subjects: Sequence[str] | None = None, workers: Workers = HERE
) -> list[AtlasSummary]:
    """Make a set of atlases of some, or all, pairs of a dataset.

    Parameters
    ----------
    recipe : Recipe
        Whose method is ``atlas``.
    dataset : Path
        A folder written by `prepare`.
    run : Path
        The folder to write: a run, which `synthesize` takes as a model.
    subjects : sequence of str, optional
        Which are to be atlases; by default all that have an MR and a CT.
    workers : Workers
        Who registers atlases to one another, where masks of brains are missing.

    Returns
    -------
    list of AtlasSummary

    Raises
    ------
    ConfigError
        If the recipe is of another method.
    DataError
        If a subject does not exist or has no pair, or no brain can be found.
    """
    if not isinstance(recipe.method, AtlasSettings):
        raise ConfigError(f"recipe {recipe.name}: its method is no set of atlases; take atlas-affine, or one whose method.name is atlas")
    manifest = read_manifest(dataset)
    pairs = [subject.id for subject in manifest.subjects if subject.paired]
    lacking = [name for name in subjects or () if not manifest.subject(name).paired]
    if lacking:
        raise DataError(f"{dataset}: {', '.join(lacking)} has no pair of MR and CT, which an atlas needs")
    if not pairs:
        raise DataError(f"{dataset}: no subject has both an MR and a CT, which an atlas needs")
    chosen = tuple(subjects or pairs)
    train(recipe, dataset, run, resume=True, split=Split(train=chosen, validation=(), test=()), workers=workers)
    method = load_method(run, choose_device("cpu"))
    assert isinstance(method, Atlas)
    return [_summarize(head, "brain" not in manifest.subject(head.id).images) for head in method.heads]


def _summarize(head: AtlasHead, brain_found: bool) -> AtlasSummary:
    voxel_mm3 = abs(float(np.linalg.det(head.bone.affine[:3, :3])))
    brain = None if head.brain is None else measure_brain(head.brain)
    return AtlasSummary(head.id, brain, brain_found, float(head.bone.array.sum()) * voxel_mm3 * 1e-6)


def describe_atlases(summaries: Sequence[AtlasSummary]) -> str:
    """A table for the terminal."""
    lines = ["atlas           brain, litres  symmetry  mask of the brain  bone, litres"]
    for summary in summaries:
        brain = summary.brain
        measures = "            –         –" if brain is None else f"{brain.litres:13.2f}{brain.symmetry:10.2f}"
        origin = "–" if brain is None else ("found" if summary.brain_found else "given") + (", cut" if brain.cut else "")
        lines.append(f"{summary.id:16}{measures}  {origin:17}{summary.bone_litres:14.2f}")
    return "\n".join(lines)
