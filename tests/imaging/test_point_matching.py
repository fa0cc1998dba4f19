import numpy as np
import pytest
from pydantic import ValidationError
from scipy.spatial.transform import Rotation

from transmodal.core.errors import DataError
from transmodal.imaging.point_matching import PointMatching, _soft_assign, match_points
from transmodal.imaging.registration import Transform
from transmodal.imaging.surface import extract_surface


@pytest.fixture(scope="module")
def head(simulated_head):
    """Points on the skin."""
    return extract_surface(simulated_head["mask"]).points


@pytest.fixture(scope="module")
def brain(simulated_head):
    return extract_surface(simulated_head["brain"]).points


def draw(seed, centre, degrees=20.0, spread=0.15, shear=0.1, shift_mm=30.0):
    """A rotation by an angle, a scaling along each axis, a shear, and a shift by a length, in random directions."""
    rng = np.random.default_rng(seed)
    axis, direction = (vector / np.linalg.norm(vector) for vector in rng.normal(size=(2, 3)))
    sheared = np.eye(3)
    sheared[np.triu_indices(3, 1)] = rng.uniform(-shear, shear, 3)
    affine = np.eye(4)
    affine[:3, :3] = (
        Rotation.from_rotvec(np.deg2rad(degrees) * axis).as_matrix() @ np.diag(rng.uniform(1 - spread, 1 + spread, 3)) @ sheared
    )
    affine[:3, 3] = centre - affine[:3, :3] @ centre + shift_mm * direction
    return Transform(affine)


def half(points, axis, side):
    middle = (points[:, axis].min() + points[:, axis].max()) / 2
    return points[side * (points[:, axis] - middle) > 0]


def error_mm(found, true, points):
    return np.linalg.norm(found.apply(points) - true.apply(points), axis=1).mean()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("part", ["head", "brain"])
def test_a_known_affine_transform_is_recovered_exactly(part, seed, request):
    points = request.getfixturevalue(part)
    true = draw(seed, points.mean(axis=0))
    shuffled = np.random.default_rng(seed).permutation(true.apply(points))
    assert error_mm(match_points(points, shuffled), true, points) < 0.01


@pytest.mark.parametrize("part", ["head", "brain"])
def test_surfaces_that_share_no_point_are_matched_to_a_tenth_of_a_voxel(part, request):
    """Voxels of about 3.5 mm."""
    points = request.getfixturevalue(part)
    true = draw(0, points.mean(axis=0))
    assert error_mm(match_points(points[::2], true.apply(points[1::2])), true, points) < 0.35


def test_noise_and_outliers_are_borne(head):
    """Noise of 1 mm along each axis, and three in ten points from anywhere around the head."""
    rng, true = np.random.default_rng(0), draw(1, head.mean(axis=0))
    moving = true.apply(head) + rng.normal(0, 1, head.shape)
    stray = rng.uniform(moving.min(axis=0) - 20, moving.max(axis=0) + 20, (int(len(head) * 3 / 7), 3))
    assert error_mm(match_points(head, np.concatenate([moving, stray])), true, head) < 1.0


@pytest.mark.parametrize("cut", ["fixed", "moving"])
@pytest.mark.parametrize(("axis", "side"), [(0, -1), (0, 1), (1, -1), (1, 1), (2, -1), (2, 1)])
def test_half_of_a_head_is_laid_on_the_whole(head, cut, axis, side):
    """Right over the half that is there and the half that is not, without a point in common."""
    true = draw(2, head.mean(axis=0))
    fixed, moving = head[::2], true.apply(head[1::2])
    found = match_points(half(fixed, axis, side), moving) if cut == "fixed" else match_points(fixed, half(moving, axis, side))
    assert error_mm(found, true, head) < 1.0


def test_a_brain_is_matched_to_one_whose_crown_is_cut_off(brain):
    true = draw(3, brain.mean(axis=0), degrees=10)
    moving = true.apply(brain[brain[:, 2] < brain[:, 2].max() - 40])
    assert error_mm(match_points(brain, moving), true, brain) < 0.5


def test_matching_is_repeatable(brain):
    moving = draw(4, brain.mean(axis=0)).apply(brain[::3])
    first, second = (match_points(brain, moving).affine for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_soft_assignment_shares_each_point_out_once():
    """Of two points on two targets each takes its own; a third, ten standard deviations off, takes none."""
    points = np.array([[0.0, 0, 0], [10, 0, 0], [0, 50, 0]])
    matches = _soft_assign(points, points[:2], 1.0)
    np.testing.assert_allclose(matches, [[1, 0], [0, 1], [0, 0]], atol=0.15)
    assert matches.sum(axis=0).max() <= 1 and matches.sum(axis=1).max() <= 1
    hot = _soft_assign(points, points[:2], 1000.0)
    assert hot.std() < 1e-3 and hot.sum() == pytest.approx(2, abs=0.1)


def test_surfaces_that_cannot_be_matched_are_refused(brain):
    with pytest.raises(DataError, match="the fixed surface has 20 points; matching needs 100"):
        match_points(brain[:20], brain)
    broken = brain.copy()
    broken[7, 1] = np.nan
    with pytest.raises(DataError, match=r"1 of the \d+ points of the moving surface are NaN or infinite"):
        match_points(brain, broken)
    with pytest.raises(DataError, match="lie in a plane"):
        match_points(brain * (1, 1, 0), brain)
    with pytest.raises(DataError, match="do not match anywhere"):  # in micrometres
        match_points(1000 * brain, 1000 * draw(0, brain.mean(axis=0)).apply(brain))


def test_the_temperature_can_only_fall():
    with pytest.raises(ValidationError, match="the temperature can only fall"):
        PointMatching(start_mm=2, end_mm=4)
