"""What the documentation tells people to type."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from transmodal.cli import app
from transmodal.evaluation.protocols import PROTOCOLS
from transmodal.methods.recipe import load_recipe, recipe_names
from transmodal.workflows.design import load_study, study_names

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def shell_lines(page: Path) -> list[str]:
    blocks = re.findall(r"^```(?:bash)?\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


COMMANDS = [(page.relative_to(ROOT), line) for page in PAGES for line in shell_lines(page) if line.startswith("transmodal ")]


def test_there_are_commands_to_check():
    assert len(COMMANDS) > 8


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda value: str(value))
def test_every_command_of_the_documentation_parses(page, line):
    words = shlex.split(line.split(" > ")[0], comments=True)[1:]
    app.parse_args(words, exit_on_error=False, print_error=False)
    if words[0] == "train" and not words[1].isupper():
        assert words[1] in recipe_names()
    if words[0] == "study" and not words[1].isupper():
        assert words[1] in study_names()


def test_the_continuous_integration_runs_the_readmes_test_command():
    lines = [line for line in shell_lines(ROOT / "README.md") if line.startswith("python3 -m venv")]
    assert len(lines) == 2
    assert lines[0].endswith(".venv/bin/transmodal demo")
    assert "-m pytest" in lines[1]
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


def test_every_recipe_is_documented():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [name for name in recipe_names() if f"`{name}`" not in text] == []


def test_every_protocol_is_documented():
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert [name for name in PROTOCOLS if f"`{name}`" not in text] == []


def test_every_study_is_documented():
    text = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    assert [name for name in study_names() if f"| `{name}` |" not in text] == []


def test_the_study_of_the_documentation_is_one(tmp_path):
    (block,) = re.findall(r"^```toml\n(.*?)^```", (ROOT / "docs" / "studies.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "own.toml").write_text(block)
    study = load_study(str(tmp_path / "own.toml"))
    assert [load_recipe(arm.recipe, arm.set).train.steps for arm in study.arms] == [300, 600]


@pytest.mark.slow
def test_the_tutorial_runs_as_printed(tmp_path):
    for line in shell_lines(ROOT / "docs" / "tutorial.md"):
        words = [sys.executable, "-m", "transmodal.cli", *shlex.split(line)[1:]]
        subprocess.run(words, cwd=tmp_path, check=True)
    assert (tmp_path / "report.html").stat().st_size > 100_000
    assert (tmp_path / "sct.nii.gz").is_file()
