"""What a study is: the TOML of one, and the trainings that it comes to on a dataset."""

import importlib.resources
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from transmodal.core.config import Config, read_toml, validate
from transmodal.core.errors import ConfigError, DataError
from transmodal.core.volume import target_of
from transmodal.data.manifest import Manifest
from transmodal.data.splits import Split, folds, people_of, random_split, shuffled, subjects_of
from transmodal.evaluation.protocols import find_protocol
from transmodal.evaluation.studies import ScoreTable, Table
from transmodal.imaging.layouts.subjects import safe_names
from transmodal.methods.recipe import Recipe, load_recipe

People = Mapping[str, Sequence[str]]


class Arm(Config):
    """One of what a study compares.

    Parameters
    ----------
    name : str
        Small letters, digits and dashes.
    recipe : str
        The name of a recipe, or a TOML file.
    set : tuple of str
        Values of the recipe to replace, as ``train.steps=500``.
    protocols : tuple of str, optional
        Instead of those of the study, where it makes masks of bone.
    subjects : int, optional
        How many of the training people to take; by default all.
    atlases : str, optional
        The arm whose runs, of the same fold and repeat, are its atlases (``method.atlases``).
    trained_on : {"same", "other", "both"}
        In a study of subsets, the people of the subset that is tested, those of the others, or all.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    recipe: str
    set: tuple[str, ...] = ()
    protocols: tuple[str, ...] | None = None
    subjects: int | None = Field(default=None, gt=0)
    atlases: str | None = None
    trained_on: Literal["same", "other", "both"] = "both"


class ScaledArm(Config):
    """What is different of an arm that is scaled down: another recipe, and values of it to replace."""

    recipe: str | None = None
    set: tuple[str, ...] = ()


class Scaled(Config):
    """What is different of a study that is scaled down: its division, repeats, values to replace in all recipes, and in those of arms."""

    folds: int | None = Field(default=None, ge=2)
    test_fraction: float | None = Field(default=None, gt=0, lt=1)
    repeats: int | None = Field(default=None, ge=1)
    set: tuple[str, ...] = ()
    arms: dict[str, ScaledArm] = {}


class Study(Config):
    """Recipes, folds, repeats and subsets, and the tables that they fill.

    Parameters
    ----------
    name, title, description, reference : str
    data : str
        What the dataset should be, and how it is prepared.
    folds : int, optional
        Of a cross-validation in which every subject with an MR and a CT is tested once.
    test_fraction : float, optional
        Instead, the share of such people that are tested. With neither, nobody is.
    repeats : int
        Of the whole with other seeds, but the same division of the people.
    seed : int
        Of the division, and of the first repeat.
    protocols : tuple of str
    subsets : tuple of str
        Attributes of the subjects; each of their values is a subset that is tested by itself.
    arms : tuple of Arm
    tables : tuple of Table
    notes : tuple of str
        Where it differs from the paper.
    scaled : Scaled
    """

    name: str
    title: str
    description: str
    reference: str = ""
    data: str = ""
    folds: int | None = Field(default=None, ge=2)
    test_fraction: float | None = Field(default=None, gt=0, lt=1)
    repeats: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0)
    protocols: tuple[str, ...] = ()
    subsets: tuple[str, ...] = ()
    arms: tuple[Arm, ...] = Field(min_length=1)
    tables: tuple[Table, ...] = Field(min_length=1)
    notes: tuple[str, ...] = ()
    scaled: Scaled = Scaled()

    @model_validator(mode="after")
    def _fits_together(self) -> "Study":
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError("two arms have the same name")
        if self.folds is not None and self.test_fraction is not None:
            raise ValueError("folds and test_fraction are two ways to divide; give one")
        if self.subsets and self.folds is None:
            raise ValueError("subsets are tested by cross-validation; give folds")
        if self.tested != any(isinstance(table, ScoreTable) for table in self.tables):
            raise ValueError("tables of scores, and folds or a test_fraction, need each other")
        if self.subsets and any(isinstance(table, ScoreTable) and table.form != "arms" for table in self.tables):
            raise ValueError("subsets are rows of a table; give it the form arms")
        absent = {name for table in self.tables for name in table.arms} | self.scaled.arms.keys()
        if not absent <= set(names):
            raise ValueError(f"there is no arm {', '.join(sorted(absent - set(names)))}")
        first = [arm.name for arm in self.arms if arm.atlases is None]
        astray = [arm.name for arm in self.arms if arm.atlases is not None and arm.atlases not in first]
        if astray:
            raise ValueError(f"atlases of {', '.join(astray)}: the name of an arm that needs none itself")
        return self

    @property
    def tested(self) -> bool:
        """Whether anyone is."""
        return self.folds is not None or self.test_fraction is not None

    @property
    def division(self) -> str:
        """Who is tested, in words."""
        if self.folds is not None:
            return f"{self.folds} folds"
        return (
            "nobody is tested" if self.test_fraction is None else f"{self.test_fraction:.0%} of the people with an MR and a CT are tested"
        )

    def scaled_down(self) -> "Study":
        """The study that ``[scaled]`` makes of this one, or `ConfigError` if there can be none such."""
        small, arms = self.scaled, []
        for arm in self.arms:
            other = small.arms.get(arm.name, ScaledArm())
            arms.append({**dict(arm), "recipe": other.recipe or arm.recipe, "set": (*arm.set, *small.set, *other.set)})
        divided = self if small.folds is None and small.test_fraction is None else small  # two ways, of which a study takes one
        numbers = {"folds": divided.folds, "test_fraction": divided.test_fraction, "repeats": small.repeats or self.repeats}
        return validate(Study, {**dict(self), **numbers, "arms": arms}, f"study {self.name}, scaled down")


def study_names() -> list[str]:
    """The studies that come with the package."""
    return sorted(entry.name.removesuffix(".toml") for entry in _folder().iterdir() if entry.name.endswith(".toml"))


def load_study(source: str) -> Study:
    """Read a study.

    Parameters
    ----------
    source : str
        The name of a study of the package, or the path of a TOML file.

    Raises
    ------
    ConfigError
        If there is no such study, a setting is unknown, missing or impossible, or a table shows what is not measured.
    """
    study = validate(Study, {"name": Path(source).stem, **_read_values(source)}, f"study {source}")
    _require_measured(study)
    return study


def _read_values(source: str) -> dict[str, Any]:
    if source.endswith(".toml"):
        return read_toml(Path(source))
    if source not in study_names():
        raise ConfigError(f"there is no study {source!r}; there are {', '.join(study_names())}, or give the path of a .toml file")
    with importlib.resources.as_file(_folder() / f"{source}.toml") as file:
        return read_toml(file)


def _folder() -> Any:
    return importlib.resources.files("transmodal") / "studies"


def _require_measured(study: Study) -> None:
    """Every column of every table is a metric of a protocol by which its arms are scored."""
    protocols = {arm.name: protocols_of(study, arm) for arm in study.arms}
    for table in study.tables:
        for column in table.columns if isinstance(table, ScoreTable) else ():
            metrics = [metric.name for metric in find_protocol(column.protocol).note.metrics]
            if column.metric not in metrics:
                raise ConfigError(f"study {study.name}, {table.source}: {column.key} is no metric; there are {', '.join(metrics)}")
            unscored = [name for name in table.arms if column.protocol not in protocols[name]]
            if unscored:
                raise ConfigError(f"study {study.name}, {table.source}: {', '.join(unscored)} is not scored by {column.protocol}")


def protocols_of(study: Study, arm: Arm) -> tuple[str, ...]:
    """The protocols that an arm is scored by."""
    return study.protocols if arm.protocols is None else arm.protocols


@dataclass(frozen=True)
class Cell:
    """One training of a study.

    Parameters
    ----------
    arm : Arm
    recipe : Recipe
        With all that the study and the user replace in it.
    protocols : tuple of str
    split : Split
    people : dict
        Subject that is tested to the person whose it is.
    subset : str
        What is tested; empty for the whole dataset.
    place : tuple of str
        The folders that it lies in, below that of its arm.
    repeat, fold : int
        From 1.
    folds : int
        How many there are in a repeat.
    """

    arm: Arm
    recipe: Recipe
    protocols: tuple[str, ...]
    split: Split
    people: dict[str, str]
    subset: str
    place: tuple[str, ...]
    repeat: int
    fold: int
    folds: int

    @property
    def folder(self) -> Path:
        """Where it lies, below the folder of all cells."""
        return Path(self.arm.name, *self.place)

    @property
    def atlases(self) -> Path | None:
        """Where the cell lies whose run is its set of atlases."""
        return None if self.arm.atlases is None else Path(self.arm.atlases, *self.place)


@dataclass(frozen=True)
class Cohort:
    """People who are tested, and others who are trained on alone.

    Parameters
    ----------
    label, folder : str
        Empty for the whole dataset.
    tested : dict
        Person to the subjects that are tested: those with an MR and a CT.
    own : dict
        The same people to the subjects that are trained on when they are not tested.
    others : dict
        Everyone else who may be trained on.
    """

    label: str
    folder: str
    tested: People
    own: People
    others: People


def find_cohorts(study: Study, manifest: Manifest) -> tuple[list[Cohort], list[str]]:
    """Who is tested, and who is only trained on: the whole dataset, or its subsets.

    Returns
    -------
    list of Cohort
    list of str
        What of the subsets is left out, or divided into fewer folds, and why.

    Raises
    ------
    DataError
        If there is nobody to be tested, or no subset of at least two people beside another one.
    """
    if not study.subsets:
        return [_whole(study, manifest)], []
    found, remarks = [], []
    for attribute in study.subsets:
        values = sorted({_text(subject.attributes[attribute]) for subject in manifest.subjects if attribute in subject.attributes})
        if len(values) < 2:
            remarks.append(f"left out: {attribute}, of which the dataset has {' and '.join(values) or 'nothing'} only")
            continue
        for value in values:
            cohort = _subset(manifest, attribute, value)
            if len(cohort.tested) < 2:
                remarks.append(f"left out: {cohort.label}, which has fewer than two people with an MR and a CT")
            else:
                found.append(cohort)
    if not found:
        raise DataError(
            f"the dataset has no subsets to compare: {'; '.join(remarks)}. Give the subjects {', '.join(study.subsets)} as attributes, "
            "by --attributes or when preparing"
        )
    assert study.folds is not None, "subsets are cross-validated"
    for cohort in found:
        people = len(cohort.tested)
        if people < study.folds:
            remarks.append(f"{cohort.label}: {people} folds instead of {study.folds}, as it has {people} people with an MR and a CT")
    names = safe_names([cohort.label for cohort in found])
    return [replace(cohort, folder=name) for cohort, name in zip(found, names, strict=True)], remarks


def _whole(study: Study, manifest: Manifest) -> Cohort:
    tested = people_of(subject for subject in manifest.subjects if subject.paired)
    if study.tested and not tested:
        raise DataError("no subject of the dataset has both an MR and a CT, so none can be tested")
    everyone = people_of(manifest.subjects)
    own = {person: names for person, names in everyone.items() if person in tested}
    return Cohort("", "", tested, own, {person: names for person, names in everyone.items() if person not in tested})


def _subset(manifest: Manifest, attribute: str, value: str) -> Cohort:
    """Those with one value of an attribute; nobody of them is among the others, even if other scans of him or her are."""
    known = [subject for subject in manifest.subjects if attribute in subject.attributes]
    inside = [subject for subject in known if _text(subject.attributes[attribute]) == value]
    own, everyone = people_of(inside), people_of(known)
    tested = people_of(subject for subject in inside if subject.paired)
    others = {person: names for person, names in everyone.items() if person not in own}
    return Cohort(f"{attribute} {value}", "", tested, {person: names for person, names in own.items() if person in tested}, others)


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def plan(study: Study, manifest: Manifest, cohorts: Sequence[Cohort], assignments: Sequence[str] = ()) -> list[Cell]:
    """List the trainings of a study, those that others need first.

    Parameters
    ----------
    study : Study
    manifest : Manifest
    cohorts : sequence of Cohort
    assignments : sequence of str
        Values to replace in the recipes of all arms.

    Raises
    ------
    ConfigError
        If a setting is impossible, or a protocol is for the other modality.
    DataError
        If nobody is left to be trained on.
    """
    cells = []
    for arm in sorted(study.arms, key=lambda arm: arm.atlases is not None):
        for repeat in range(study.repeats):
            recipe = _resolve(study, arm, repeat, assignments)
            for cohort in cohorts:
                splits = _splits(study, arm, recipe, cohort, manifest)
                for k, split in enumerate(splits):
                    place = (*([cohort.folder] if cohort.folder else []), f"repeat-{repeat + 1}", f"fold-{k + 1}")
                    protocols, people = protocols_of(study, arm), _people_tested(cohort, split)
                    cells.append(Cell(arm, recipe, protocols, split, people, cohort.label, place, repeat + 1, k + 1, len(splits)))
    return cells


def _people_tested(cohort: Cohort, split: Split) -> dict[str, str]:
    return {name: person for person, names in cohort.tested.items() for name in names if name in split.test}


def _resolve(study: Study, arm: Arm, repeat: int, assignments: Sequence[str]) -> Recipe:
    given = [*arm.set, *assignments]
    _require_no_seed(study, arm, given)
    recipe = load_recipe(arm.recipe, given)
    if recipe.train is not None:
        recipe = load_recipe(arm.recipe, [*given, f"train.seed={study.seed + repeat}"])
    for name in protocols_of(study, arm):
        note = find_protocol(name).note
        if note.modality != target_of(recipe.direction):
            raise ConfigError(f"study {study.name}: {arm.name} does {recipe.direction}, and the protocol {name} is for {note.modality}")
    if arm.atlases is not None and not hasattr(recipe.method, "atlases"):
        raise ConfigError(f"study {study.name}: atlases = {arm.atlases} of {arm.name}: the recipe {arm.recipe} does not build on atlases")
    return recipe


def _require_no_seed(study: Study, arm: Arm, assignments: Sequence[str]) -> None:
    for text in assignments:
        if text.partition("=")[0].strip() == "train.seed":
            raise ConfigError(
                f"study {study.name}, {arm.name}: {text} would not be heeded: each repeat has a seed of its own, counted from that of the "
                "study; leave it out, and set seed in the TOML of the study"
            )


def _splits(study: Study, arm: Arm, recipe: Recipe, cohort: Cohort, manifest: Manifest) -> list[Split]:
    divided = [Split(train=(), test=tuple(sorted(cohort.tested)))] if arm.trained_on == "other" else _divide(study, cohort)
    return [_one_split(study, arm, recipe, cohort, people, manifest) for people in divided]


def _divide(study: Study, cohort: Cohort) -> list[Split]:
    """The people who are tested, in folds, or in two parts, or all trained on."""
    names = list(cohort.tested)
    if study.folds is not None:
        return folds(names, min(study.folds, len(names)) if cohort.label else study.folds, study.seed)
    if study.test_fraction is not None:
        return [random_split(names, 0.0, study.test_fraction, study.seed)]
    return [Split(train=tuple(names))]


def _one_split(study: Study, arm: Arm, recipe: Recipe, cohort: Cohort, people: Split, manifest: Manifest) -> Split:
    own = {person: cohort.own[person] for person in people.train}
    trainers = _trainable({**own, **({} if arm.trained_on == "same" else cohort.others)}, recipe, manifest)
    if not trainers:
        raise DataError(f"study {study.name}: nobody is left to train {arm.name} on, {cohort.label or 'in this dataset'}")
    chosen = shuffled(list(trainers), study.seed)[: arm.subjects]
    validation = 0.0 if recipe.train is None else recipe.train.validation_fraction
    drawn = subjects_of(random_split(chosen, validation, 0.0, study.seed), trainers)
    tested = tuple(name for person in people.test for name in cohort.tested[person])
    return Split(train=drawn.train, validation=drawn.validation, test=tested)


def _trainable(people: People, recipe: Recipe, manifest: Manifest) -> People:
    """Those who can be trained on: of a recipe for pairs, who has one."""
    if recipe.sampling.pairing != "paired":
        return people
    paired = {person: [name for name in names if manifest.subject(name).paired] for person, names in people.items()}
    return {person: names for person, names in paired.items() if names}
