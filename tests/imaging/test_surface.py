import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from transmodal.core.errors import DataError
from transmodal.core.volume import Grid, Volume
from transmodal.imaging.surface import closed_surface, extract_surface, spread_evenly

RADIUS = 40.0


def ball(affine, shape=(48, 48, 48), radius=RADIUS, centre=None):
    """A mask of a ball, in the middle of its grid unless it is said where."""
    grid = Grid(shape, affine)
    voxels = grid.to_world(np.moveaxis(np.indices(shape, dtype=float), 0, -1))
    inside = np.linalg.norm(voxels - (grid.center if centre is None else centre), axis=-1) < radius
    return Volume(inside, affine, "mask")


def corners(surface):
    return surface.points[surface.faces].transpose(1, 0, 2)


def area_mm2(surface):
    a, b, c = corners(surface)
    return np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2


def volume_mm3(surface):
    """By the divergence theorem: positive only if the faces run counter-clockwise as seen from outside."""
    a, b, c = corners(surface)
    return (a * np.cross(b, c)).sum() / 6


def upright(spacing):
    return np.diag([spacing, spacing, spacing, 1.0])


def oblique(handed):
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn * np.linalg.det(turn) * (2.0, 2.2, handed * 3.0)
    affine[:3, 3] = (30, -200, 12)
    return affine


@pytest.mark.parametrize("affine", [upright(2.0), oblique(1), oblique(-1)], ids=["upright", "oblique", "left-handed"])
def test_the_surface_of_a_ball(affine):
    mask = ball(affine)
    surface = extract_surface(mask)
    off_mm = np.linalg.norm(surface.points - mask.grid.center, axis=1) - RADIUS
    assert np.abs(off_mm).max() < 0.5 * max(mask.spacing)
    assert abs(off_mm.mean()) < 0.05 * max(mask.spacing)
    assert area_mm2(surface) == pytest.approx(4 * np.pi * RADIUS**2, rel=0.02)
    assert volume_mm3(surface) == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.01)


def test_a_ball_that_the_field_of_view_cuts_off_has_no_flat_face():
    """The plane of the border lies 20 mm above the centre, where the ball is 35 mm wide."""
    mask = ball(upright(2.0), centre=np.array([47.0, 47.0, -20.0]))
    surface = extract_surface(mask)
    off_mm = np.linalg.norm(surface.points - (47, 47, -20), axis=1) - RADIUS
    assert np.abs(off_mm).max() < 1.0
    assert surface.points[:, 2].min() > 0
    cap = 2 * np.pi * RADIUS * (RADIUS - 20)
    assert area_mm2(surface) == pytest.approx(cap, rel=0.1)  # the lowest row of triangles is missing
    assert np.unique(surface.faces).tolist() == list(range(len(surface.points)))


def test_one_voxel_has_a_surface():
    mask = np.zeros((5, 5, 5), dtype=bool)
    mask[2, 2, 2] = True
    surface = extract_surface(Volume(mask, upright(1.0), "mask"))
    np.testing.assert_allclose(surface.points.mean(axis=0), [2, 2, 2], atol=1e-6)


def test_a_hole_of_one_voxel_has_a_surface():
    mask = np.ones((6, 6, 6), dtype=bool)
    mask[2, 2, 2] = False
    surface = extract_surface(Volume(mask, upright(1.0), "mask"))
    np.testing.assert_allclose(surface.points.mean(axis=0), [2, 2, 2], atol=0.05)


def test_a_single_slice_has_none():
    mask = np.zeros((1, 6, 6), dtype=bool)
    mask[:, 2:4] = True
    with pytest.raises(DataError, match="two voxels along each axis"):
        extract_surface(Volume(mask, upright(1.0), "mask"))


@pytest.mark.parametrize(("value", "message"), [(False, "is empty"), (True, "is full")])
def test_a_mask_without_a_surface_is_refused(value, message):
    with pytest.raises(DataError, match=message):
        extract_surface(Volume(np.full((4, 4, 4), value), upright(1.0), "mask"))


def test_a_mask_whose_surface_is_on_the_border_only_is_refused():
    mask = np.zeros((2, 2, 2), dtype=bool)
    mask[0] = True
    with pytest.raises(DataError, match="on the border"):
        extract_surface(Volume(mask, upright(1.0), "mask"))


@given(seed=st.integers(0, 999), count=st.integers(1, 60))
@settings(max_examples=40)
def test_points_are_spread_as_far_apart_as_the_rest_is_near(seed, count):
    points = np.random.default_rng(seed).normal(0, 30, (50, 3))
    chosen, gaps = spread_evenly(points, count)
    assert len(chosen) == len(set(chosen)) == min(count, 50)
    assert gaps[0] == np.inf and (np.diff(gaps) <= 0).all()
    for k in range(1, len(chosen)):
        apart = cdist(points[chosen[:k]], points)
        assert apart[:, chosen[k]].min() == pytest.approx(gaps[k], abs=1e-3)
        assert apart.min(axis=0).max() == pytest.approx(gaps[k], abs=1e-3)


def test_spreading_chooses_the_same_points_again():
    points = extract_surface(ball(upright(4.0), (24, 24, 24))).points
    first, second = (spread_evenly(points, 100)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def mesh(surface):
    return trimesh.Trimesh(surface.points, surface.faces, process=False)


def radii(affine, shape):
    grid = Grid(shape, affine)
    return np.linalg.norm(grid.to_world(np.moveaxis(np.indices(shape, dtype=float), 0, -1)) - grid.center, axis=-1)


@pytest.mark.parametrize("affine", [upright(2.0), oblique(1), oblique(-1)], ids=["upright", "oblique", "left-handed"])
def test_a_closed_surface_lies_between_the_voxels(affine):
    """The image falls by 30 HU a mm, so the level of 250 HU is 40 mm from the centre."""
    image = Volume((250 + 30 * (RADIUS - radii(affine, (48, 48, 48)))).astype(np.float32), affine, "ct")
    surface = closed_surface(image, 250.0)
    off_mm = np.linalg.norm(surface.points - image.grid.center, axis=1) - RADIUS
    assert np.abs(off_mm).max() < 0.02 * max(image.spacing)
    assert mesh(surface).is_watertight
    assert mesh(surface).volume == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=5e-3)


@given(seed=st.integers(0, 9999), whole=st.booleans())
@settings(max_examples=40)
def test_whatever_is_in_the_voxels_a_closed_surface_is_watertight_and_faces_outwards(seed, whole):
    """Also where voxels are just at the level, and in the 32 bits that files have, by which points are told apart."""
    rng = np.random.default_rng(seed)
    image = rng.normal(250, 300, rng.integers(1, 9, 3))
    image.flat[0] = 251
    affine = np.eye(4)
    affine[:3, :3] = rng.normal(size=(3, 3)) + 2 * np.eye(3)
    affine[:3, 3] = (-120, 90, 60)
    surface = closed_surface(Volume(np.round(image, -2) + 50 if whole else image.astype(np.float32), affine, "ct"), 250.0)
    for closed in (mesh(surface), trimesh.Trimesh(surface.points.astype(np.float32), surface.faces, process=True)):
        assert closed.is_watertight and closed.is_winding_consistent
        assert closed.volume > 0


def test_bone_at_the_border_of_the_grid_is_closed_half_a_voxel_beyond_it():
    full = closed_surface(Volume(np.ones((6, 7, 8), bool), np.diag([-2.0, 1, 3, 1]), "mask"), 0.5)
    np.testing.assert_allclose([full.points.min(axis=0), full.points.max(axis=0)], [(-11, -0.5, -1.5), (1, 6.5, 22.5)])
    assert mesh(full).is_watertight
    cut = ball(upright(2.0), centre=np.array([47.0, 47.0, -20.0]))
    surface = closed_surface(cut, 0.5)
    assert surface.points[:, 2].min() == pytest.approx(-1)
    assert mesh(surface).is_watertight


def test_a_voxel_at_the_level_is_outside_and_an_image_below_it_has_no_surface():
    image = Volume(np.full((3, 3, 3), 250, np.int16), upright(1.0), "ct")
    with pytest.raises(DataError, match=r"nothing in this ct of 3x3x3 voxels .* is above 250"):
        closed_surface(image, 250.0)
    assert len(closed_surface(image, 249.5).points)
