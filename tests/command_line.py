"""The command line, called in the process of the test."""

import pytest

from transmodal import cli


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """The exit code of a command, and what it said on standard error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        cli.main([str(word) for word in words])
    code = end.value.code
    assert code is None or isinstance(code, int)
    return code or 0, capsys.readouterr().err
