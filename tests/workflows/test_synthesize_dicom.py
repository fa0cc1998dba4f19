import json

import numpy as np
import pytest

from dicom_series import straight, write_slices
from transmodal import cli
from transmodal.core.errors import ConfigError, DataError, FileError, GeometryError
from transmodal.core.files import sha256
from transmodal.imaging.dicom_read import read_series
from transmodal.imaging.scan import read_scan
from transmodal.methods.recipe import load_recipe
from transmodal.workflows.synthesize import synthesize
from transmodal.workflows.train import train


def interrupted(*_, **__):
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    recipe = load_recipe("baseline-threshold", ["train.steps=1", "train.batch_size=1"])
    return train(recipe, dataset, tmp_path_factory.mktemp("run") / "thresholds", quiet=True)


@pytest.fixture(scope="module")
def array(heads):
    """A phantom head with its slices along z, rows to the back."""
    mr = read_scan(heads / "Task1" / "brain" / "head0" / "mr.nii.gz", "mr")
    return np.rint(mr.array).astype(np.int16)


def series(folder, array, **attributes):
    positions = straight(array.shape[2], 4.5, start=(-90, -108, -99))
    return write_slices(folder, array, positions, modality="MR", PixelSpacing=["4.5", "4.5"], **attributes)


def test_a_dicom_folder_gives_a_dicom_folder(run, array, tmp_path):
    scan, out = series(tmp_path / "mr", array), tmp_path / "sct"
    assert synthesize(scan, out, run) == [out]
    source, made = read_series(scan, "mr"), read_series(out, "ct")
    assert made.volume.grid.matches(source.volume.grid)
    assert made.volume.array.max() > 500
    weights = sha256(run / "weights.safetensors")
    assert weights in made.planes[0].get("SoftwareVersions")
    record = json.loads((tmp_path / "sct.json").read_text())
    assert record["inputs"] == {"mr": source.digest()}
    assert record["settings"]["series"] == source.series.uid
    assert {path.name for path in tmp_path.iterdir()} == {"mr", "sct", "sct.json"}


def test_a_dicom_folder_gives_a_scan_file_and_the_same_voxels(run, array, tmp_path):
    scan = series(tmp_path / "mr", array)
    synthesize(scan, tmp_path / "sct.nii.gz", run)
    synthesize(scan, tmp_path / "sct", run)
    nifti, dicom = read_scan(tmp_path / "sct.nii.gz", "ct"), read_series(tmp_path / "sct", "ct").volume
    assert nifti.grid.matches(dicom.grid)
    np.testing.assert_array_equal(nifti.array, dicom.array)


@pytest.mark.parametrize("last", ["write_json", "write_series"])
def test_the_same_command_goes_on_where_a_folder_of_patients_was_stopped(run, array, tmp_path, monkeypatch, last):
    for patient in ("a", "b"):
        series(tmp_path / "mr" / patient, array, series=patient, PatientID=patient)
    with monkeypatch.context() as patched:
        patched.setattr(f"transmodal.workflows.synthesize.{last}", interrupted)
        with pytest.raises(KeyboardInterrupt):
            synthesize(tmp_path / "mr", tmp_path / "sct", run)
    done = synthesize(tmp_path / "mr", tmp_path / "sct", run)
    assert [read_series(path, "ct").volume.shape for path in done] == [array.shape] * 2
    stamps = [path.stat().st_mtime_ns for path in done]
    assert [path.stat().st_mtime_ns for path in synthesize(tmp_path / "mr", tmp_path / "sct", run)] == stamps


def test_an_irregular_series_is_refused_and_forced_aloud(run, array, tmp_path, capsys):
    scan = series(tmp_path / "mr", array, edit=lambda ds, k: k != 20)
    with pytest.raises(GeometryError, match=r"1 missing slice.*--force-geometry"):
        synthesize(scan, tmp_path / "sct", run)
    with pytest.raises(SystemExit) as end:
        cli.main([str(word) for word in ("synthesize", scan, tmp_path / "sct", "--model", run, "--force-geometry")])
    assert not end.value.code
    assert "1 missing slice" in capsys.readouterr().err
    assert read_series(tmp_path / "sct", "ct").volume.shape == array.shape
    assert "1 missing slice" in json.loads((tmp_path / "sct.json").read_text())["settings"]["note"]


def test_one_of_two_series(run, array, tmp_path, capsys):
    series(tmp_path / "all" / "a", array, series="a", SeriesNumber=4)
    series(tmp_path / "all" / "b", array, series="b", SeriesNumber=5)
    with pytest.raises(DataError, match="2 MR series would do"):
        synthesize(tmp_path / "all", tmp_path / "sct", run)
    with pytest.raises(SystemExit):
        cli.main([str(word) for word in ("synthesize", tmp_path / "all", tmp_path / "sct", "--model", run, "--series", "5")])
    assert read_series(tmp_path / "sct", "ct").series.number == "1005"


def test_what_cannot_be_is_refused_before_any_work(run, heads, array, tmp_path):
    scan = series(tmp_path / "mr", array)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(FileError, match="there is something already"):
        synthesize(scan, tmp_path / "full", run)
    with pytest.raises(ConfigError, match=r"--force-geometry is for DICOM, and .* is SynthRAD"):
        synthesize(heads, tmp_path / "out", run, force_geometry=True)
    with pytest.raises(ConfigError, match="are for DICOM"):
        synthesize(heads / "Task1" / "brain" / "head0" / "mr.nii.gz", tmp_path / "out", run, series="3")
    single = next(scan.iterdir())
    with pytest.raises(GeometryError, match="a single slice"):
        synthesize(single, tmp_path / "sct", run)


def test_subjects_with_dicom_beside_them_stay_subjects(run, heads, array, tmp_path):
    (tmp_path / "in" / "head0").mkdir(parents=True)
    (tmp_path / "in" / "head0" / "mr.nii.gz").hardlink_to(heads / "Task1" / "brain" / "head0" / "mr.nii.gz")
    series(tmp_path / "in" / "head0" / "dicom", array)
    assert synthesize(tmp_path / "in", tmp_path / "out", run) == [tmp_path / "out" / "head0" / "sct.nii.gz"]
