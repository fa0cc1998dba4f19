"""From a dataset and a recipe to a run."""

import math
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric

from transmodal.contracts import FittedMethod, LearnedMethod
from transmodal.core.errors import ConfigError, DataError, FileError
from transmodal.core.files import LOCK_NAME, folder_lock, sha256, sweep_partials, write_json
from transmodal.core.jobs import HERE, Workers
from transmodal.core.record import RECORD_NAME, make_record, require_replaceable
from transmodal.core.volume import target_of
from transmodal.data.augment import Augmentation
from transmodal.data.extra_images import ExtraImages
from transmodal.data.manifest import MANIFEST_NAME, Manifest
from transmodal.data.sampling import Sampler, Sampling, View
from transmodal.data.splits import Split, people_of, random_split, subjects_of
from transmodal.data.store import Dataset
from transmodal.engine.checkpoint import load_latest, load_tree, load_weights
from transmodal.engine.predict import Setting
from transmodal.engine.run import RUN_NAME, Run, read_run, write_run
from transmodal.engine.train import WEIGHTS_NAME, Training, make_fabric
from transmodal.engine.train import train as train_networks
from transmodal.imaging.intensity import IntensityStatistics
from transmodal.imaging.preparation import TEMPLATE_NAME, copy_template
from transmodal.methods.builtin import builtin_models, find_model
from transmodal.methods.recipe import Recipe, build_method
from transmodal.methods.runs import save_fitted


def train(
    recipe: Recipe,
    dataset: Path,
    run: Path,
    *,
    resume: bool = False,
    begin: Path | None = None,
    split: Split | None = None,
    devices: int | str = "auto",
    nodes: int = 1,
    accelerator: str = "auto",
    workers: Workers = HERE,
    quiet: bool = False,
) -> Path:
    """Train, or fit, the method of a recipe.

    Parameters
    ----------
    recipe : Recipe
    dataset : Path
        A folder written by `prepare`.
    run : Path
        The folder to write.
    resume : bool
        Go on from the latest checkpoint of `run`; with none there, begin.
    begin : Path, optional
        Another run, or the name of a built-in model, whose weights the networks begin with; they must be of the same architecture.
    split : Split, optional
        Who is in which part; by default drawn by the fractions and the seed of ``recipe.train``.
    devices, nodes, accelerator
        See `transmodal.engine.train.make_fabric`.
    workers : Workers
        Who does what can be shared, as the registrations of atlases.
    quiet : bool
        No progress bar, and no word on a dataset that was prepared otherwise than the recipe asks for.

    Returns
    -------
    Path
        The run.

    Raises
    ------
    ConfigError
        If the run holds another training, or one that was not asked to be resumed; or the network cannot take patches of this size.
    FileError, CheckpointError
        If there are no weights for the networks to begin with, or they are not of their architecture.
    """
    data = Dataset(dataset)
    other = other_preparation(recipe, data.manifest)
    if other is not None and not quiet:
        print(f"transmodal: {other}", file=sys.stderr)
    training = recipe.train or Training(steps=1, batch_size=1)
    split = split or _draw_split(data.manifest, recipe, training)
    setting = _setting(recipe, data.manifest, split)
    description = Run(
        recipe=recipe.model_dump(mode="json"),
        setting=setting,
        split=split,
        dataset=sha256(Path(dataset) / MANIFEST_NAME),
        begin=None if begin is None else sha256(_weights_of(begin)),
    )
    torch.manual_seed(training.seed)
    method = build_method(recipe, setting)
    method.folder, method.workers = Path(run), workers
    if isinstance(method, FittedMethod):
        if begin is not None:
            raise ConfigError(f"--from {begin}: the recipe {recipe.name} trains no networks; leave it out")
        with folder_lock(run):
            _open_run(run, description, training.seed, resume, data)
            method.fit(data, split.train)
            save_fitted(run, method)
        return run
    assert isinstance(method, LearnedMethod)
    _require_divisible(recipe.view, method)
    if load_latest(run, lambda _: None) is None:
        method.initialize()
        if begin is not None:
            _take_weights(method, begin)
    fabric = make_fabric(training, devices, nodes, accelerator)
    _train_networks(method, data, recipe, description, run, resume, begin, fabric, quiet)
    return run


def _weights_of(begin: Path) -> Path:
    path = find_model(begin) / WEIGHTS_NAME
    if not path.is_file():
        raise FileError(f"--from {begin}: neither a run with {WEIGHTS_NAME} nor one of the built-in models: {', '.join(builtin_models())}")
    return path


def _take_weights(method: LearnedMethod, begin: Path) -> None:
    """Put the weights of another run, or of a built-in model, into the networks."""
    weights = load_tree(_weights_of(begin))
    for name, network in method.networks.items():
        load_weights(network, weights.get(name, {}), f"--from {begin}: {name}")
    method.restart()


def _require_divisible(view: View, method: LearnedMethod) -> None:
    """Raise `ConfigError` unless patches can be halved as often as the networks halve them."""
    stride = max(int(getattr(network, "stride", 1)) for network in method.networks.values())
    for name, size in {"size": view.size, "first_size": view.first_size or ()}.items():
        if any(n % stride for n in size):
            fitting = ", ".join(str(math.ceil(n / stride) * stride) for n in size)
            raise ConfigError(
                f"view.{name} = [{', '.join(map(str, size))}]: the network needs multiples of {stride}; set it to [{fitting}]"
            )


def _train_networks(
    method: LearnedMethod,
    data: Dataset,
    recipe: Recipe,
    description: Run,
    run: Path,
    resume: bool,
    begin: Path | None,
    fabric: Fabric,
    quiet: bool,
) -> None:
    training = recipe.train
    assert training is not None
    fabric.launch()
    extra_images = method.extra_images(data, (*description.split.train, *description.split.validation))
    sampler = _sampler(recipe, method, data, description.split.train, recipe.augment, recipe.sampling, extra_images)
    validation = _validation_sampler(recipe, method, data, description.split.validation, extra_images)
    # Only the first process writes in the folder; the others begin when it has been opened.
    with folder_lock(run) if fabric.is_global_zero else nullcontext():
        if fabric.is_global_zero:
            _open_run(run, description, training.seed, resume, data, begin)
            if extra_images is not None:
                extra_images.make()
        fabric.barrier()
        train_networks(fabric, method, sampler, validation, training, run, quiet)


def _sampler(
    recipe: Recipe,
    method: LearnedMethod,
    data: Dataset,
    subjects: tuple[str, ...],
    augmentation: Augmentation,
    sampling: Sampling,
    extra_images: ExtraImages | None,
    validating: bool = False,
) -> Sampler:
    assert recipe.train is not None
    target, view = method.learned_target(data, subjects), recipe.view
    if validating:  # by the images that there are, as they will be seen
        target, view = target and replace(target, alone=False), view.model_copy(update={"first_steps": 0})
    choices = (recipe.direction, view, sampling, augmentation, recipe.intensity, recipe.train.seed)
    return Sampler(data, subjects, *choices, target=target, extra_images=extra_images)


def _validation_sampler(
    recipe: Recipe, method: LearnedMethod, data: Dataset, subjects: tuple[str, ...], extra_images: ExtraImages | None
) -> Sampler | None:
    """Of the subjects that are kept aside: pairs where there are any, also for a training that must not see any."""
    if not subjects:
        return None
    for sampling in (Sampling(pairing="paired"), recipe.sampling):
        with suppress(ConfigError):
            return _sampler(recipe, method, data, subjects, Augmentation(), sampling, extra_images, validating=True)
    print(f"transmodal: no validation: of {', '.join(subjects)}, who are kept aside, no sample can be drawn", file=sys.stderr)
    return None


def _open_run(run: Path, description: Run, seed: int, resume: bool, data: Dataset, begin: Path | None = None) -> None:
    """Begin a run in an empty folder, or make sure that the one that is there is the same."""
    for folder in (run, run / "checkpoints"):
        sweep_partials(folder)
    if (run / RUN_NAME).is_file():
        if not resume:
            raise ConfigError(f"{run}: holds a run already; give --resume to go on with it, or another folder")
        _require_same(read_run(run), description, run)
        return
    if run.is_dir() and any(path.name not in (LOCK_NAME, RECORD_NAME, TEMPLATE_NAME) for path in run.iterdir()):
        raise FileError(f"{run}: is neither empty nor a run; give another folder")
    require_replaceable(run / RECORD_NAME, "train")
    inputs = {"dataset": description.dataset} | ({} if description.begin is None else {str(begin): description.begin})
    record = make_record("train", seed=seed, inputs=inputs, settings=description.recipe)
    write_json(run / RECORD_NAME, record.model_dump(mode="json"))
    copy_template(description.setting.preparation, data.folder, run)
    write_run(run, description)  # last: what went before is written anew if it is absent


def _require_same(old: Run, new: Run, run: Path) -> None:
    if old.begin != new.begin:
        began = "at random" if old.begin is None else f"with the weights of SHA-256 {old.begin}"
        raise ConfigError(f"{run}: began {began}; {'leave --from out' if old.begin is None else 'give the same --from'}")
    faults = [name for name in Run.model_fields if getattr(old, name) != getattr(new, name)]
    if faults:
        raise ConfigError(
            f"{run}: cannot be resumed, because {' and '.join(faults)} {'is' if len(faults) == 1 else 'are'} not what the run began with; "
            "give the same recipe, settings and dataset, or another folder"
        )


def other_preparation(recipe: Recipe, manifest: Manifest) -> str | None:
    """What to say of a dataset that was prepared otherwise than the recipe asks for; it may be trained on, but not unawares."""
    if recipe.preparation is None:
        return None
    wanted, there = recipe.preparation.model_dump(exclude={"template"}), manifest.preparation.model_dump(exclude={"template"})
    others = [name for name, value in wanted.items() if there[name] != value]
    if (recipe.preparation.template is None) != (manifest.preparation.template is None):
        others.append("template")
    if not others:
        return None
    return (
        f"the dataset was prepared otherwise than the recipe {recipe.name} asks for ({', '.join(others)}); "
        f"to follow it, prepare with --recipe {recipe.name}"
    )


def _draw_split(manifest: Manifest, recipe: Recipe, training: Training) -> Split:
    needed = {"mr", "ct"} if recipe.sampling.pairing == "paired" else set()
    people = people_of(subject for subject in manifest.subjects if needed <= subject.images.keys())
    if not people:
        raise DataError("no subject of the dataset has both an MR and a CT, which this recipe needs")
    return subjects_of(random_split(list(people), training.validation_fraction, training.test_fraction, training.seed), people)


def _setting(recipe: Recipe, manifest: Manifest, split: Split) -> Setting:
    statistics = {modality: _typical(manifest, split.train, modality) for modality in ("mr", "ct")}
    target = target_of(recipe.direction)
    if statistics[target] is None:
        raise DataError(f"none of the {len(split.train)} training subjects has a {target.upper()}, which the recipe is to make")
    return Setting(
        direction=recipe.direction,
        preparation=manifest.preparation,
        intensity=recipe.intensity,
        statistics={modality: found for modality, found in statistics.items() if found is not None},
        view=recipe.view,
        prediction=recipe.predict,
    )


def _typical(manifest: Manifest, subjects: Sequence[str], modality: str) -> IntensityStatistics | None:
    """The mean of each number over the images of one modality; None where there are none."""
    images = [manifest.subject(name).images.get(modality) for name in subjects]
    found = [image.statistics for image in images if image is not None and image.statistics is not None]
    if not found:
        return None
    return IntensityStatistics(
        mean=float(np.mean([s.mean for s in found])),
        sd=float(np.mean([s.sd for s in found])),
        percentiles=tuple(np.mean([s.percentiles for s in found], axis=0).tolist()),
    )
