import json
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from transmodal.core.errors import CasesFailed, FileError
from transmodal.core.files import sha256
from transmodal.core.jobs import Workers
from transmodal.core.volume import Volume
from transmodal.data.manifest import read_manifest
from transmodal.data.splits import Split
from transmodal.data.store import Dataset
from transmodal.imaging.grid import isotropic_grid, resample
from transmodal.imaging.preparation import Preparation, Registration, TemplateSpace, read_template
from transmodal.imaging.scan import read_scan, write_scan
from transmodal.methods.recipe import load_recipe
from transmodal.methods.runs import load_method
from transmodal.simulation.misalignment import draw_transform, move
from transmodal.workflows.evaluate import evaluate
from transmodal.workflows.prepare import prepare
from transmodal.workflows.train import train


@pytest.fixture(scope="module")
def misaligned(simulated_head, tmp_path_factory):
    """A subject whose CT lies elsewhere, and the true transform."""
    folder = tmp_path_factory.mktemp("misaligned")
    mr, ct = simulated_head["mr"], simulated_head["ct"]
    truth = draw_transform(np.random.default_rng(5), mr.grid, translation_mm=10, rotation_deg=8)
    write_scan(mr, folder / "a" / "mr.nii.gz")
    write_scan(move(ct, truth, fill=-1000), folder / "a" / "ct.nii.gz")
    return folder, truth


@pytest.fixture(scope="module")
def registered(misaligned, tmp_path_factory):
    folder = tmp_path_factory.mktemp("registered") / "dataset"
    prepare(misaligned[0], folder, Preparation(spacing_mm="native", registration=Registration(kind="rigid")))
    return folder


def head_points(simulated_head):
    return simulated_head["mr"].grid.to_world(np.argwhere(simulated_head["mask"].array)[::97].astype(float))


def test_the_ct_is_registered_and_the_manifest_says_how(misaligned, registered, simulated_head):
    note = read_manifest(registered).subject("a").steps.registration
    points, matrix = head_points(simulated_head), np.array(note.matrix)
    found = points @ matrix[:3, :3].T + matrix[:3, 3]
    truth = misaligned[1].forward(points)
    assert np.linalg.norm(found - truth, axis=1).mean() < 0.5
    assert note.moved_mm == pytest.approx(np.linalg.norm(points - truth, axis=1).mean(), abs=1)
    assert note.doubt_mm < 0.5
    data = Dataset(registered)
    inside = (data.read_all("a", "ct_mask") > 0) & simulated_head["mask"].array
    true, stored = simulated_head["ct"].array[inside].astype(float), data.read_all("a", "ct")[inside].astype(float)
    assert np.corrcoef(true, stored)[0, 1] > 0.9


def test_the_registration_floor_is_kept_with_the_dataset(registered):
    floor = read_manifest(registered).subject("a").steps.registration.floor
    assert 0 < floor["mae_hu"] < 60
    assert floor["psnr_db"] > 25
    assert json.loads((registered / "aligned" / "record.json").read_text())["settings"]["floor"] == pytest.approx(floor)


def test_aligned_pairs_are_references_on_the_grid_of_the_mr(registered, misaligned, tmp_path):
    aligned = registered / "aligned"
    mr = read_scan(misaligned[0] / "a" / "mr.nii.gz", "mr")
    ct, mask = read_scan(aligned / "a" / "ct.nii.gz", "ct"), read_scan(aligned / "a" / "mask.nii.gz", "mask")
    assert ct.grid.matches(mr.grid)
    assert mask.array.any()
    assert ct.array[mask.array].min() > -1024  # the mask keeps to the field of view of the CT
    write_scan(ct, tmp_path / "predictions" / "a" / "sct.nii.gz")
    sheet = evaluate(tmp_path / "predictions", aligned, tmp_path / "scores")
    assert sheet.cases[0].scores["synthrad2023"].values["mae_hu"] == 0
    assert sheet.registration == "rigid registration by mutual information (elastix)"
    assert sheet.floor == read_manifest(registered).subject("a").steps.registration.floor


def test_where_the_ct_has_not_been_is_no_part_of_its_mask(misaligned, simulated_head, tmp_path):
    """A CT without the crown, and a mask of the whole head."""
    ct = read_scan(misaligned[0] / "a" / "ct.nii.gz", "ct")
    write_scan(simulated_head["mr"], tmp_path / "scans" / "a" / "mr.nii.gz")
    write_scan(simulated_head["mask"], tmp_path / "scans" / "a" / "mask.nii.gz")
    write_scan(Volume(ct.array[:, :, :44], ct.affine, "ct"), tmp_path / "scans" / "a" / "ct.nii.gz")
    prepare(
        tmp_path / "scans", tmp_path / "dataset", Preparation(spacing_mm="native", registration=Registration(kind="rigid", floor=False))
    )
    data = Dataset(tmp_path / "dataset")
    mr_mask, ct_mask = (data.read_all("a", f"{name}_mask") > 0 for name in ("mr", "ct"))
    np.testing.assert_array_equal(mr_mask, simulated_head["mask"].array)
    assert 0.5 < ct_mask.sum() / mr_mask.sum() < 0.95
    assert (data.read_all("a", "ct")[ct_mask] < -1000).mean() < 0.01


def test_a_given_mask_may_lie_on_another_grid_and_what_is_no_longer_aligned_goes(misaligned, simulated_head, tmp_path):
    scans = shutil.copytree(misaligned[0], tmp_path / "scans")
    mask = simulated_head["mask"]
    write_scan(resample(mask, isotropic_grid(mask.grid, 5.0)), scans / "a" / "mask.nii.gz")
    asked = Preparation(spacing_mm="native", bias_correction=True, registration=Registration(kind="rigid", floor=False))
    prepare(scans, tmp_path / "dataset", asked)
    aligned = read_scan(tmp_path / "dataset" / "aligned" / "a" / "mask.nii.gz", "mask")
    assert aligned.grid.matches(simulated_head["mr"].grid)
    prepare(scans, tmp_path / "dataset", Preparation(spacing_mm="native"))
    assert not (tmp_path / "dataset" / "aligned").exists()


def test_another_template_of_the_same_name_is_read_anew(simulated_head, tmp_path):
    mr = simulated_head["mr"]
    for factor in (1, 2):
        write_scan(mr.with_array(mr.array * np.float32(factor)), tmp_path / "t1.nii.gz")
        assert read_template(str(tmp_path / "t1.nii.gz"), "mr").array.max() == pytest.approx(factor * mr.array.max())


def test_a_pair_on_one_grid_is_left_alone_unless_asked(misaligned, tmp_path):
    manifest = prepare(misaligned[0], tmp_path / "dataset", Preparation(spacing_mm="native"))
    assert manifest.subject("a").steps.registration is None
    assert not (tmp_path / "dataset" / "aligned").exists()


def test_every_subject_has_a_picture_on_the_page(registered):
    picture = registered / "quality" / "a.jpg"
    with Image.open(picture) as image:
        assert image.size > (600, 200)
    page = (registered / "quality.html").read_text()

    class Reader(HTMLParser):
        sources: list[str] = []
        links: list[str] = []

        def handle_starttag(self, tag, attrs):
            values = dict(attrs)
            self.sources += [values["src"]] if "src" in values else []
            self.links += [values["href"]] if "href" in values else []

    reader = Reader()
    reader.feed(page)
    assert len(reader.sources) == 1
    assert all(source.startswith("data:image/jpeg;base64,") for source in reader.sources)
    assert not reader.links
    assert "rigid registration moved the head by" in page


def test_landmarks_register_a_pair(misaligned, simulated_head, tmp_path):
    folder, truth = misaligned
    points = head_points(simulated_head)[::40]
    for name in ("mr", "ct"):
        (tmp_path / "scans" / "a").mkdir(parents=True, exist_ok=True)
        (tmp_path / "scans" / "a" / f"{name}.nii.gz").write_bytes((folder / "a" / f"{name}.nii.gz").read_bytes())
        rows = points if name == "mr" else truth.forward(points)
        lines = [f"p{k},{x},{y},{z}" for k, (x, y, z) in enumerate(rows.tolist())]
        (tmp_path / "scans" / "a" / f"{name}_landmarks.csv").write_text("name,x,y,z\n" + "\n".join(lines))
    settings = Preparation(spacing_mm="native", registration=Registration(kind="landmarks"))
    note = prepare(tmp_path / "scans", tmp_path / "dataset", settings).subject("a").steps.registration
    np.testing.assert_allclose(np.array(note.matrix), np.array(truth.matrix), atol=1e-6)
    assert note.doubt_mm < 1e-6
    (tmp_path / "scans" / "a" / "ct_landmarks.csv").unlink()
    with pytest.raises(CasesFailed, match=r"needs the files mr_landmarks\.csv and ct_landmarks\.csv"):
        prepare(tmp_path / "scans", tmp_path / "dataset", settings)


def test_the_brain_is_needed_to_leave_the_skull_out(misaligned, tmp_path):
    settings = Preparation(registration=Registration(kind="rigid", region="brain"))
    with pytest.raises(CasesFailed, match=r"brain\.nii\.gz"):
        prepare(misaligned[0], tmp_path / "dataset", settings)


@pytest.mark.slow
def test_registration_without_the_skull(misaligned, simulated_head, tmp_path):
    folder, truth = misaligned
    (tmp_path / "scans" / "a").mkdir(parents=True)
    for name in ("mr", "ct"):
        (tmp_path / "scans" / "a" / f"{name}.nii.gz").write_bytes((folder / "a" / f"{name}.nii.gz").read_bytes())
    write_scan(simulated_head["brain"], tmp_path / "scans" / "a" / "brain.nii.gz")
    settings = Preparation(spacing_mm="native", registration=Registration(kind="rigid", region="brain", floor=False))
    note = prepare(tmp_path / "scans", tmp_path / "dataset", settings).subject("a").steps.registration
    points, matrix = head_points(simulated_head), np.array(note.matrix)
    error = np.linalg.norm(points @ matrix[:3, :3].T + matrix[:3, 3] - truth.forward(points), axis=1)
    assert error.mean() < 2.0
    assert note.floor == {}


def test_the_hull_of_the_ct_serves_both_images(heads, tmp_path):
    scans = tmp_path / "scans" / "a"
    scans.mkdir(parents=True)
    for name in ("mr", "ct"):
        (scans / f"{name}.nii.gz").write_bytes((heads / "Task1" / "brain" / "head0" / f"{name}.nii.gz").read_bytes())
    prepare(tmp_path / "scans", tmp_path / "dataset", Preparation(spacing_mm="native", mask="hull", crop=True))
    data = Dataset(tmp_path / "dataset")
    mask = data.read_all("a", "mr_mask")
    np.testing.assert_array_equal(mask, data.read_all("a", "ct_mask"))
    assert len(set(mask.shape)) == 1


def test_bias_correction_says_what_it_took_out(misaligned, tmp_path):
    manifest = prepare(misaligned[0], tmp_path / "dataset", Preparation(spacing_mm="native", bias_correction=True))
    low, high = manifest.subject("a").steps.bias_range
    assert 0.5 < low < 1 < high < 2


@pytest.mark.slow
def test_a_template_travels_into_the_dataset_and_the_run(misaligned, simulated_head, tmp_path):
    write_scan(simulated_head["mr"], tmp_path / "mine" / "t1.nii.gz")
    write_scan(simulated_head["brain"], tmp_path / "mine" / "brain.nii.gz")
    space = TemplateSpace(mr=str(tmp_path / "mine" / "t1.nii.gz"), brain=str(tmp_path / "mine" / "brain.nii.gz"))
    settings = Preparation(spacing_mm="native", template=space, measure_in="brain", registration=Registration(kind="rigid", floor=False))
    manifest = prepare(misaligned[0], tmp_path / "dataset", settings)
    assert manifest.preparation.template.mr == "template/mr.nii.gz"
    assert manifest.subject("a").images["mr"].shape == simulated_head["mr"].shape
    split = Split(train=("a",))
    train(load_recipe("baseline-threshold"), tmp_path / "dataset", tmp_path / "run", split=split)
    for path in (tmp_path / "mine").iterdir():
        path.unlink()
    (tmp_path / "dataset").rename(tmp_path / "elsewhere")
    (tmp_path / "run").rename(tmp_path / "moved")
    mr = simulated_head["mr"]
    result = load_method(tmp_path / "moved", torch.device("cpu")).synthesize(mr)
    assert result.grid.matches(mr.grid)
    inside = simulated_head["mask"].array
    assert np.abs(result.array[inside].astype(float) - simulated_head["ct"].array[inside]).mean() < 400


def test_a_template_that_is_not_there_is_named(misaligned, tmp_path):
    with pytest.raises(FileError, match=r"absent\.nii\.gz"):
        prepare(misaligned[0], tmp_path / "dataset", Preparation(template=TemplateSpace(mr=str(tmp_path / "absent.nii.gz"))))


def test_several_processes_make_the_same_dataset(heads, dataset, tmp_path):
    prepare(heads, tmp_path / "dataset", Preparation(spacing_mm="native"), workers=Workers(2))
    first, second = read_manifest(dataset), read_manifest(tmp_path / "dataset")
    assert [s.model_copy(update={"steps": None}) for s in first.subjects] == [s.model_copy(update={"steps": None}) for s in second.subjects]
    chunk = "images.zarr/head1/mr/c/0/0/0"
    assert sha256(dataset / chunk) == sha256(tmp_path / "dataset" / chunk)
