"""Who trains and who is tested: always whole subjects."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from transmodal.core.config import Config
from transmodal.core.errors import ConfigError
from transmodal.data.manifest import Subject


class Split(Config):
    """The subjects of each part; no subject is in two of them."""

    train: tuple[str, ...]
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()


def random_split(subjects: Sequence[str], validation: float, test: float, seed: int) -> Split:
    """Divide subjects at random by fractions; a fraction above 0 gives at least one subject.

    Parameters
    ----------
    subjects : sequence of str
        Their order does not matter: the division depends on the names and the seed alone.
    validation, test : float
        Fractions of all subjects, 0 to 1.
    seed : int

    Raises
    ------
    ConfigError
        If no subject would be left for training.
    """
    order = shuffled(subjects, seed)
    n_test, n_validation = (_count(fraction, len(order)) for fraction in (test, validation))
    if n_test + n_validation >= len(order):
        raise ConfigError(
            f"{len(order)} subjects are too few for {n_validation} in validation and {n_test} in test; "
            "add subjects, or lower train.validation_fraction"
        )
    return Split(test=order[:n_test], validation=order[n_test : n_test + n_validation], train=order[n_test + n_validation :])


def folds(subjects: Sequence[str], k: int, seed: int) -> list[Split]:
    """Divide subjects into `k` parts of nearly equal size; each part is the test set of one fold, the rest its training set.

    Raises
    ------
    ConfigError
        If `k` is less than 2 or more than the number of subjects.
    """
    if not 2 <= k <= len(set(subjects)):
        raise ConfigError(f"{len(set(subjects))} subjects cannot be divided into {k} folds; give 2 to {len(set(subjects))}")
    order = shuffled(subjects, seed)
    parts = [order[i::k] for i in range(k)]
    return [Split(train=tuple(s for j, part in enumerate(parts) if j != i for s in part), test=parts[i]) for i in range(k)]


def people_of(subjects: Iterable[Subject]) -> dict[str, list[str]]:
    """Each person to the names of his or her subjects, such as sessions; all in the order in which they are given."""
    people: dict[str, list[str]] = {}
    for subject in subjects:
        people.setdefault(subject.person, []).append(subject.id)
    return people


def subjects_of(split: Split, people: Mapping[str, Sequence[str]]) -> Split:
    """The division of subjects that a division of people is.

    Parameters
    ----------
    split : Split
        Of people.
    people : dict
        Person to the names of his or her subjects, such as sessions.
    """
    parts = {part: tuple(name for person in getattr(split, part) for name in people[person]) for part in Split.model_fields}
    return Split(**parts)


def shuffled(subjects: Sequence[str], seed: int) -> tuple[str, ...]:
    """The subjects, each once, in an order that depends on the names and the seed alone."""
    names = sorted(set(subjects))
    return tuple(names[i] for i in np.random.default_rng(seed).permutation(len(names)))


def _count(fraction: float, total: int) -> int:
    return max(1, round(fraction * total)) if fraction > 0 else 0
