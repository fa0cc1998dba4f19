import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from transmodal.core.errors import DataError
from transmodal.core.volume import Volume
from transmodal.imaging.surface import Surface, closed_surface
from transmodal.imaging.triangles import (
    face_normals,
    nearest,
    signed_distances,
    vertex_areas_mm2,
    vertex_normals,
    volume_mm3,
    without_specks,
)

SEEDS = st.integers(0, 999)


def box(low, high):
    mesh = trimesh.creation.box(bounds=[low, high])
    return Surface(np.asarray(mesh.vertices), np.asarray(mesh.faces))


def rubble(seed, shape=(7, 6, 8)):
    """The surface of noise: edges, corners and saddles of every kind, tunnels and cavities."""
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = rng.normal(size=(3, 3)) + 2 * np.eye(3)
    return closed_surface(Volume(rng.normal(size=shape).astype(np.float32), affine, "ct"), 0.3)


def around(surface, count, seed):
    low, high = surface.points.min(axis=0), surface.points.max(axis=0)
    return np.random.default_rng(seed).uniform(low - 0.2 * (high - low), high + 0.2 * (high - low), (count, 3))


def winding_number(points, surface):
    """How often the surface goes around each point, by solid angles (Van Oosterom and Strackee, IEEE TBME 1983)."""
    a, b, c = np.moveaxis(surface.points[surface.faces] - points[:, None, None], 2, 0)
    la, lb, lc = (np.linalg.norm(side, axis=2) for side in (a, b, c))
    over = la * lb * lc + (a * b).sum(2) * lc + (b * c).sum(2) * la + (c * a).sum(2) * lb
    return np.arctan2((a * np.cross(b, c)).sum(2), over).sum(axis=1) / (2 * np.pi)


@given(SEEDS)
@settings(max_examples=15)
def test_the_distance_is_the_least_over_all_triangles_and_the_side_that_of_the_winding_number(seed):
    surface = rubble(seed)
    points = around(surface, 40, seed)
    triangles = surface.points[surface.faces]
    everywhere = [
        np.linalg.norm(trimesh.triangles.closest_point(triangles, np.broadcast_to(p, (len(triangles), 3))) - p, axis=1) for p in points
    ]
    distances, faces = nearest(points, surface)
    np.testing.assert_allclose(distances, np.min(everywhere, axis=1), atol=1e-9)
    np.testing.assert_allclose([row[face] for row, face in zip(everywhere, faces, strict=True)], distances, atol=1e-9)
    signed, _ = signed_distances(points, surface)
    np.testing.assert_array_equal(np.abs(signed), distances)
    np.testing.assert_array_equal(signed < 0, winding_number(points, surface) > 0.5)


def test_distances_to_a_box_are_those_to_its_faces_edges_and_corners():
    surface = box((0, 0, 0), (2, 2, 2))
    points = np.array([[1, 1, 3], [1, 3, 3], [3, 3, 3], [1, 1, 0.25], [1.9, 1.8, 1], [-1, 1, 1], [0, 0, 0]], dtype=float)
    np.testing.assert_allclose(signed_distances(points, surface)[0], [1, 2**0.5, 3**0.5, -0.25, -0.1, 1, 0], atol=1e-12)


def test_points_far_away_from_one_triangle_are_measured():
    surface = Surface(np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), np.array([[0, 1, 2]]))
    distances, faces = nearest(np.array([[0.2, 0.2, 500], [-3, -4, 0], [31, 0, 40]], dtype=float), surface)
    np.testing.assert_allclose(distances, [500, 5, 50])
    assert faces.tolist() == [0, 0, 0]


def test_a_face_without_area_hides_no_other():
    points = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0]])
    surface = Surface(points, np.array([[0, 1, 3], [0, 1, 2], [0, 0, 0]]))
    np.testing.assert_allclose(nearest(np.array([[0.3, 0.3, 2.0], [0.5, -1.0, 0.0]]), surface)[0], [2, 1])
    np.testing.assert_array_equal(face_normals(surface), [[0, 0, 0], [0, 0, 1], [0, 0, 0]])


def test_an_open_surface_has_no_inside():
    closed = box((0, 0, 0), (1, 1, 1))
    with pytest.raises(AssertionError, match="open surface"):
        signed_distances(around(closed, 200, 0), Surface(closed.points, closed.faces[:5]))


def test_normals_areas_and_volume_of_a_box():
    surface = box((10, 10, 10), (12, 13, 14))
    np.testing.assert_allclose(vertex_normals(surface), np.where(surface.points > (11, 11.5, 12), 1, -1) / 3**0.5, atol=1e-12)
    assert vertex_areas_mm2(surface).sum() == pytest.approx(2 * (6 + 8 + 12))
    assert volume_mm3(surface) == pytest.approx(24)


@given(SEEDS)
@settings(max_examples=10)
def test_normals_areas_and_volume_are_those_of_trimesh(seed):
    surface = rubble(seed)
    mesh = trimesh.Trimesh(surface.points, surface.faces, process=False)
    assert volume_mm3(surface) == pytest.approx(mesh.volume)
    assert vertex_areas_mm2(surface).sum() == pytest.approx(mesh.area)
    large = mesh.area_faces > 1e-3
    np.testing.assert_allclose(face_normals(surface)[large], mesh.face_normals[large], atol=1e-6)


def test_specks_and_small_cavities_go_and_the_rest_stays_closed():
    mask = np.zeros((14, 12, 12), bool)
    mask[1:9, 2:10, 2:10] = True
    mask[4, 5, 5] = False
    mask[11, 4:6, 4:6] = True
    surface = closed_surface(Volume(mask, np.diag([2.0, 2, 2, 1]), "mask"), 0.5)
    whole = volume_mm3(surface)
    assert volume_mm3(without_specks(surface, 0)) == pytest.approx(whole)
    pore = 8 / 6  # an octahedron from the middle of the voxel to half-way to its neighbours
    assert volume_mm3(without_specks(surface, 5)) == pytest.approx(whole + pore)
    kept = without_specks(surface, 60)
    assert trimesh.Trimesh(kept.points, kept.faces, process=False).is_watertight
    assert kept.points[:, 0].max() == pytest.approx(17)
    with pytest.raises(DataError, match="no piece of the surface holds 1e"):
        without_specks(surface, 1e6)
