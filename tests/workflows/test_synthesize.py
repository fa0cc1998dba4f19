import json
import os
import shutil

import numpy as np
import pytest

from transmodal.core.errors import CasesFailed, ConfigError, DataError, FileError
from transmodal.core.files import sha256
from transmodal.core.volume import Volume
from transmodal.imaging.scan import read_scan, write_scan
from transmodal.methods.baseline import Baseline
from transmodal.methods.recipe import load_recipe
from transmodal.workflows.synthesize import synthesize
from transmodal.workflows.train import train


def interrupted(*_, **__):
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    recipe = load_recipe("baseline-threshold", ["train.steps=1", "train.batch_size=1", "train.test_fraction=0.5"])
    return train(recipe, dataset, tmp_path_factory.mktemp("run") / "thresholds", quiet=True)


def test_one_scan_to_one_file_in_any_format(run, heads, tmp_path):
    scan = heads / "Task1" / "brain" / "head0" / "mr.nii.gz"
    for name in ("sct.nii.gz", "sct.mha", "sct.nrrd"):
        assert synthesize(scan, tmp_path / name, run) == [tmp_path / name]
    one, two = (read_scan(tmp_path / name, "ct") for name in ("sct.nii.gz", "sct.mha"))
    np.testing.assert_array_equal(one.array, two.array)
    assert one.grid.matches(read_scan(scan, "mr").grid)
    record = json.loads((tmp_path / "sct.json").read_text())
    assert record["inputs"] == {"mr": sha256(scan)}
    assert record["settings"]["weights"] == sha256(run / "weights.safetensors")


def test_a_folder_keeps_its_subjects_and_done_cases_are_not_done_again(run, heads, tmp_path):
    done = synthesize(heads, tmp_path, run)
    assert [path.relative_to(tmp_path).as_posix() for path in done] == [f"head{k}/sct.nii.gz" for k in range(4)]
    stamps = [path.stat().st_mtime_ns for path in done]
    done[2].unlink()
    assert synthesize(heads, tmp_path, run) == done
    again = [path.stat().st_mtime_ns for path in done]
    assert [a == b for a, b in zip(stamps, again, strict=True)] == [True, True, False, True]


def test_only_the_subjects_of_a_part(run, heads, tmp_path):
    assert len(synthesize(heads, tmp_path / "out", run, part="test")) == 2
    without = shutil.copytree(run, tmp_path / "run")
    description = json.loads((without / "run.json").read_text())
    description["split"]["test"] = []
    (without / "run.json").write_text(json.dumps(description))
    with pytest.raises(ConfigError, match=r"set train\.test_fraction"):
        synthesize(heads, tmp_path / "out", without, part="test")


def test_one_bad_case_of_several_is_listed_and_the_others_are_there(run, tmp_path):
    good = np.zeros((30, 30, 30), np.float32)
    good[5:25, 5:25, 5:25] = 100
    affine = np.diag([6.0, 6.0, 6.0, 1.0])
    rng = np.random.default_rng(0)
    for name, array in {"a": good, "b": np.zeros_like(good), "c": good}.items():
        noise = rng.normal(0, 5, array.shape).astype(np.float32) if array.any() else 0
        write_scan(Volume(array + noise, affine, "mr"), tmp_path / "scans" / name / "mr.nii.gz")
    with pytest.raises(CasesFailed, match=r"1 of 3 scans could not be synthesized:\nb: "):
        synthesize(tmp_path / "scans", tmp_path / "out", run)
    assert (tmp_path / "out" / "a" / "sct.nii.gz").is_file()
    assert (tmp_path / "out" / "c" / "sct.nii.gz").is_file()
    assert not (tmp_path / "out" / "b" / "sct.nii.gz").exists()


def test_nothing_that_is_read_or_that_others_wrote_is_lost(run, heads, tmp_path):
    source = heads / "Task1" / "brain" / "head0" / "mr.nii.gz"
    for name in ("mr.nii.gz", "sct_cycle.nii.gz", "sct_uncertainty.nii.gz"):
        shutil.copy(source, tmp_path / name)
    (tmp_path / "other.json").write_text('{"Manufacturer": "of the scanner"}')
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for output in ("mr.nii.gz", "other.nii.gz"):
        with pytest.raises(FileError, match="would be overwritten"):
            synthesize(tmp_path / "mr.nii.gz", tmp_path / output, run)
    synthesize(tmp_path / "sct_cycle.nii.gz", tmp_path / "sct.nii.gz", run)
    assert {path: path.read_bytes() for path in before} == before
    note = json.loads((tmp_path / "sct.json").read_text())
    note["settings"]["cycle"] = True  # as if it had been written then
    (tmp_path / "sct.json").write_text(json.dumps(note))
    with pytest.raises(FileError, match="would be overwritten"):
        synthesize(tmp_path / "sct_cycle.nii.gz", tmp_path / "sct.nii.gz", run)


def test_a_note_of_another_program_stops_its_case_alone(run, heads, tmp_path):
    done = synthesize(heads, tmp_path / "out", run)
    done[1].with_name("record.json").write_text("[]")
    with pytest.raises(CasesFailed, match=r"1 of 4 .*\nhead1: .*record\.json: was not written by"):
        synthesize(heads, tmp_path / "out", run)
    assert done[1].with_name("record.json").read_text() == "[]"


def test_in_the_folder_of_the_scans_their_record_stays(run, heads, tmp_path):
    scans = shutil.copytree(heads, tmp_path / "heads")
    (scans / "record.json").write_text("{}")
    synthesize(scans, scans, run)
    assert (scans / "record.json").read_text() == "{}"
    assert len(list(scans.rglob("sct.nii.gz"))) == 4


def test_a_result_of_which_the_note_was_not_written_is_made_anew(run, dataset, heads, tmp_path, monkeypatch):
    """Killed between the two, a model must not leave its image under the note of the one before."""
    other = train(load_recipe("baseline-constant", ["train.steps=1", "train.batch_size=1"]), dataset, tmp_path / "other", quiet=True)
    expected = [read_scan(path, "ct").array for path in synthesize(heads, tmp_path / "out", run)]
    with monkeypatch.context() as patched:
        patched.setattr("transmodal.workflows.synthesize._write_extras", interrupted)
        with pytest.raises(KeyboardInterrupt):
            synthesize(heads, tmp_path / "out", other)
    assert not np.array_equal(read_scan(tmp_path / "out" / "head0" / "sct.nii.gz", "ct").array, expected[0])
    again = synthesize(heads, tmp_path / "out", run)
    for path, array in zip(again, expected, strict=True):
        np.testing.assert_array_equal(read_scan(path, "ct").array, array)


def test_what_cannot_be_is_refused_before_any_work(run, heads, tmp_path, monkeypatch):
    scan = heads / "Task1" / "brain" / "head0" / "mr.nii.gz"
    with pytest.raises(ConfigError, match="ct2mr"):
        synthesize(scan, tmp_path / "smr.nii.gz", run, direction="ct2mr")
    with pytest.raises(FileError, match="no such file or folder"):
        synthesize(tmp_path / "absent.nii.gz", tmp_path / "sct.nii.gz", run)
    with monkeypatch.context() as patched, pytest.raises(FileError, match=r"sct\.jpg"):
        patched.setattr(Baseline, "synthesize", lambda *_: pytest.fail("the work was done first"))
        synthesize(scan, tmp_path / "sct.jpg", run)
    with pytest.raises(DataError, match="none of the subjects"):
        (tmp_path / "cts" / "a").mkdir(parents=True)
        os.link(scan, tmp_path / "cts" / "a" / "ct.nii.gz")
        synthesize(tmp_path / "cts", tmp_path / "out", run)
    for option, value in (("part", "test"), ("layout", "bids")):
        with pytest.raises(ConfigError, match=f"--{option} {value}: is for a folder"):
            synthesize(scan, tmp_path / "sct.nii.gz", run, **{option: value})
    with pytest.raises(FileError, match=r"run\.json"):
        synthesize(scan, tmp_path / "sct.nii.gz", tmp_path)
    assert not (tmp_path / "sct.nii.gz").exists()
