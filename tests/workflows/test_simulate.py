import json

import numpy as np
import pytest

from transmodal.core.errors import ConfigError, FileError
from transmodal.core.record import RECORD_NAME
from transmodal.core.volume import Volume
from transmodal.imaging.layouts import find_subjects
from transmodal.imaging.scan import read_scan, write_scan
from transmodal.simulation.misalignment import HeadTransform
from transmodal.workflows.simulate import SUBJECT_NAME, simulate

SHAPE = (32, 36, 32)
SCANS = ("mr", "ct", "mask", "brain", "labels")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("simulated")
    return out, simulate(out, subjects=2, seed=3, shape=SHAPE, misalign_mm=4.0, misalign_deg=3.0)


def test_layout_is_that_of_synthrad(made):
    out, ids = made
    assert ids == ["sim0001", "sim0002"]
    subjects = find_subjects(out).subjects
    assert [subject.id for subject in subjects] == ids
    for subject in subjects:
        assert set(subject.files) == set(SCANS)
        assert 18 <= subject.attributes["age_years"] <= 85
    assert json.loads((out / RECORD_NAME).read_text())["settings"]["misalign_mm"] == 4


def test_the_scans_of_a_subject_share_a_grid_and_make_sense(made):
    out, ids = made
    for name in ids:
        folder = out / "Task1" / "brain" / name
        scans = {scan: read_scan(folder / f"{scan}.nii.gz", "mask" if scan == "brain" else scan) for scan in SCANS}
        assert all(scan.grid.matches(scans["mr"].grid) and scan.shape == SHAPE for scan in scans.values())
        mask, brain, ct = (np.asarray(scans[scan].array) for scan in ("mask", "brain", "ct"))
        assert 0.1 < mask.mean() < 0.6
        assert 0.2 < brain.sum() / mask.sum() < 0.5
        assert (mask | ~brain).all()
        assert ct[mask].mean() > -100 > ct[~mask].mean()
        assert ct.max() > 900


def test_the_true_transform_is_recorded(made):
    out, ids = made
    description = json.loads((out / "Task1" / "brain" / ids[0] / SUBJECT_NAME).read_text())
    transform = HeadTransform.model_validate(description["mr_to_ct"])
    matrix = np.array(transform.matrix)
    mr = read_scan(out / "Task1" / "brain" / ids[0] / "mr.nii.gz", "mr")
    assert np.linalg.norm(transform.forward(mr.grid.center[None])[0] - mr.grid.center) == pytest.approx(4, abs=0.01)
    assert np.rad2deg(np.arccos((np.trace(matrix[:3, :3]) - 1) / 2)) == pytest.approx(3, abs=1e-3)


def test_finished_subjects_are_kept_and_changed_settings_are_not(tmp_path):
    def times():
        return [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*.nii.gz"))]

    simulate(tmp_path, subjects=1, shape=(24, 24, 24))
    first, image = times(), (tmp_path / "Task1/brain/sim0001/mr.nii.gz").read_bytes()
    simulate(tmp_path, subjects=1, shape=(24, 24, 24))
    assert times() == first
    simulate(tmp_path, subjects=1, seed=1, shape=(24, 24, 24))
    assert all(after > before for after, before in zip(times(), first, strict=True))
    simulate(tmp_path, subjects=1, shape=(24, 24, 24))
    assert (tmp_path / "Task1/brain/sim0001/mr.nii.gz").read_bytes() == image


def test_heads_of_others_are_not_written_over(tmp_path):
    scan = tmp_path / "Task1" / "brain" / "p0001" / "mr.nii.gz"
    scan.parent.mkdir(parents=True)
    scan.write_bytes(b"of a patient")
    with pytest.raises(FileError, match="holds p0001, which simulate did not write"):
        simulate(tmp_path, subjects=1, shape=(24, 24, 24), prefix="p")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [scan]
    assert scan.read_bytes() == b"of a patient"


def test_a_subject_does_not_depend_on_how_many_there_are(made, tmp_path):
    out, _ = made
    simulate(tmp_path, subjects=1, seed=3, shape=SHAPE, misalign_mm=4.0, misalign_deg=3.0)
    for scan in SCANS:
        path = f"Task1/brain/sim0001/{scan}.nii.gz"
        assert (tmp_path / path).read_bytes() == (out / path).read_bytes()


def _label_map(folder):
    axis = np.arange(24) - 11.5
    distance = np.sqrt(sum(a**2 for a in np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)))
    array = np.zeros((24, 24, 24), dtype=np.uint8)
    for radius, number in ((10, 1), (8, 2), (6, 3), (5, 5)):
        array[distance < radius] = number
    write_scan(Volume(array, np.diag([4.0, 4.0, 4.0, 1.0]), "labels"), folder / "map.nii.gz")
    return folder / "map.nii.gz"


def test_pairs_from_a_label_map(tmp_path):
    ids = simulate(tmp_path / "out", subjects=2, labels=_label_map(tmp_path), mapping="usc_19.5", contrast="t2w")
    first, second = (read_scan(tmp_path / "out/Task1/brain" / name / "labels.nii.gz", "labels") for name in ids)
    assert first.shape == second.shape == (24, 24, 24)
    assert 0.005 < (np.asarray(first.array) != np.asarray(second.array)).mean() < 0.4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subjects": 0}, "--subjects 0"),
        ({"contrast": "flair"}, "flair.*t1w"),
        ({"seed": -1}, "seed"),
        ({"shape": (0, 32, 32)}, "shape"),
        ({"age_years": 400.0}, "age_years"),
        ({"misalign_mm": -1.0}, "misalign_mm"),
        ({"mapping": "brainweb"}, "--labels and --mapping"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        simulate(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
