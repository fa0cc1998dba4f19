import json

import numpy as np
import pytest

from simulated_heads import cut, simulated_head
from transmodal.core.errors import DataError
from transmodal.core.volume import Volume
from transmodal.imaging.grid import isotropic_grid, resample
from transmodal.imaging.guard import FEATURES, Typical, guard, read_typical, require_head
from transmodal.imaging.head_template import read_template
from transmodal.imaging.pose import fit_head
from transmodal.imaging.scan import read_scan
from transmodal.simulation.contrast import MR_PRESETS, CTConfig, simulate_ct, simulate_mr
from transmodal.simulation.labels import brain_mask

UPSIDE_DOWN = np.diag([-1.0, 1.0, -1.0])
BACK_TO_FRONT = np.diag([-1.0, -1.0, 1.0])
FRONT_AND_TOP_SWAPPED = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
SCANS = [
    "heads/t1_head_defaced.mgz",
    "heads/t2_head.nii.gz",
    pytest.param("heads/t1_head.nii.gz", marks=pytest.mark.slow),
    pytest.param("tiny/HeadMRVolume.mhd", marks=pytest.mark.slow),
    pytest.param("anatomy/colin27_t1.nii.gz", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def tissues():
    return simulated_head(40, 3)


@pytest.fixture(scope="module")
def scan(tissues):
    return simulate_mr(tissues, MR_PRESETS["t1w"], np.random.default_rng(0))


def turned(scan: Volume, turn: np.ndarray) -> Volume:
    """The same voxels under a header that is wrong by a turn."""
    affine = np.eye(4)
    affine[:3] = turn @ scan.affine[:3]
    return Volume(scan.array, affine, scan.modality)


def outcome(scan: Volume, name: str) -> str:
    return next(check.outcome for check in guard(scan).checks if check.name == name)


def limb(bones: int) -> Volume:
    """A cylinder of fat and muscle, with a bone or two that hold marrow and are thicker at the joint."""
    n, rng = (64, 64, 80), np.random.default_rng(bones)
    x, y, z = np.meshgrid(*[3.0 * (np.arange(k) - (k - 1) / 2) for k in n], indexing="ij", sparse=True)
    across = np.hypot(x, y) / (1 + 0.1 * np.sin(z / 60))
    image = np.select([across < 65, across < 75], [45.0, 100.0], 0.0)
    for place in (0,) if bones == 1 else (-22, 22):
        bone, thickness = np.hypot(x - place, y - 5), 18 + 14 * np.exp(-((z / 40) ** 2))
        image = np.where(bone < thickness, np.where(bone < thickness - 5, 90.0, 8.0), image)
    return Volume((image + np.abs(rng.normal(0, 3, n))).astype(np.float32), np.diag([3.0, 3.0, 3.0, 1.0]), "mr")


@pytest.mark.parametrize("contrast", MR_PRESETS)
def test_whole_heads_pass_in_every_contrast(tissues, contrast):
    scan = simulate_mr(tissues, MR_PRESETS[contrast], np.random.default_rng(1))
    assert guard(scan).reasons("refuse") == []


@pytest.mark.parametrize("age", [1, pytest.param(7, marks=pytest.mark.slow), pytest.param(80, marks=pytest.mark.slow)])
def test_heads_of_all_ages_pass(age):
    scan = simulate_mr(simulated_head(age, 5), MR_PRESETS["t1w"], np.random.default_rng(age))
    assert guard(scan).reasons("refuse") == []


@pytest.mark.parametrize("spacing", [(2.0, 2.0, 6.0), (6.0, 1.5, 1.5)])
def test_slices_of_any_direction_pass(scan, spacing):
    assert guard(resample(scan, isotropic_grid(scan.grid, spacing))).outcome == "proceed"


def test_a_head_that_ends_at_the_base_of_the_skull_passes(scan):
    assert guard(cut(scan, 2, 29, scan.shape[2])).outcome == "proceed"


def test_a_head_in_any_order_of_axes_and_turned_a_little_passes(scan):
    order = Volume(scan.array.transpose(2, 0, 1)[::-1], scan.affine[:, [2, 0, 1, 3]] @ np.diag([-1, 1, 1, 1]), "mr")
    tilt = np.deg2rad(15)
    nod = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    for moved in (order, turned(scan, nod)):
        assert guard(moved).outcome == "proceed"


def test_a_stripped_skull_is_refused(scan, tissues):
    stripped = scan.with_array(np.where(brain_mask(tissues).array, scan.array, 0))
    with pytest.raises(DataError, match=r"mr\.nii: 0% of what should be scalp, face and neck has signal: the skull has been stripped off"):
        require_head(stripped, "mr.nii")


@pytest.mark.parametrize("window", [(-1024, 3071), (0, 80)])
def test_a_ct_that_is_given_as_an_mr_is_refused(tissues, window):
    ct = simulate_ct(tissues, CTConfig(), np.random.default_rng(0)).array.astype(np.float32)
    assert outcome(tissues.with_array(np.clip(ct, *window) - window[0], "mr"), "bone") == "refuse"


def test_a_ct_that_is_given_as_one_is_looked_at_too(tissues, scan):
    ct = simulate_ct(tissues, CTConfig(), np.random.default_rng(0))
    report = guard(ct)
    assert report.outcome == "proceed"
    assert "bone" not in {check.name for check in report.checks}
    assert guard(turned(ct, UPSIDE_DOWN)).outcome == "refuse"


@pytest.mark.parametrize("bones", [1, 2])
def test_a_limb_is_refused(bones):
    assert guard(limb(bones)).outcome == "refuse"


def test_noise_is_refused_and_nothing_more_is_asked(scan):
    noise = scan.with_array(np.random.default_rng(0).normal(100, 20, scan.shape).astype(np.float32))
    report = guard(noise)
    assert report.checks[-1].name == "head"
    assert report.outcome == "refuse"
    assert "does not look like a head" in report.reasons("refuse")[0]


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (UPSIDE_DOWN, "what the header calls the top looks like the bottom of the head;"),
        (BACK_TO_FRONT, "what the header calls the front looks like the back of the head;"),
        (FRONT_AND_TOP_SWAPPED, "the front looks like the top of the head and what the header calls the top looks like the back"),
    ],
)
def test_a_wrong_orientation_is_refused_and_told(scan, turn, words):
    with pytest.raises(DataError, match=words):
        require_head(turned(scan, turn), "mr.nii")


def test_left_and_right_cannot_be_told_apart(scan):
    mirrored = turned(scan, np.diag([-1.0, 1.0, 1.0]))
    as_it_is, as_it_is_not = (fit_head(volume) for volume in (scan, mirrored))
    assert as_it_is_not.stated.explained == pytest.approx(as_it_is.stated.explained, abs=0.01)
    assert guard(mirrored).outcome == "proceed"


@pytest.mark.parametrize("axis", [0, 1])
def test_half_a_head_is_refused_whether_cut_off_or_blank(scan, axis):
    middle = scan.shape[axis] // 2
    assert outcome(cut(scan, axis, 0, middle), "cranium seen") == "refuse"
    blank = scan.array.copy()
    blank[(slice(None),) * axis + (slice(middle, None),)] = 0
    assert outcome(scan.with_array(blank), "cranium seen") == "refuse"


def test_a_slab_of_the_brain_is_refused(scan):
    assert guard(cut(scan, 2, 56, 73)).outcome == "refuse"


@pytest.mark.parametrize(("spacing", "name", "expected"), [((1, 1, 8), "slice distance", "warn"), ((1, 1, 13), "slice distance", "refuse")])
def test_thick_slices_are_warned_of_and_thicker_ones_refused(spacing, name, expected):
    scan = Volume(
        np.random.default_rng(0).random((64, 64, 20)).astype(np.float32), np.diag([*(3.0 * s if s == 1 else s for s in spacing), 1.0]), "mr"
    )
    found = {check.name: check.outcome for check in guard(scan).checks}
    assert (found[name], found["pixel size"]) == (expected, "proceed")


def test_force_goes_on_and_the_record_says_what_was_found(scan):
    report = require_head(turned(scan, UPSIDE_DOWN), "mr.nii", force=True)
    record = json.loads(json.dumps(report.record()))
    assert record["outcome"] == "refuse"
    assert record["checks"]["orientation"]["outcome"] == "refuse"
    assert record["checks"]["orientation"]["limits"] == "warned of above 0, refused above 0.005"
    assert "looks like the bottom" in record["checks"]["orientation"]["words"]
    assert "words" not in record["checks"]["scalp"]


def test_the_distance_is_that_of_mahalanobis():
    typical = Typical(mean=(1.0, 2.0), covariance=((4.0, 0.0), (0.0, 9.0)), limit=3.0)
    assert typical.distance(np.array([3.0, 5.0])) == pytest.approx(np.sqrt(2))
    assert len(read_typical().mean) == len(FEATURES)


@pytest.mark.parametrize("name", SCANS)
def test_real_scans_pass_and_are_refused_without_their_skull(shared_data, name):
    scan = read_scan(shared_data / name, "mr")
    assert guard(scan).reasons("refuse") == []
    coarse = resample(scan, isotropic_grid(scan.grid, 3.0, upright=True))
    points = coarse.grid.to_world(np.argwhere(np.ones(coarse.shape)).astype(float))
    brain = read_template().read(fit_head(coarse).best.pose.to_template(points))[:, 3:].sum(axis=1) > 0.55
    assert outcome(coarse.with_array(np.where(brain.reshape(coarse.shape), coarse.array, 0)), "scalp") == "refuse"
