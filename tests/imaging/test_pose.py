import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transmodal.core.errors import DataError
from transmodal.core.volume import Volume
from transmodal.imaging.grid import isotropic_grid
from transmodal.imaging.head_template import TISSUES, read_template, template_grid
from transmodal.imaging.pose import Pose, fit_head, right_angle_turns, solve_levels

LEVELS = np.array([0.02, 0.9, 0.5, 0.1, 0.3, 0.6, 0.8])


def painted(pose: Pose, shape=(40, 44, 44), spacing_mm=6.0) -> Volume:
    """The template itself as a scan, with an intensity for each tissue."""
    affine = np.diag([spacing_mm] * 3 + [1.0])
    affine[:3, 3] = pose.center - spacing_mm * (np.array(shape) - 1) / 2
    grid = Volume(np.zeros(shape), affine, "mr").grid
    points = grid.to_world(np.argwhere(np.ones(shape)).astype(float))
    shares = read_template().read(pose.to_template(points))
    return Volume((LEVELS[0] + shares @ LEVELS[1:]).reshape(shape).astype(np.float32), affine, "mr")


def test_there_are_24_turns_the_identity_first_and_none_twice():
    turns = right_angle_turns()
    np.testing.assert_array_equal(turns[0], np.eye(3))
    assert len({turn.tobytes() for turn in turns}) == 24
    assert all(np.linalg.det(turn) == pytest.approx(1) for turn in turns)


@given(st.integers(0, 23), st.lists(st.floats(-0.3, 0.3), min_size=9, max_size=9))
def test_points_come_back_from_the_template(turn, values):
    pose = Pose(right_angle_turns()[turn], np.array([3.0, -4.0, 5.0]), np.array(values) * ([100] * 3 + [1] * 6))
    points = np.random.default_rng(0).normal(0, 80, (20, 3))
    np.testing.assert_allclose(pose.to_scan(pose.to_template(points)), points, atol=1e-9)


def test_the_template_is_symmetric_and_its_points_read_as_stored():
    template = read_template()
    assert template.grid.matches(template_grid())
    np.testing.assert_array_equal(template.shares, template.shares[::-1])
    index = np.array([[10, 12, 20], [15, 20, 25]])
    there = template.grid.to_world(index.astype(float))
    np.testing.assert_allclose(template.read(there), template.shares[tuple(index.T)], atol=1e-5)
    between = template.grid.to_world(np.array([[10.5, 12.0, 20.0]]))
    np.testing.assert_allclose(template.read(between)[0], template.shares[10:12, 12, 20].mean(axis=0), atol=1e-5)


def test_the_neck_goes_on_below_the_template():
    template = read_template()
    bottom = template.grid.to_world(np.array([16.0, 15.0, 0.0]))
    np.testing.assert_allclose(template.read(np.stack([bottom, bottom - (0.0, 0.0, 90.0)]))[1], template.shares[16, 15, 0], atol=1e-3)


def test_levels_are_those_that_made_the_values():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(len(TISSUES) + 1), 500)[:, 1:]
    levels, left = solve_levels(shares, LEVELS[0] + shares @ LEVELS[1:])
    np.testing.assert_allclose(levels, LEVELS, atol=0.01)
    assert np.abs(left).max() < 0.01


@pytest.mark.parametrize("turn", [0, 4, 17])
def test_a_known_pose_is_found_whatever_the_orientation(turn):
    true = Pose(right_angle_turns()[turn], np.array([8.0, -12.0, 30.0]), np.array([6, -9, 12, -0.08, -0.1, -0.05, 0.12, 0.05, -0.06]))
    fits = fit_head(painted(true))
    found = fits.best
    np.testing.assert_array_equal(found.pose.turn, true.turn)
    assert (found is fits.stated) == (turn == 0)
    assert found.explained > 0.97
    points = read_template().points("brain")[::50]
    assert np.linalg.norm(found.pose.to_scan(points) - true.to_scan(points), axis=1).max() < 6


def test_padding_says_nothing_of_what_lies_there():
    true = Pose(np.eye(3), np.zeros(3), np.zeros(9))
    scan = painted(true)
    blank = scan.array.copy()
    blank[:, :, :18] = blank.min()
    fits = fit_head(scan.with_array(blank))
    assert fits.copy.volume.grid.shape[2] < isotropic_grid(scan.grid, 8.0).shape[2] * 0.65
    assert fits.best is fits.stated
    assert fits.best.explained > 0.95


def test_a_scan_of_one_intensity_and_a_speck_holds_nothing():
    speck = np.zeros((20, 20, 20), np.float32)
    speck[3, 3, 3] = 1
    with pytest.raises(DataError, match="one intensity, but for specks"):
        fit_head(Volume(speck, np.diag([8.0, 8.0, 8.0, 1.0]), "mr"))
