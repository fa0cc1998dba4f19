import pytest
from hypothesis import given
from hypothesis import strategies as st

from transmodal.core.errors import ConfigError
from transmodal.data.manifest import Subject
from transmodal.data.splits import Split, folds, people_of, random_split, shuffled, subjects_of

names = st.lists(st.text(min_size=1, max_size=5), min_size=4, max_size=40, unique=True)


@given(names=names, seed=st.integers(0, 1000))
def test_every_subject_is_in_exactly_one_part(names, seed):
    split = random_split(names, validation=0.2, test=0.25, seed=seed)
    assert sorted(split.train + split.validation + split.test) == sorted(names)
    assert len(split.test) == max(1, round(0.25 * len(names)))
    assert split == random_split(names[::-1], validation=0.2, test=0.25, seed=seed)


def test_another_seed_draws_other_subjects():
    names = [str(k) for k in range(30)]
    assert random_split(names, 0.2, 0.2, 0) != random_split(names, 0.2, 0.2, 1)


@given(names=names, k=st.integers(2, 4), seed=st.integers(0, 1000))
def test_every_subject_is_tested_once(names, k, seed):
    parts = folds(names, k, seed)
    assert sorted(name for part in parts for name in part.test) == sorted(names)
    for part in parts:
        assert not set(part.train) & set(part.test)
        assert len(part.train) + len(part.test) == len(names)


def test_people_have_all_their_subjects_and_others_are_people_of_their_own():
    persons = {"a1": {"person": "ann"}, "b1": {}, "a2": {"person": "ann"}}
    subjects = [Subject(id=name, images={}, attributes=attributes) for name, attributes in persons.items()]
    assert people_of(subjects) == {"ann": ["a1", "a2"], "b1": ["b1"]}


def test_a_division_of_people_is_one_of_all_their_subjects():
    people = {"ann": ["a1", "a2"], "bob": ["b1"], "cy": []}
    assert subjects_of(Split(train=("bob", "ann"), test=("cy",)), people) == Split(train=("b1", "a1", "a2"))


@given(names=names, seed=st.integers(0, 1000))
def test_the_order_at_random_does_not_depend_on_the_order_given(names, seed):
    assert shuffled(names[::-1], seed) == shuffled(names, seed)
    assert sorted(shuffled([*names, *names], seed)) == sorted(names)


def test_impossible_divisions_are_refused():
    with pytest.raises(ConfigError, match="too few"):
        random_split(["a", "b"], 0.5, 0.5, 0)
    with pytest.raises(ConfigError, match="folds"):
        folds(["a", "b", "c"], 4, 0)
