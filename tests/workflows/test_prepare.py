import json
import shutil

import numpy as np
import pytest
import SimpleITK

from transmodal.core.errors import CasesFailed, DataError, FileError
from transmodal.core.volume import Volume, whole_hu
from transmodal.data.manifest import read_manifest
from transmodal.data.store import Dataset
from transmodal.imaging.preparation import Preparation
from transmodal.imaging.scan import read_scan, write_scan
from transmodal.workflows import prepare as workflow
from transmodal.workflows.prepare import prepare


def ball(affine=None, value=100):
    points = np.moveaxis(np.indices((40, 40, 40)), 0, -1) - 19.5
    array = np.where(np.linalg.norm(points, axis=-1) < 17, value, 0).astype(np.float32)
    return Volume(array + np.random.default_rng(0).normal(0, 0.5, array.shape).astype(np.float32), affine_of(), "mr")


def affine_of():
    affine = np.diag([5.0, 5.0, 5.0, 1.0])
    affine[:3, 3] = -97.5
    return affine


def test_native_voxels_are_stored_as_they_are(heads, dataset):
    data = Dataset(dataset)
    folder = heads / "Task1" / "brain" / "head2"
    mask = read_scan(folder / "mask.nii.gz", "mask").array
    ct = read_scan(folder / "ct.nii.gz", "ct").array
    np.testing.assert_array_equal(data.read_all("head2", "ct"), np.where(mask, ct, -1000))
    np.testing.assert_array_equal(data.read_all("head2", "mr_mask") > 0, mask)
    np.testing.assert_array_equal(data.read_all("head2", "labels"), read_scan(folder / "labels.nii.gz", "labels").array)
    image = data.manifest.subject("head2").images["ct"]
    assert image.statistics.mean == pytest.approx(ct[mask].mean())
    x, y, z = image.box
    assert not mask[: x[0]].any()
    assert mask[x[0]].any()
    assert mask[:, :, z[1] - 1].any()
    assert not mask[:, y[1] :].any()


def test_a_ct_on_another_grid_comes_onto_that_of_the_mr(heads, tmp_path):
    source = heads / "Task1" / "brain" / "head0"
    mr, ct = read_scan(source / "mr.nii.gz", "mr"), read_scan(source / "ct.nii.gz", "ct")
    flipped = ct.affine.copy()
    flipped[:3, 3] += flipped[:3, 0] * (ct.shape[0] - 1)
    flipped[:3, 0] *= -1
    for name, volume in (("mr", mr), ("ct", Volume(ct.array[::-1], flipped, "ct"))):
        write_scan(volume, tmp_path / "scans" / "a" / f"{name}.nii.gz")
    manifest = prepare(tmp_path / "scans", tmp_path / "dataset", Preparation(spacing_mm=5.0))
    images = manifest.subject("a").images
    assert images["mr"].grid.matches(images["ct"].grid)
    assert images["mr"].grid.spacing == pytest.approx((5, 5, 5))
    assert images["ct"].statistics.percentile(90) == pytest.approx(1000, abs=50)


def test_unpaired_subjects_are_kept(tmp_path):
    write_scan(ball(), tmp_path / "scans" / "only_mr" / "mr.nii.gz")
    manifest = prepare(tmp_path / "scans", tmp_path / "dataset", Preparation(spacing_mm="native"))
    assert not manifest.subjects[0].paired


def test_attributes_travel(tmp_path):
    write_scan(ball(), tmp_path / "scans" / "a" / "mr.nii.gz")
    (tmp_path / "scans" / "a" / "subject.json").write_text(json.dumps({"attributes": {"vendor": "x", "age": 3}}))
    prepare(tmp_path / "scans", tmp_path / "dataset", Preparation(spacing_mm="native"))
    assert read_manifest(tmp_path / "dataset").subject("a").attributes == {"vendor": "x", "age": 3}


def test_one_bad_subject_does_not_stop_the_others_and_finished_ones_are_kept(tmp_path):
    for name in ("a", "b", "c"):
        write_scan(ball(), tmp_path / "scans" / name / "mr.nii.gz")
    bad = tmp_path / "scans" / "b" / "mr.nii.gz"
    bad.write_bytes(bad.read_bytes()[:-200])
    with pytest.raises(CasesFailed, match=r"1 of 3 subjects could not be prepared:\nb: .*mr\.nii\.gz"):
        prepare(tmp_path / "scans", tmp_path / "dataset", Preparation(spacing_mm="native"))
    assert [s.id for s in read_manifest(tmp_path / "dataset").subjects] == ["a", "c"]
    notes = {name: (tmp_path / "dataset" / "subjects" / f"{name}.json").stat().st_mtime_ns for name in ("a", "c")}
    write_scan(ball(value=90), bad)
    assert len(prepare(tmp_path / "scans", tmp_path / "dataset", Preparation(spacing_mm="native")).subjects) == 3
    assert notes == {name: (tmp_path / "dataset" / "subjects" / f"{name}.json").stat().st_mtime_ns for name in notes}
    prepare(tmp_path / "scans", tmp_path / "dataset", Preparation(spacing_mm=6.0))
    assert read_manifest(tmp_path / "dataset").subject("a").images["mr"].grid.spacing == pytest.approx((6, 6, 6))


def test_what_others_wrote_and_the_scans_themselves_stay(tmp_path):
    study = tmp_path / "study"
    write_scan(ball(), study / "aligned" / "a" / "mr.nii.gz")
    (study / "aligned" / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}
    with pytest.raises(FileError, match="holds aligned, which prepare did not write"):
        prepare(study, study, Preparation(spacing_mm="native"))
    (study / "record.json").write_text('{"title": "of another program"}')
    with pytest.raises(FileError, match="was not written by prepare"):
        prepare(study, study, Preparation(spacing_mm="native"))
    assert {path: path.read_bytes() for path in before} == before
    write_scan(ball(), tmp_path / "scans" / "a" / "mr.nii.gz")
    prepare(tmp_path / "scans", tmp_path / "dataset", Preparation(spacing_mm="native"))
    write_scan(ball(), tmp_path / "dataset" / "aligned" / "a" / "mr.nii.gz")
    with pytest.raises(FileError, match="would replace"):
        prepare(tmp_path / "dataset" / "aligned", tmp_path / "dataset", Preparation(spacing_mm="native"))


def test_no_table_of_contents_outlives_the_arrays_that_it_is_of(tmp_path, monkeypatch):
    for name in ("a", "b"):
        write_scan(ball(), tmp_path / "scans" / name / "mr.nii.gz")
    prepare(tmp_path / "scans", tmp_path / "dataset", Preparation(spacing_mm="native"))
    with monkeypatch.context() as patched:
        patched.setattr(workflow, "_write_aligned", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            prepare(tmp_path / "scans", tmp_path / "dataset", Preparation(spacing_mm=6.0))
    with pytest.raises(FileError, match=r"dataset\.json"):
        Dataset(tmp_path / "dataset")
    prepare(tmp_path / "scans", tmp_path / "dataset", Preparation(spacing_mm="native"))
    assert Dataset(tmp_path / "dataset").read_all("a", "mr").shape == (40, 40, 40)


def test_arrays_that_are_gone_are_made_again(tmp_path):
    write_scan(ball(), tmp_path / "scans" / "a" / "mr.nii.gz")
    prepare(tmp_path / "scans", tmp_path / "dataset", Preparation(spacing_mm="native"))
    shutil.rmtree(tmp_path / "dataset" / "images.zarr" / "a")
    prepare(tmp_path / "scans", tmp_path / "dataset", Preparation(spacing_mm="native"))
    assert Dataset(tmp_path / "dataset").read_all("a", "mr").shape == (40, 40, 40)


def test_a_link_to_nothing_and_a_number_that_is_none_stop_their_subject_alone(tmp_path):
    for name in ("a", "b"):
        write_scan(ball(), tmp_path / "scans" / name / "mr.nii.gz")
    (tmp_path / "scans" / "c").mkdir()
    (tmp_path / "scans" / "c" / "mr.nii.gz").symlink_to(tmp_path / "annex" / "key")
    (tmp_path / "scans" / "b" / "subject.json").write_text('{"attributes": {"age_years": NaN}}')
    with pytest.raises(CasesFailed, match=r"(?s)2 of 3.*b: .*finite numbers.*c: .*links to what is not there"):
        prepare(tmp_path / "scans", tmp_path / "dataset", Preparation(spacing_mm="native"))
    assert [subject.id for subject in read_manifest(tmp_path / "dataset").subjects] == ["a"]


def test_new_voxels_under_the_same_header_are_new(tmp_path):
    image = SimpleITK.GetImageFromArray(np.asarray(ball().array).T)
    image.SetSpacing((5.0, 5.0, 5.0))
    (tmp_path / "scans" / "a").mkdir(parents=True)
    for factor in (1, 5):
        SimpleITK.WriteImage(image * factor, str(tmp_path / "scans" / "a" / "mr.mhd"))
        prepare(tmp_path / "scans", tmp_path / "dataset", Preparation(spacing_mm="native"))
    assert Dataset(tmp_path / "dataset").read_all("a", "mr").max() > 450


def test_hu_beyond_16_bits_stay_dense():
    np.testing.assert_array_equal(whole_hu(np.array([40000.0, -50000.0, 10.5, -1.6])), [32767, -32768, 10, -2])


def test_folders_without_scans_are_refused(tmp_path):
    with pytest.raises(FileError, match="no such folder"):
        prepare(tmp_path / "absent", tmp_path / "dataset", Preparation())
    with pytest.raises(DataError, match="no folder below it holds"):
        prepare(tmp_path, tmp_path / "dataset", Preparation())
    for parent in ("one", "two"):
        write_scan(ball(), tmp_path / parent / "same" / "mr.nii.gz")
    with pytest.raises(DataError, match="several folders are called same"):
        prepare(tmp_path, tmp_path / "dataset", Preparation())
