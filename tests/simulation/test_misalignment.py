import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from transmodal.core.volume import Grid, Volume
from transmodal.simulation.misalignment import HeadTransform, draw_transform, move


def _grid(oblique: bool = False) -> Grid:
    affine = np.diag([2.0, 1.5, 2.5, 1.0])
    affine[:3, 3] = (-40, -30, -50)
    if oblique:
        turn = np.array([[0.0, -1.0, 0.0, 3.0], [1.0, 0.0, 0.0, -5.0], [0.0, 0.0, 1.0, 9.0], [0.0, 0.0, 0.0, 1.0]])
        affine = turn @ affine
    return Grid((40, 48, 36), affine)


def _blob(grid: Grid, center: np.ndarray) -> Volume:
    indices = np.indices(grid.shape).reshape(3, -1).T.astype(float)
    squared = ((grid.to_world(indices) - center) ** 2).sum(axis=1)
    return Volume(np.exp(-squared / (2 * 4.0**2)).reshape(grid.shape).astype(np.float32), grid.affine, "mr")


def _centroid(volume: Volume) -> np.ndarray:
    return volume.grid.to_world(np.array(ndimage.center_of_mass(np.asarray(volume.array))))


@given(st.integers(0, 2**31), st.floats(0, 50), st.floats(0, 90))
@settings(max_examples=40)
def test_shift_and_angle_are_exact(seed, shift, angle):
    grid = _grid()
    matrix = np.array(draw_transform(np.random.default_rng(seed), grid, translation_mm=shift, rotation_deg=angle).matrix)
    moved_center = matrix[:3, :3] @ grid.center + matrix[:3, 3]
    assert np.linalg.norm(moved_center - grid.center) == pytest.approx(shift, abs=1e-6)
    assert np.rad2deg(np.arccos(np.clip((np.trace(matrix[:3, :3]) - 1) / 2, -1, 1))) == pytest.approx(angle, abs=1e-4)
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-9)


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_landmarks_go_where_the_matrix_says(seed, oblique):
    grid = _grid(oblique)
    transform = draw_transform(np.random.default_rng(seed), grid, translation_mm=4.0, rotation_deg=10.0)
    landmark = grid.center + np.array([6.0, -5.0, 4.0])
    moved = move(_blob(grid, landmark), transform, fill=0.0)
    np.testing.assert_allclose(_centroid(moved), transform.forward(landmark[None])[0], atol=0.05)


def test_a_deformed_image_shows_at_each_point_what_was_at_its_origin():
    grid = _grid()
    transform = draw_transform(np.random.default_rng(2), grid, translation_mm=3.0, rotation_deg=5.0, warp_mm=2.0)
    indices = np.indices(grid.shape).reshape(3, -1).T.astype(float)
    # An image that is linear in space is interpolated exactly.
    ramp = Volume((grid.to_world(indices) @ (1.0, 2.0, -1.0)).reshape(grid.shape), grid.affine, "mr")
    moved = np.asarray(move(ramp, transform, fill=1e6).array)
    inside = tuple(slice(n // 3, -n // 3) for n in grid.shape)
    expected = (transform.backward(grid.to_world(indices)) @ (1.0, 2.0, -1.0)).reshape(grid.shape)
    np.testing.assert_allclose(moved[inside], expected[inside], atol=0.02)


def test_backward_undoes_forward_without_a_smooth_part():
    transform = draw_transform(np.random.default_rng(0), _grid(), translation_mm=3.0, rotation_deg=20.0)
    points = np.random.default_rng(1).normal(0, 50, (20, 3))
    np.testing.assert_allclose(transform.backward(transform.forward(points)), points, atol=1e-9)


def test_the_record_restores_the_transform():
    transform = draw_transform(np.random.default_rng(0), _grid(), translation_mm=3.0, rotation_deg=20.0, warp_mm=1.0)
    assert HeadTransform.model_validate_json(transform.model_dump_json()) == transform


def test_types_and_ranges_survive():
    grid = _grid()
    transform = draw_transform(np.random.default_rng(0), grid, translation_mm=3.0, rotation_deg=20.0, warp_mm=2.0)
    ct = Volume(np.random.default_rng(0).integers(-1000, 2000, grid.shape).astype(np.int16), grid.affine, "ct")
    labels = Volume((np.asarray(ct.array) > 0).astype(np.uint8) * 5, grid.affine, "labels")
    moved_ct, moved_labels = move(ct, transform, fill=-1000.0), move(labels, transform, fill=0.0)
    assert moved_ct.array.dtype == np.int16
    assert moved_ct.array.min() >= -1000
    assert moved_ct.array.max() <= 2000
    assert set(np.unique(moved_labels.array)) == {0, 5}
