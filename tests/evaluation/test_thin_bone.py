import numpy as np
import pytest
from scipy.special import ndtr

from phantom_bone import all_of, ct_of, places
from small_cases import SHAPE, case_of, noisy_case
from transmodal.core.volume import Grid, Volume
from transmodal.evaluation.protocol import score
from transmodal.evaluation.surface import bone_surface
from transmodal.evaluation.thin_bone import THIN_BONE, thin_points

OBLIQUE = np.array([2.0, 3.0, 6.0]) / 7


def grid(spacing, count=20):
    return Grid((count, count, count), np.diag([spacing, spacing, spacing, 1.0]))


def thin(distance_mm, where):
    return thin_of(ct_of(distance_mm, where))


def thin_of(image):
    """Whether bone is thin, at the points of which both sides are in the grid."""
    bone = bone_surface(image, all_of(image))
    points = image.grid.to_voxel(bone.surface.points)
    inner = ((points > 4) & (points < np.array(image.shape) - 5)).all(axis=1)
    return thin_points(bone)[inner]


@pytest.mark.parametrize(("normal", "spacing"), [((1, 0, 0), 1.0), (OBLIQUE, 0.6)], ids=["along the voxels", "oblique"])
@pytest.mark.parametrize(("thickness_mm", "expected"), [(1.2, True), (1.95, True), (2.05, False), (5.0, False)])
def test_plates_are_thin_below_2_mm(normal, spacing, thickness_mm, expected):
    where = grid(spacing)
    across = np.abs((places(where) - where.center - 0.3) @ np.asarray(normal, dtype=float))
    assert (thin(across - thickness_mm / 2, where) == expected).all()


@pytest.mark.parametrize(("thickness_mm", "expected"), [(0.5, True), (1.5, False)])
def test_a_dense_plate_that_the_scanner_blurs_looks_thicker_than_it_is(thickness_mm, expected):
    """A plate of 1500 HU in soft tissue of 40 HU, by a Gaussian of 1 mm at half height, in voxels of 1 mm."""
    where = grid(1.0)
    across = (places(where) - where.center - 0.3) @ OBLIQUE
    edges = [ndtr((across + side * thickness_mm / 2) * np.sqrt(8 * np.log(2))) for side in (1, -1)]
    image = Volume((40 + 1460 * (edges[0] - edges[1])).astype(np.float32), where.affine, "ct")
    assert (thin_of(image) == expected).mean() > 0.99


@pytest.mark.parametrize(("diameter_mm", "expected"), [(1.2, True), (1.7, True), (2.3, False), (3.0, False)])
def test_rods_are_thin_below_2_mm(diameter_mm, expected):
    where = grid(0.4, 24)
    from_axis = np.linalg.norm((places(where) - where.center)[..., 1:], axis=-1)
    assert (thin(from_axis - diameter_mm / 2, where) == expected).all()


def test_a_rough_thick_plate_is_thick():
    """Noise of 30 HU at an edge of 400 HU a mm moves the surface by a tenth of a mm, which tilts it too."""
    where = grid(1.0)
    image = ct_of(np.abs(places(where)[..., 0] - 9.5) - 4, where)
    noisy = image.with_array(image.array + np.random.default_rng(0).normal(0, 30, image.shape).astype(np.float32))
    bone = bone_surface(noisy, all_of(noisy))
    assert thin_points(bone).mean() < 0.02


def two_plates(thick=True, thin=True):
    """Plates of 8 and 1.6 mm across a grid of 1 mm."""
    where = grid(1.0, 30)
    x = places(where)[..., 0]
    thick_mm, thin_mm = np.abs(x - 8) - 4, np.abs(x - 22) - 0.8
    return ct_of(np.minimum(thick_mm if thick else 99, thin_mm if thin else 99) + 0 * x, where)


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ({}, {"recall_thin_bone": 1, "recall_thick_bone": 1, "missing_bone": 0, "missing_thin_bone": 0}),
        ({"thin": False}, {"recall_thin_bone": 0, "recall_thick_bone": 1, "missing_bone": 0.5, "missing_thin_bone": 1}),
        ({"thick": False}, {"recall_thin_bone": 1, "recall_thick_bone": 0, "missing_bone": 0.5, "missing_thin_bone": 0}),
        ({"thick": False, "thin": False}, {"recall_thin_bone": 0, "recall_thick_bone": 0, "missing_bone": 1, "missing_thin_bone": 1}),
    ],
)
def test_thin_and_thick_bone_are_scored_apart(kept, expected):
    scores = score(case_of(two_plates(), two_plates(**kept)), THIN_BONE)
    assert scores.values == pytest.approx(expected, abs=1e-3)
    assert scores.details["thin_share"] == pytest.approx(1 / 8)  # of 7 voxels across, and 1: those at the level are not bone


def test_a_hole_is_missing_where_no_bone_is_within_2_mm_of_it():
    """Of a hole of 16 mm a square of 12 mm: nearer to its rim there is bone."""
    where = grid(1.0, 32)
    points = places(where)
    plate = np.abs(points[..., 0] - 15.5) < 3
    hole = (np.abs(points[..., 1:] - 15.5) < 8).all(axis=-1)
    reference, prediction = (ct_of(np.where(bone, -2.0, 2.0), where) for bone in (plate, plate & ~hole))
    values = score(case_of(reference, prediction), THIN_BONE).values
    assert values["missing_bone"] == pytest.approx(12**2 / 31**2, rel=0.05)
    assert values["missing_thin_bone"] is None
    assert values["recall_thick_bone"] == pytest.approx(1 - 16**2 / 32**2)


def test_a_prediction_may_be_a_mask():
    reference = two_plates()
    mask = reference.with_array(reference.array > 250, "mask")
    assert score(case_of(reference, mask), THIN_BONE).values == pytest.approx(
        {"recall_thin_bone": 1, "recall_thick_bone": 1, "missing_bone": 0, "missing_thin_bone": 0}
    )


def test_without_true_bone_there_are_reasons():
    case = noisy_case()
    scores = score(case_of(case.reference.with_array(np.full(SHAPE, 40.0)), case.prediction), THIN_BONE)
    assert set(scores.reasons.values()) == {"the true CT has no bone inside the mask"}
    assert scores.reasons.keys() == scores.values.keys()


def test_the_thin_bone_of_a_simulated_head_is_a_part_of_it(simulated_head):
    ct, mask = simulated_head["ct"], np.asarray(simulated_head["mask"].array)
    scores = score(case_of(ct, ct, mask), THIN_BONE)
    assert scores.values == {"recall_thin_bone": 1, "recall_thick_bone": 1, "missing_bone": 0, "missing_thin_bone": 0}
    assert 0 < scores.details["thin_share"] < 0.5
