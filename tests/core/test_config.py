import pytest
from hypothesis import given
from hypothesis import strategies as st

from transmodal.core.config import Config, override, read_toml, validate
from transmodal.core.errors import ConfigError


class Inner(Config):
    steps: int
    rate: float = 0.1


class Outer(Config):
    inner: Inner


def test_unknown_and_missing_and_wrong_values_are_named():
    with pytest.raises(ConfigError) as error:
        validate(Outer, {"inner": {"stepz": 3, "rate": "fast"}}, "recipe.toml")
    message = str(error.value)
    assert "recipe.toml" in message
    assert "inner.stepz: there is no such setting" in message
    assert "inner.steps: this setting is required" in message
    assert "inner.rate = 'fast'" in message


def test_nan_is_no_setting():
    with pytest.raises(ConfigError):
        validate(Inner, {"steps": 1, "rate": float("nan")}, "here")


def test_toml_faults_name_the_file_and_the_line(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text("a = 1\nb = ]\n")
    with pytest.raises(ConfigError, match=r"recipe\.toml: not valid TOML .*line 2"):
        read_toml(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_toml(tmp_path / "absent.toml")


@given(st.one_of(st.integers(-(2**60), 2**60), st.floats(allow_nan=False, allow_infinity=False), st.booleans()))
def test_overriding_values_are_read_as_toml(value):
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    assert override({"a": {"b": 0}}, [f"a.b={text}"]) == {"a": {"b": value}}


def test_overriding_leaves_the_original_alone_and_takes_bare_words_and_lists():
    values = {"a": {"b": 0}}
    assert override(values, ["a.c=word", "d=[0, 1]"]) == {"a": {"b": 0, "c": "word"}, "d": [0, 1]}
    assert values == {"a": {"b": 0}}


@pytest.mark.parametrize("assignment", ["a", "=1", "a.b.c=1"])
def test_assignments_that_cannot_be_followed_are_refused(assignment):
    with pytest.raises(ConfigError, match="--set"):
        override({"a": {"b": 0}}, [assignment])
