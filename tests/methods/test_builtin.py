import json

import pytest

from transmodal import cli
from transmodal.core.errors import CheckpointError, ConfigError, FileError
from transmodal.core.files import sha256
from transmodal.methods import builtin
from transmodal.methods.builtin import CARD_NAME, DEFAULT_MODEL, HASH_NAME, builtin_models, find_model
from transmodal.workflows.models import show_models


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A folder of built-in models with one that is not trained."""
    folder = tmp_path / "models" / "some-mr"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    (folder / "weights.safetensors").write_bytes(b"weights")
    (folder / HASH_NAME).write_text(f"{sha256(folder / 'weights.safetensors')}  weights.safetensors\n")
    monkeypatch.setattr(builtin, "FOLDER", tmp_path / "models")
    return folder


def test_a_built_in_model_is_found_by_its_name_and_any_other_is_a_folder(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert builtin_models() == {"some-mr": models}
    assert find_model("some-mr") == models
    (tmp_path / "run").mkdir()
    assert find_model(tmp_path / "run") == tmp_path / "run"
    with pytest.raises(FileError, match="no folder of a run, and no built-in model, of which there are some-mr"):
        find_model("some_mr")
    (tmp_path / "some-mr").mkdir()
    assert find_model("some-mr").resolve() == (tmp_path / "some-mr")


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b"weightz"), lambda path: path.unlink()], ids=["changed", "missing"])
def test_other_weights_than_it_came_with_are_refused(models, spoil, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spoil(models / "weights.safetensors")
    with pytest.raises(CheckpointError, match="not the weights that this version of transmodal came with"):
        find_model("some-mr")


def test_the_default_model_is_there_with_its_card_and_is_small():
    folder = find_model(DEFAULT_MODEL)
    assert (folder / "weights.safetensors").stat().st_size <= 12e6
    card = (folder / CARD_NAME).read_text(encoding="utf-8")
    for words in ("GPL-3", "Not for diagnosis", "transmodal train any-mr", "Dice"):
        assert words in card


def test_models_are_listed_and_their_cards_shown(capsys):
    show_models(None, as_json=True)
    assert '"model": "any-mr"' in capsys.readouterr().out
    cli.app(["models"], exit_on_error=False, result_action="return_value")
    assert "any-mr (default)" in capsys.readouterr().out
    show_models("any-mr", as_json=False)
    card = capsys.readouterr().out
    assert "Not for diagnosis" in card
    show_models("any-mr", as_json=True)
    assert json.loads(capsys.readouterr().out)["card"].strip() == card.strip()
    with pytest.raises(ConfigError, match="no-such: not a built-in model; there are any-mr"):
        show_models("no-such", as_json=False)
