"""A tree of DICOM files of several patients."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from dicom_series import uid, write_slices
from transmodal.core.errors import ConfigError, DataError, FileError, GeometryError
from transmodal.imaging import dicom_read
from transmodal.imaging.dicom_read import find_series, read_series
from transmodal.imaging.layouts import find_subjects


@pytest.fixture(scope="module")
def array():
    return np.random.default_rng(0).integers(0, 1000, (7, 6, 5)).astype(np.int16)


def series(folder: Path, array: np.ndarray, patient: str, name: str, **attributes) -> Path:
    return write_slices(folder, array, series=f"{patient}-{name}", PatientID=patient, **attributes)


@pytest.fixture
def tree(array, tmp_path) -> Path:
    """Two patients with MR and CT, and one with a CT only, each in a folder of its own."""
    source = tmp_path / "tree"
    scanner = {"Manufacturer": "Acme", "ManufacturerModelName": "M1", "InstitutionName": "North", "PatientAge": "042Y"}
    mr = {"modality": "MR", "ScanningSequence": ["GR", "IR"], "MagneticFieldStrength": "1.5", **scanner}
    series(source / "p1" / "mr", array, "p1", "mr", SeriesDescription="T1 MPRAGE", **mr)
    series(source / "p1" / "ct", array + 1, "p1", "ct")
    series(source / "p2" / "mr", array + 2, "p2", "mr", modality="MR")
    series(source / "p2" / "ct", array + 3, "p2", "ct", PatientAge="006M")
    series(source / "p3", array + 4, "p3", "ct")
    (source / "p3" / "report.txt").write_text("no image")
    return source


def test_patients_are_subjects_wherever_their_files_lie(tree, array, tmp_path):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for k, path in enumerate(sorted(tree.rglob("*.dcm"))):
        shutil.copy(path, mixed / f"IM{k:03}")
    for source in (tree, mixed):
        found = find_subjects(source)
        assert found.layout == "dicom"
        assert {s.id: sorted(s.files) for s in found.subjects} == {"p1": ["ct", "mr"], "p2": ["ct", "mr"], "p3": ["ct"]}
        one, two, three = found.subjects
        np.testing.assert_array_equal(one.files["mr"].read("mr").array, array)
        np.testing.assert_array_equal(two.files["ct"].read("ct").array, array + 3)
        assert one.files["mr"].name == "T1 MPRAGE"
        assert one.files["mr"].series == uid("series", "p1-mr")
        assert one.attributes == {
            "vendor": "Acme",
            "model": "M1",
            "hospital": "North",
            "age_years": 42,
            "technique": "GR\\IR",
            "field_strength_t": 1.5,
        }
        assert (two.attributes, three.attributes) == ({"age_years": 0.5}, {})
    assert find_subjects(tree).subjects[0].files["mr"].digest() == read_series(tree / "p1", "mr").digest() == one.files["mr"].digest()


def test_each_header_is_parsed_once(tree, monkeypatch):
    parsed = []
    read = dicom_read.read_header
    monkeypatch.setattr(dicom_read, "read_header", lambda path: parsed.append(path) or read(path))
    find_subjects(tree)
    assert len(parsed) == len(set(parsed)) == 25


def test_hostile_and_absent_names_of_patients(array, tmp_path):
    series(tmp_path / "a", array, "../../x", "ct")
    series(tmp_path / "b", array, "<script>", "ct")
    series(tmp_path / "c" / "ct", array, "", "c")
    series(tmp_path / "d" / "ct", array, "", "d")
    assert [s.id for s in find_subjects(tmp_path).subjects] == ["c", "d", "script", "x"]


def test_two_series_that_do_are_the_problem_of_their_patient(tree, array):
    series(tree / "p2" / "more", array, "p2", "more", modality="MR", SeriesNumber=9, SeriesDescription="T2 TSE")
    one, two, _ = find_subjects(tree).subjects
    assert one.problem is None
    assert isinstance(two.problem, DataError)
    assert "p2: 2 MR series would do; choose one by its number, UID or description with --mr-series:\n" in str(two.problem)
    assert "T2 TSE" in str(two.problem)
    assert find_subjects(tree, wanted=("ct",)).subjects[1].problem is None
    for text in ("9", "*tse*", uid("series", "p2-more")):
        one, two, three = find_subjects(tree, mr_series=text).subjects
        assert two.files["mr"].name == "T2 TSE"
        assert isinstance(one.problem, ConfigError)
        assert three.problem is None  # without an MR there is nothing to choose


def test_a_series_that_is_no_volume_is_refused_and_forced(tree):
    sorted((tree / "p1" / "ct").iterdir())[2].unlink()
    one, two, _ = find_subjects(tree).subjects
    assert isinstance(one.problem, GeometryError)
    assert set(one.files) == {"mr"}
    assert two.problem is None
    forced = find_subjects(tree, force_geometry=True).subjects[0]
    assert forced.problem is None
    assert forced.files["ct"].read("ct").shape[:2] == (7, 6)


def test_a_damaged_file_spoils_those_whose_folder_it_is_in(tree):
    victim = sorted((tree / "p1" / "mr").iterdir())[1]
    victim.write_bytes(victim.read_bytes()[:300])
    one, two, three = find_subjects(tree).subjects
    assert isinstance(one.problem, FileError)
    assert str(victim) in str(one.problem)
    assert two.problem is None
    assert three.problem is None
    (tree / "p2" / "other").mkdir()
    moved = victim.rename(tree / "p2" / "other" / "IM1")
    assert [s.problem is None for s in find_subjects(tree).subjects] == [False, False, True]  # p1 now lacks a slice
    (tree / "nobody").mkdir()
    moved.rename(tree / "nobody" / "IM1")
    with pytest.raises(FileError, match="IM1"):
        find_subjects(tree)
    with pytest.raises(FileError, match="IM1"):
        find_series(tree)


def test_a_tree_without_mr_and_ct(array, tmp_path):
    write_slices(tmp_path, array, modality="PT")
    with pytest.raises(DataError, match="no MR and no CT there; it holds:\n  series 3: PT"):
        find_subjects(tmp_path)


def test_dicom_in_a_table_and_in_unpaired_folders(tree, array, tmp_path):
    scans = tmp_path / "scans.csv"
    scans.write_text("subject,mr,ct\na,tree/p1/mr,tree/p1/ct\nb,tree/p1/ct,\n")
    one, two = find_subjects(scans).subjects
    np.testing.assert_array_equal(one.files["ct"].read("ct").array, array + 1)
    assert "no MR series is a volume" in str(two.problem)
    found = find_subjects(tree / "p1", ct_source=tree / "p3")
    assert [s.id for s in found.subjects] == ["ct-p3", "mr-p1"]
    np.testing.assert_array_equal(found.subjects[0].files["ct"].read("ct").array, array + 4)
