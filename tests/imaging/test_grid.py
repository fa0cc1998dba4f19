import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transmodal.core.volume import Grid, Volume
from transmodal.imaging.grid import canonical, isotropic_grid, resample, shear_mm

seeds = st.integers(0, 10_000)


def ramp(grid: Grid) -> np.ndarray:
    """A function that is linear in space, at every voxel of a grid."""
    points = grid.to_world(np.indices(grid.shape).reshape(3, -1).T.astype(float))
    return (100 + points @ (0.5, -0.3, 0.8)).reshape(grid.shape)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, shear=st.floats(-0.4, 0.4))
def test_canonical_keeps_every_voxel_at_its_place(seed, shear, make_affine):
    rng = np.random.default_rng(seed)
    affine = make_affine(seed)
    affine[:3, 1] += shear * affine[:3, 0]
    volume = Volume(rng.permutation(60).reshape(3, 4, 5), affine, "labels")
    result = canonical(volume)
    assert result.grid.axis_codes == "RAS"
    assert np.linalg.det(result.affine[:3, :3]) > 0 or np.linalg.det(affine[:3, :3]) < 0
    for value in (0, 17, 59):
        before = volume.grid.to_world(np.argwhere(volume.array == value).astype(float))
        after = result.grid.to_world(np.argwhere(result.array == value).astype(float))
        np.testing.assert_allclose(after, before, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, shear=st.floats(-0.4, 0.4))
def test_a_linear_ramp_survives_resampling(seed, shear, make_affine):
    source = make_affine(seed)
    source[:3, 0] += shear * source[:3, 1]
    grid = Grid((14, 15, 16), source)
    volume = Volume(ramp(grid), grid.affine, "mr")
    inner = make_affine(seed + 1)
    inner[:3, :3] *= 0.15 * min(grid.spacing) / np.linalg.norm(inner[:3, :3], axis=0)
    inner[:3, 3] = grid.center - inner[:3, :3] @ (1.5, 2.0, 2.5)
    target = Grid((4, 5, 6), inner)
    result = resample(volume, target)
    assert result.array.dtype == np.float32
    assert result.grid.matches(target)
    np.testing.assert_allclose(result.array, ramp(target), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(resample(volume, target, order=3).array, ramp(target), rtol=1e-3, atol=0.05)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, modality=st.sampled_from(["mr", "ct", "mask", "labels"]), order=st.sampled_from([0, 1, 3]))
def test_resampling_to_the_same_grid_changes_nothing(seed, modality, order, make_affine):
    array = np.random.default_rng(seed).integers(0, 2 if modality == "mask" else 900, (4, 5, 6))
    volume = Volume(array, make_affine(seed), modality)
    result = resample(volume, volume.grid, order=order)
    np.testing.assert_array_equal(result.array, array)
    assert result.array.dtype == (bool if modality == "mask" else array.dtype if modality == "labels" else np.float32)


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_the_nearest_voxel_is_taken_for_labels(seed, make_affine):
    rng = np.random.default_rng(seed)
    volume = Volume(rng.integers(0, 5, (6, 7, 8)).astype(np.uint8), make_affine(seed), "labels")
    fine = volume.affine @ np.diag([1 / 3, 1 / 3, 1 / 3, 1])
    fine[:3, 3] -= volume.affine[:3, :3] @ (1 / 3, 1 / 3, 1 / 3)
    result = resample(volume, Grid((18, 21, 24), fine))
    assert result.array.dtype == np.uint8
    np.testing.assert_array_equal(result.array, volume.array.repeat(3, 0).repeat(3, 1).repeat(3, 2))


@pytest.mark.parametrize(
    ("modality", "array", "fill", "expected"),
    [
        ("ct", np.full((4, 4, 4), 40, np.int16), None, -1024),
        ("mr", np.full((4, 4, 4), 40, np.int16), None, 0),
        ("mr", np.linspace(-1, 1, 64).reshape(4, 4, 4), None, -1),
        ("mr", np.full((4, 4, 4), 40, np.int16), -7.0, -7),
        ("labels", np.full((4, 4, 4), 3), None, 0),
        ("mask", np.ones((4, 4, 4), bool), None, 0),
    ],
)
def test_what_lies_outside_is_filled_by_modality(modality, array, fill, expected):
    volume = Volume(array, np.eye(4), modality)
    shifted = np.eye(4)
    shifted[0, 3] = 2
    result = resample(volume, Grid((4, 4, 4), shifted), fill=fill)
    assert (result.array[2:] == expected).all()
    np.testing.assert_array_equal(result.array[:2], np.float32(array[2:]))


def test_coarser_grids_do_not_alias():
    stripes = np.zeros((64, 16, 16), np.float32)
    stripes[::2] = 100
    volume = Volume(stripes, np.eye(4), "mr")
    result = resample(volume, Grid((15, 4, 4), np.diag([4.0, 4, 4, 1])))
    np.testing.assert_allclose(result.array[2:-2], 50, atol=0.6)


def test_smoothing_keeps_the_sum_and_the_centre_and_widens_by_the_point_spread():
    x, y, z = np.indices((61, 61, 61))
    array = np.exp(-((x - 30) ** 2 + (y - 30) ** 2 + (z - 30) ** 2) / (2 * 5.0**2)).astype(np.float32)
    result = resample(Volume(array, np.eye(4), "mr"), isotropic_grid(Grid((61, 61, 61), np.eye(4)), (3.0, 2.0, 1.0)))
    weights = result.array.astype(float).ravel() / result.array.sum()
    points = result.grid.to_world(np.indices(result.shape).reshape(3, -1).T.astype(float))
    np.testing.assert_allclose(weights @ points, (30, 30, 30), atol=1e-3)
    assert result.array.sum() * 6 == pytest.approx(array.sum(), rel=1e-3)
    # Cardoso et al.: the variance grows by (target spacing^2 - source spacing^2) / (8 ln 2); interpolation adds a little.
    grown = weights @ (points - 30) ** 2 - 5.0**2
    np.testing.assert_allclose(grown, (np.array([9, 4, 1]) - 1) / (8 * np.log(2)), atol=0.25)


def test_an_order_that_is_not_offered_is_refused():
    with pytest.raises(ValueError, match="order = 2"):
        resample(Volume(np.zeros((2, 2, 2)), np.eye(4), "mr"), Grid((2, 2, 2), np.eye(4)), order=2)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, spacing=st.tuples(*[st.floats(0.3, 9)] * 3), shear=st.sampled_from([0.0, 0.3]))
def test_an_isotropic_grid_covers_the_field_of_view_and_shares_its_centre(seed, spacing, shear, make_affine):
    affine = make_affine(seed)
    affine[:3, 2] += shear * affine[:3, 0]
    grid = Grid((5, 6, 7), affine)
    result = isotropic_grid(grid, spacing)
    assert result.axis_codes == "RAS"
    np.testing.assert_allclose(result.spacing, spacing, rtol=1e-9)
    np.testing.assert_allclose(result.center, grid.center, atol=1e-6)
    assert shear_mm(result) < 1e-6 and np.linalg.det(result.affine[:3, :3]) > 0
    edges = np.stack(np.meshgrid(*[(-0.5, n - 0.5) for n in grid.shape], indexing="ij"), -1).reshape(8, 3)
    inside = result.to_voxel(grid.to_world(edges))
    assert (inside > -0.502).all() and (inside < np.array(result.shape) - 0.498).all()


def test_a_grid_that_has_the_spacing_already_is_its_own_isotropic_grid(make_affine):
    affine = make_affine(4)
    grid = canonical(Volume(np.zeros((5, 6, 7)), affine, "mr")).grid
    if np.linalg.det(grid.affine[:3, :3]) > 0:
        assert isotropic_grid(grid, grid.spacing).matches(grid)
    plain = Grid((5, 6, 7), np.diag([2.0, 2, 2, 1]))
    assert isotropic_grid(plain, 2.0).matches(plain)


def test_shear_is_measured_at_the_far_corner():
    affine = np.eye(4)
    assert shear_mm(Grid((11, 11, 11), affine)) == pytest.approx(0, abs=1e-12)
    affine[0, 1] = 0.1
    assert 0.4 < shear_mm(Grid((11, 11, 11), affine)) < 1.0
