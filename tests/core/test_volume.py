import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from transmodal.core.errors import DataError, GeometryError
from transmodal.core.volume import Grid, Volume, require_same_grid


def affine_of(angles: tuple[float, float, float], spacing: tuple[float, float, float], flip: bool, origin: np.ndarray) -> np.ndarray:
    a, b, c = angles
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_y @ about_z @ np.diag(spacing) @ np.diag([-1.0 if flip else 1.0, 1, 1])
    affine[:3, 3] = origin
    return affine


affines = st.builds(
    affine_of,
    st.tuples(*[st.floats(-3, 3)] * 3),
    st.tuples(*[st.floats(0.2, 8)] * 3),
    st.booleans(),
    arrays(np.float64, 3, elements=st.floats(-500, 500)),
)


@given(affine=affines, points=arrays(np.float64, (5, 3), elements=st.floats(-300, 300)))
def test_world_and_voxel_are_inverse(affine, points):
    grid = Grid((3, 4, 5), affine)
    np.testing.assert_allclose(grid.to_world(grid.to_voxel(points)), points, atol=1e-8)


@given(affine=affines)
def test_spacing_is_the_distance_between_neighbours(affine):
    grid = Grid((2, 2, 2), affine)
    for axis in range(3):
        step = grid.to_world(np.eye(3)[axis]) - grid.to_world(np.zeros(3))
        assert np.linalg.norm(step) == pytest.approx(grid.spacing[axis])


def test_axis_codes_name_the_direction_of_each_axis():
    assert Grid((2, 2, 2), np.diag([-1.0, 1, 1, 1])).axis_codes == "LAS"


def test_center_is_the_mean_of_the_corners():
    grid = Grid((3, 4, 5), affine_of((0.1, 0.2, 0.3), (1, 2, 3), True, np.array([5.0, 6, 7])))
    np.testing.assert_allclose(grid.center, grid.corners().mean(axis=0))


@pytest.mark.parametrize(
    "affine",
    [np.zeros((4, 4)), np.diag([1.0, 1, 0, 1]), np.full((4, 4), np.nan), np.diag([1.0, 1, 1, 2]), np.eye(4)[[0, 0, 2, 3]]],
    ids=["zero", "flat", "nan", "last row", "parallel axes"],
)
def test_unusable_affines_are_refused(affine):
    with pytest.raises(GeometryError):
        Grid((2, 2, 2), affine)


def test_an_empty_axis_is_refused():
    with pytest.raises(GeometryError, match="at least one voxel"):
        Grid((2, 0, 2), np.eye(4))


def test_a_volume_cannot_be_changed_and_leaves_its_source_alone():
    voxels = np.zeros((2, 2, 2), np.float32)
    volume = Volume(voxels, np.eye(4), "mr")
    with pytest.raises(ValueError, match="read-only"):
        volume.array[0, 0, 0] = 1
    voxels[0, 0, 0] = 1  # the caller's own array stays writable


def test_other_voxels_must_have_the_same_shape():
    volume = Volume(np.zeros((2, 3, 4)), np.eye(4), "mr")
    assert volume.with_array(np.ones((2, 3, 4)), "ct").modality == "ct"
    with pytest.raises(GeometryError, match=r"\(2, 2, 2\)"):
        volume.with_array(np.ones((2, 2, 2)))


def test_nan_voxels_are_counted():
    voxels = np.zeros((2, 2, 2))
    voxels[0] = np.nan
    with pytest.raises(DataError, match=r"scan.nii: 4 voxels"):
        Volume(voxels, np.eye(4), "ct").require_finite("scan.nii")


def test_grids_match_within_a_micrometre():
    grid = Grid((10, 10, 10), np.eye(4))
    near, far = np.eye(4), np.eye(4)
    near[0, 3], far[0, 3] = 1e-4, 1e-2
    assert grid.matches(Grid((10, 10, 10), near))
    assert not grid.matches(Grid((10, 10, 11), np.eye(4)))
    with pytest.raises(GeometryError, match=r"a.nii and b.nii lie on different grids"):
        require_same_grid(grid, Grid((10, 10, 10), far), "a.nii", "b.nii")
