"""Bad input of every kind through the real command line: refused by name, with nothing left behind; or valid, and done."""

import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from command_line import call
from reliability.corpus import CORPUS, KINDS
from reliability.rows import CHECKPOINT, FILE, SOME_FAILED, VALID, Row, head
from reliability.scans import FILES, NIFTI
from transmodal.core.errors import TransmodalError
from transmodal.core.files import sha256
from transmodal.data.manifest import read_manifest
from transmodal.imaging.dicom_read import read_series
from transmodal.imaging.grid import canonical
from transmodal.imaging.scan import read_scan, write_scan

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", CORPUS)
def test_the_outcome_is_that_of_the_table(name, run, dataset, tmp_path, monkeypatch, capsys):
    row = CORPUS[name]
    folder, out = tmp_path / "in" / "bad", tmp_path / "out"
    folder.mkdir(parents=True)
    if row.code == CHECKPOINT:
        run = shutil.copytree(run, folder / "run")
    monkeypatch.chdir(tmp_path)
    given = row.make(folder)
    words = {
        "synthesize": ("synthesize", _scan_of(row, given), out / "sct.nii.gz", "--model", run),
        "prepare": ("prepare", folder.parent, out, "--native"),
        "evaluate": ("evaluate", _predictions(folder), folder.parent, out),
        "train": ("train", given, dataset, out),
    }[row.command]
    before = _listing(folder)
    code, error = call(capsys, *words)
    error = re.sub(r"^transmodal: layout: .*\n", "", error)
    assert (code, error) == (VALID, "") if row.code == VALID else code == row.code
    assert _listing(folder) == before and not (tmp_path / "the-pickle-was-run").exists()
    if row.code == VALID:
        _assert_done(row, given, out)
        return
    assert re.search(row.word, error), error
    assert str(given) in error
    assert error.startswith("transmodal: ") and "Traceback" not in error
    assert _images(out) == []
    assert not list(tmp_path.rglob("*partial*"))


def _scan_of(row: Row, given: Path) -> Path:
    """A run is not what is synthesized from."""
    return given.parents[1] / "mr.nii.gz" if row.code == CHECKPOINT else given


def _predictions(folder: Path) -> Path:
    """Where the row has no prediction of its own, the true CT of the phantom is a perfect one."""
    if folder.joinpath("ct.nii.gz").is_file() and not folder.joinpath("sct.nii.gz").is_file():
        write_scan(head()["ct"], folder / "sct.nii.gz")
    return folder.parent


def _listing(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in folder.rglob("*") if path.is_file()}


def _images(out: Path) -> list[Path]:
    """Results and parts of them; a folder of scores holds the list of failures, and no scores."""
    return [path for path in out.rglob("*") if path.is_file() and path.name not in ("scores.json", "scores.csv", "record.json")]


def _assert_done(row: Row, given: Path, out: Path) -> None:
    """The result lies where the scan does."""
    if row.command == "prepare":
        (subject,) = read_manifest(out).subjects
        assert subject.images["mr"].grid.matches(canonical(head()["mr"]).grid)
        return
    scan = read_series(given, "mr").volume if given.is_dir() else read_scan(given, "mr")
    result = read_scan(out / "sct.nii.gz", "ct")
    assert result.grid.matches(scan.grid)
    assert np.mean(result.array[scan.array > 50] > -500) > 0.9


def test_bad_subjects_are_listed_and_the_good_ones_done(run, tmp_path, capsys):
    """All bad files of the table in one folder, with two good ones among them."""
    bad = {**FILES, **{name: row for name, row in NIFTI.items() if row.code and row.command == "synthesize"}}
    for number, row in enumerate(bad.values()):
        (tmp_path / "in" / f"{number:03d}").mkdir(parents=True)
        row.make(tmp_path / "in" / f"{number:03d}")
    for name in ("010-good", "zzz-good"):
        write_scan(head()["mr"], tmp_path / "in" / name / "mr.nii.gz")
    code, error = call(capsys, "synthesize", tmp_path / "in", tmp_path / "out", "--model", run)
    assert code == SOME_FAILED
    assert f"{len(bad)} of {len(bad) + 2} scans could not be synthesized" in error and "Traceback" not in error
    for number, row in enumerate(bad.values()):
        assert re.search(f"^{number:03d}: .*(?:{row.word})", error, re.MULTILINE), (number, row.word)
    assert sorted(path.parent.name for path in tmp_path.rglob("sct.nii.gz")) == ["010-good", "zzz-good"]
    assert not list(tmp_path.rglob("*partial*"))


def test_a_bad_dicom_series_in_a_folder_is_named_with_its_file(run, tmp_path, capsys):
    given = KINDS["DICOM"]["truncated pixels"].make(tmp_path)
    code, error = call(capsys, "synthesize", given, tmp_path / "sct", "--model", run)
    assert code == FILE and "0014.dcm" in error
    assert not (tmp_path / "sct").exists()


def test_the_real_ct_with_an_offset_is_refused(shared_data, tmp_path, capsys):
    (tmp_path / "in" / "a").mkdir(parents=True)
    shutil.copy(shared_data / "tiny" / "ct_head_coarse.nii.gz", tmp_path / "in" / "a" / "ct.nii.gz")
    code, error = call(capsys, "prepare", tmp_path / "in", tmp_path / "out", "--native")
    assert code == SOME_FAILED and "subtract 1024" in error


def test_the_counts_of_the_documentation_are_those_of_the_table():
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    for kind, rows in KINDS.items():
        valid = Counter(row.code == VALID for row in rows.values())
        assert f"| {kind} | {len(rows)} | {valid[False]} | {valid[True]} |" in text, kind
    for error in TransmodalError.__subclasses__():
        assert f"| {error.exit_code} |" in text, error
    valid = Counter(row.code == VALID for row in CORPUS.values())
    assert f"| all | {len(CORPUS)} | {valid[False]} | {valid[True]} |" in text
