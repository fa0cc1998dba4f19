"""Datasets in other layouts than SynthRAD, from the command line's point of view: in, through a model, and scored."""

import json
import shutil

import numpy as np
import pytest

from dicom_series import straight, write_slices
from transmodal import cli
from transmodal.core.errors import CasesFailed, ConfigError, FileError
from transmodal.evaluation.cases import find_images
from transmodal.imaging.dicom_read import read_series
from transmodal.imaging.preparation import Preparation
from transmodal.imaging.scan import read_scan
from transmodal.methods.recipe import load_recipe
from transmodal.workflows.derivative import uncertainty_path
from transmodal.workflows.evaluate import evaluate
from transmodal.workflows.prepare import prepare
from transmodal.workflows.synthesize import synthesize
from transmodal.workflows.train import train

NATIVE = Preparation(spacing_mm="native")


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    recipe = load_recipe("baseline-threshold", ["train.steps=1", "train.batch_size=1"])
    return train(recipe, dataset, tmp_path_factory.mktemp("run") / "thresholds", quiet=True)


def call(*words):
    with pytest.raises(SystemExit) as end:
        cli.main([str(word) for word in words])
    return end.value.code or 0


@pytest.fixture
def scans(heads):
    """The MR and the CT of a head by its number."""
    return lambda k: {name: heads / "Task1" / "brain" / f"head{k}" / f"{name}.nii.gz" for name in ("mr", "ct")}


@pytest.fixture
def bids(scans, tmp_path):
    """Two people: one with a session, one without, whose MR has entities of its own."""
    root = tmp_path / "raw"
    places = {0: ("sub-01/ses-a/anat/sub-01_ses-a", ""), 1: ("sub-02/anat/sub-02", "_acq-mprage_run-1")}
    for k, (stem, entities) in places.items():
        (root / stem).parent.mkdir(parents=True)
        shutil.copy(scans(k)["mr"], root / f"{stem}{entities}_T1w.nii.gz")
        shutil.copy(scans(k)["ct"], root / f"{stem}_ct.nii.gz")
    (root / "dataset_description.json").write_text(json.dumps({"Name": "raw", "BIDSVersion": "1.10.0"}))
    return root


def test_a_bids_dataset_gives_a_bids_derivative_which_is_scored(run, bids, tmp_path, capsys):
    out = bids / "derivatives" / "transmodal"
    assert call("synthesize", bids, out, "--model", run) == 0
    assert "layout: BIDS, because dataset_description.json and sub-* folders are there; --layout" in capsys.readouterr().err
    first = out / "sub-01/ses-a/anat/sub-01_ses-a_space-T1w_desc-synthetic_ct.nii.gz"
    second = out / "sub-02/anat/sub-02_acq-mprage_run-1_space-T1w_desc-synthetic_ct.nii.gz"
    assert sorted(out.rglob("*.nii.gz")) == [first, second]
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "transmodal"
    assert (out / description["DatasetLinks"]["source"]).resolve() == bids.resolve()
    assert (out / ".bidsignore").read_text().split()[:2] == ["*_ct.nii.gz", "*_ct.json"]
    metadata = json.loads(second.with_name("sub-02_acq-mprage_run-1_space-T1w_desc-synthetic_ct.json").read_text())
    assert metadata["Sources"] == ["bids:source:sub-02/anat/sub-02_acq-mprage_run-1_T1w.nii.gz"]
    assert (metadata["Units"], metadata["Direction"]) == ("HU", "mr2ct")
    assert "NOT FOR DIAGNOSTIC USE" in metadata["Description"]

    sheet = evaluate(out, bids, tmp_path / "scores", protocols=["synthrad2023"])
    assert {case.case: case.source is not None for case in sheet.cases} == {"sub-01_ses-a": True, "sub-02": True}

    stamps = [path.stat().st_mtime_ns for path in (first, second)]
    second.unlink()
    assert synthesize(bids, out, run) == [first, second]
    assert [first.stat().st_mtime_ns == stamps[0], second.stat().st_mtime_ns == stamps[1]] == [True, False]


def test_an_uncertainty_in_bids_is_no_synthetic_image(tmp_path):
    anat = tmp_path / "sub-1" / "anat"
    anat.mkdir(parents=True)
    target = anat / "sub-1_space-T1w_desc-synthetic_ct.nii.gz"
    assert uncertainty_path(target).name == "sub-1_space-T1w_desc-uncertainty_ct.nii.gz"
    for path in (target, uncertainty_path(target)):
        path.touch()
    assert find_images(tmp_path, "sct") == {"sub-1": target}


def test_a_bids_derivative_does_not_take_the_place_of_another_dataset(run, bids):
    with pytest.raises(FileError, match="another BIDS dataset"):
        synthesize(bids, bids, run)
    assert json.loads((bids / "dataset_description.json").read_text())["Name"] == "raw"


def test_a_table_with_a_bad_row(run, scans, tmp_path, capsys):
    table = tmp_path / "scans.csv"
    lines = [f"{k},{scans(k)['mr']},{scans(k)['ct']},North" for k in (0, 1)]
    table.write_text("\n".join(["subject,mr,ct,hospital", *lines, "2,absent.nii.gz,,North"]))
    assert call("prepare", table, tmp_path / "dataset", "--native") == 2
    assert "2: " in (error := capsys.readouterr().err)
    assert "line 4, mr: " in error
    manifest = json.loads((tmp_path / "dataset" / "dataset.json").read_text())
    assert [(s["id"], s["attributes"]) for s in manifest["subjects"]] == [("0", {"hospital": "North"}), ("1", {"hospital": "North"})]
    with pytest.raises(CasesFailed, match="1 of 3"):
        synthesize(table, tmp_path / "out", run)
    assert sorted(path.parent.name for path in (tmp_path / "out").rglob("sct.nii.gz")) == ["0", "1"]
    with pytest.raises(ConfigError, match="name a folder"):
        synthesize(table, tmp_path / "sct.nii.gz", run)


def test_unpaired_folders(scans, tmp_path):
    for kind, k in (("mr", 0), ("ct", 1)):
        (tmp_path / f"my {kind}s").mkdir()
        shutil.copy(scans(k)[kind], tmp_path / f"my {kind}s" / "x.nii.gz")
    manifest = prepare(tmp_path / "my mrs", tmp_path / "dataset", NATIVE, ct_source=tmp_path / "my cts")
    assert {subject.id: subject.paired for subject in manifest.subjects} == {"mr-x": False, "ct-x": False}


def test_a_tree_of_patients_in_dicom(run, scans, tmp_path, capsys):
    array = np.rint(read_scan(scans(0)["mr"], "mr").array).astype(np.int16)
    positions = straight(array.shape[2], 4.5, start=(-90, -108, -99))
    place = {"positions": positions, "modality": "MR", "PixelSpacing": ["4.5", "4.5"]}
    for patient in ("../p1", "p2", "p3"):
        write_slices(tmp_path / "tree" / patient.strip("./"), array, series=patient, PatientID=patient, **place)
    write_slices(tmp_path / "tree" / "p3" / "again", array, series="again", PatientID="p3", SeriesNumber=8, **place)

    assert call("series", tmp_path / "tree", "--json") == 0
    rows = json.loads(capsys.readouterr().out)["series"]
    assert sorted((row["patient"], row["number"]) for row in rows) == [("../p1", "3"), ("p2", "3"), ("p3", "3"), ("p3", "8")]
    assert rows[0]["shape"] == list(array.shape)
    assert call("series", tmp_path / "tree") == 0
    assert "series 8: MR, head, 40x48x44" in capsys.readouterr().out

    with pytest.raises(CasesFailed, match=r"(?s)1 of 3 .*p3: .*2 MR series would do; .* with --series"):
        synthesize(tmp_path / "tree", tmp_path / "out", run)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["p1", "p1.json", "p2", "p2.json", "record.json"]
    made = read_series(tmp_path / "out" / "p1", "ct")
    assert made.volume.shape == array.shape
    stamp = (tmp_path / "out" / "p1").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "tree" / "p3" / "again")
    assert len(synthesize(tmp_path / "tree", tmp_path / "out", run)) == 3
    assert (tmp_path / "out" / "p1").stat().st_mtime_ns == stamp

    manifest = prepare(tmp_path / "tree", tmp_path / "dataset", NATIVE)
    assert [(s.id, s.images["mr"].source) for s in manifest.subjects] == [("p1", "head"), ("p2", "head"), ("p3", "head")]
