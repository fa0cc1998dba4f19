"""The base of every configuration: frozen, typed, without unknown keys, and read from TOML."""

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from transmodal.core.errors import ConfigError


class Config(BaseModel):
    """A frozen record of settings; a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


ConfigT = TypeVar("ConfigT", bound=BaseModel)


def validate(model: type[ConfigT], values: Any, where: str) -> ConfigT:
    """Build `model` from plain values, or raise `ConfigError` with one line a fault.

    Parameters
    ----------
    model : type
        The configuration class.
    values : dict
        Plain values as TOML or JSON gives them.
    where : str
        What the values came from, for the message.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}:\n" + "\n".join(_line(fault) for fault in error.errors())) from error


def _line(fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"]) or "(top level)"
    if fault["type"] == "extra_forbidden":
        return f"  {key}: there is no such setting; check its spelling"
    if fault["type"] == "missing":
        return f"  {key}: this setting is required"
    return f"  {key} = {fault['input']!r}: {fault['msg']}"


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file, or raise `ConfigError` naming the file and the line."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML ({error})") from error


def override(values: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """Apply ``key.path=value`` assignments to nested plain values and return the new ones.

    A value is read as TOML (``500``, ``true``, ``[0, 1]``, ``"text"``); what is not valid TOML is taken as a string.

    Raises
    ------
    ConfigError
        If an assignment has no ``=``, or its path runs through a value that is not a table.
    """
    result = _copy(values)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {assignment}: write it as key=value, for example train.steps=500")
        *parents, last = key.strip().split(".")
        table = result
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise ConfigError(f"--set {assignment}: {parent} is a value, not a table of settings")
        table[last] = _parse(text.strip())
    return result


def _copy(values: Any) -> Any:
    return {key: _copy(value) for key, value in values.items()} if isinstance(values, dict) else values


def _parse(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
