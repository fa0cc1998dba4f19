import json
import subprocess
import sys
from pathlib import Path

import pytest

from transmodal import cli
from transmodal.core.errors import GeometryError, TransmodalError
from transmodal.evaluation.protocols import PROTOCOLS
from transmodal.methods.recipe import recipe_names

COMMANDS = ["demo", "simulate", "prepare", "train", "synthesize", "segment", "surface", "convert", "evaluate", "study", "studies"]
COMMANDS += ["report", "show", "series", "export", "models", "recipes"]

# What takes a second or more to import, and so must wait until a command runs.
HEAVY = (
    "torch",
    "lightning_fabric",
    "monai",
    "SimpleITK",
    "nibabel",
    "scipy",
    "skimage",
    "matplotlib",
    "zarr",
    "pydantic",
    "pydicom",
    "trimesh",
)


def call(*words):
    with pytest.raises(SystemExit) as end:
        cli.main([str(word) for word in words])
    return end.value.code or 0


@pytest.mark.parametrize("words", [["--help"], ["--version"], *([command, "--help"] for command in COMMANDS)], ids=" ".join)
def test_help_imports_nothing_heavy(words):
    script = f"""
import sys
from transmodal import cli
try:
    cli.main({words!r})
except SystemExit as end:
    assert not end.code, end.code
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip()
    assert done.stderr.strip() == "[]"


def test_the_flow_through_the_command_line(heads, tmp_path, capsys):
    dataset, run, predictions, scores, page = (tmp_path / name for name in ("dataset", "run", "predictions", "scores", "report.html"))
    settings = ["train.steps=1", "train.batch_size=1", "train.test_fraction=0.25"]
    words = [word for setting in settings for word in ("--set", setting)]
    assert call("prepare", heads, dataset, "--native") == 0
    assert call("train", "baseline-threshold", dataset, run, *words) == 0
    assert call("synthesize", heads, predictions, "--model", run, "--part", "test") == 0
    assert call("evaluate", predictions, heads, scores, "--protocol", "synthrad2023", "--protocol", "synthrad2025") == 0
    assert call("report", scores, page, "--title", "A <b>title</b>") == 0
    assert "4 subjects (4 paired)" in capsys.readouterr().out
    cases = json.loads((scores / "scores.json").read_text())["cases"]
    assert len(cases) == 1
    assert "A &lt;b&gt;title&lt;/b&gt;" in page.read_text(encoding="utf-8")


def test_several_models_are_one_option_and_bone_has_a_command(heads, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("transmodal.workflows.synthesize.synthesize", lambda *given, **choices: seen.append((given, choices)) or [])
    assert call("synthesize", "scan", "out", "--model", "a", "b", "--uncertainty") == 0
    assert seen[0][0] == (Path("scan"), Path("out"), [Path("a"), Path("b")])
    assert seen[0][1]["uncertainty"] is True
    ct = heads / "Task1" / "brain" / "head0" / "ct.nii.gz"
    assert call("segment", ct, tmp_path / "bone.nii.gz") == 0
    assert (tmp_path / "bone.nii.gz").is_file()


@pytest.mark.slow
def test_simulated_heads_go_all_the_way(tmp_path):
    assert call("simulate", tmp_path / "heads", "--subjects", 2, "--shape", 32, 32, 32, "--prefix", "child") == 0
    assert (tmp_path / "heads" / "Task1" / "brain" / "child0002" / "ct.nii.gz").is_file()
    assert call("prepare", tmp_path / "heads", tmp_path / "dataset") == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["synthesize", "absent.nii.gz", "sct.nii.gz", "--model", "absent"], 3, "absent"),
        (["train", "no-such-recipe", "d", "r"], 6, "there is no recipe 'no-such-recipe'; there are"),
        (["train", "unet2d", "d", "r", "--set", "train.stepz=1"], 6, "train.stepz: there is no such setting"),
        (["prepare", "absent", "d"], 3, "no such folder"),
        (["report", "scores"], 6, "last the page to write"),
        (["evaluate", "absent", "absent", "out"], None, "absent"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_errors_are_one_message_with_their_own_code(tmp_path, monkeypatch, capsys, words, code, message):
    monkeypatch.chdir(tmp_path)
    ended = call(*words)
    assert ended == code or (code is None and ended not in (0, 1))
    error = capsys.readouterr().err
    assert error.startswith("transmodal: ")
    assert message in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_the_help_of_evaluate_lists_the_protocols(capsys):
    assert call("evaluate", "--help") == 0
    words = capsys.readouterr().out.replace(",", " ").replace(".", " ").replace(":", " ").split()
    assert [name for name in PROTOCOLS if name not in words] == []


def test_every_error_has_a_code_of_its_own():
    codes = [kind.exit_code for kind in TransmodalError.__subclasses__()]
    assert len(set(codes)) == len(codes)
    assert 0 not in codes
    assert GeometryError.exit_code == 4


def test_recipes_can_be_read_by_a_script(capsys):
    assert call("recipes", "--json", "--details") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == recipe_names()
    unet = next(row for row in rows if row["name"] == "unet2d")
    assert unet["networks"]["generator"] == {"convolutions": 23, "parameters": 11531329}


def test_a_study_through_the_command_line(heads, tmp_path, capsys):
    dataset, out = tmp_path / "dataset", tmp_path / "out"
    assert call("prepare", heads, dataset, "--native") == 0
    assert call("study", "fcn-cyclegan-losses", dataset, out, "--scaled", "--set", "train.steps=2", "--dry-run") == 0
    assert "fcn-cyclegan-losses: 1 cells, 1 to do" in capsys.readouterr().out
    assert not out.exists()
    assert call("study", "fcn-cyclegan-losses", dataset, out, "--scaled", "--set", "train.steps=2") == 0
    assert "train.steps=2" in (out / "tables.md").read_text(encoding="utf-8")
    assert call("studies", "--json") == 0
    assert "fcn-cyclegan-losses" in [study["name"] for study in json.loads(capsys.readouterr().out.partition("\n")[2])]


def test_the_list_of_recipes_is_for_people(capsys):
    assert call("recipes") == 0
    assert "2D U-Net with gradient difference loss" in capsys.readouterr().out
