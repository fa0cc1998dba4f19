import json
import shutil

import numpy as np
import pytest

from transmodal.core.errors import CasesFailed, DataError, FileError
from transmodal.core.files import sha256
from transmodal.imaging.scan import read_scan
from transmodal.workflows.segment import segment


def test_the_skull_of_one_phantom(heads, tmp_path):
    ct = heads / "Task1" / "brain" / "head0" / "ct.nii.gz"
    assert segment(ct, tmp_path / "bone.nii.gz") == [tmp_path / "bone.nii.gz"]
    bone = read_scan(tmp_path / "bone.nii.gz", "mask")
    np.testing.assert_array_equal(bone.array, read_scan(ct, "ct").array == 1000)
    record = json.loads((tmp_path / "bone.json").read_text())
    assert record["inputs"] == {"ct": sha256(ct), "mask": sha256(ct.with_name("mask.nii.gz"))}


def test_a_folder_goes_on_where_it_stopped_and_over_what_is_bad(heads, tmp_path):
    source, out = shutil.copytree(heads, tmp_path / "heads"), tmp_path / "out"
    bad = source / "Task1" / "brain" / "head1" / "ct.nii.gz"
    good = bad.read_bytes()
    bad.write_bytes(b"nothing")
    with pytest.raises(CasesFailed, match=r"1 of 4 CTs could not be segmented:\nhead1: "):
        segment(source, out)
    stamps = {k: (out / f"head{k}" / "bone.nii.gz").stat().st_mtime_ns for k in (0, 2, 3)}
    bad.write_bytes(good)
    assert [path.parent.name for path in segment(source, out)] == [f"head{k}" for k in range(4)]
    assert {k: (out / f"head{k}" / "bone.nii.gz").stat().st_mtime_ns for k in (0, 2, 3)} == stamps
    assert json.loads((out / "record.json").read_text())["command"] == "segment"


def test_masks_may_go_into_the_folder_of_the_cts_whose_record_stays(heads, tmp_path):
    source = shutil.copytree(heads, tmp_path / "heads")
    (source / "record.json").write_text("{}")
    segment(source, source)
    assert (source / "record.json").read_text() == "{}"
    assert len(list(source.rglob("bone.nii.gz"))) == 4


def test_refusals(heads, tmp_path):
    ct = shutil.copy(heads / "Task1" / "brain" / "head0" / "ct.nii.gz", tmp_path / "ct.nii.gz")
    with pytest.raises(FileError, match="made of, and would be overwritten"):
        segment(ct, ct)
    with pytest.raises(FileError, match=r"bone\.png"):
        segment(ct, tmp_path / "bone.png")
    with pytest.raises(DataError, match="no such folder"):
        segment(tmp_path / "absent", tmp_path / "out")
    with pytest.raises(DataError, match="not a CT in HU"):
        segment(heads / "Task1" / "brain" / "head0" / "mr.nii.gz", tmp_path / "bone.nii.gz")
