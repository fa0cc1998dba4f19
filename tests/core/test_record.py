import pytest

from transmodal.core.errors import ConfigError, FileError
from transmodal.core.files import write_json, write_text
from transmodal.core.record import RECORD_NAME, make_record, read_record


def test_a_record_is_read_as_it_was_written(tmp_path):
    record = make_record("train", seed=3, inputs={"dataset": "abc"}, settings={"steps": 5})
    write_json(tmp_path / RECORD_NAME, record.model_dump(mode="json"))
    assert read_record(tmp_path) == record


def test_a_folder_without_a_record_has_none(tmp_path):
    assert read_record(tmp_path) is None


def test_what_is_no_record_is_refused(tmp_path):
    write_text(tmp_path / RECORD_NAME, "{")
    with pytest.raises(FileError, match="not readable as JSON"):
        read_record(tmp_path)
    write_json(tmp_path / RECORD_NAME, {"command": "train"})
    with pytest.raises(ConfigError, match="this setting is required"):
        read_record(tmp_path)
