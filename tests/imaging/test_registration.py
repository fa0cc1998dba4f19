from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import binary_erosion
from skimage.measure import marching_cubes

from transmodal.core.errors import DataError, FileError
from transmodal.core.volume import Grid, Volume
from transmodal.imaging.bias import correct_bias
from transmodal.imaging.grid import resample
from transmodal.imaging.landmarks import fit_landmarks, read_landmarks, register_landmarks
from transmodal.imaging.masks import without_skull
from transmodal.imaging.registration import Transform, mean_distance_mm, register, register_free_form, warp
from transmodal.simulation.contrast import MR_PRESETS, CTConfig, simulate_ct, simulate_mr
from transmodal.simulation.head import head_grid, simulate_anatomy
from transmodal.simulation.labels import head_mask
from transmodal.simulation.misalignment import draw_transform, move
from transmodal.simulation.parameters import HeadConfig
from transmodal.simulation.tissues import BRAIN, Tissue

points = arrays(np.float64, (6, 3), elements=st.floats(-100, 100))


def rotation(seed):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


@pytest.fixture(scope="module")
def head():
    config, rng = HeadConfig(), np.random.default_rng(0)
    labels = simulate_anatomy(config, head_grid((92, 112, 120), config, 2.0), seed=0)
    mr = simulate_mr(labels, MR_PRESETS["t1w"].model_copy(update={"bias": 0.0}), rng)
    return labels, mr, simulate_ct(labels, CTConfig(), rng), head_mask(labels)


def truth(transform):
    return Transform(np.array(transform.matrix))


def without_crown(volume):
    return Volume(volume.array[:, :, : volume.shape[2] * 3 // 4], volume.affine, volume.modality)


def thick(volume):
    affine = volume.affine @ np.diag([0.5, 0.5, 2.5, 1])
    affine[:3, 3] += [0, 0, 2]
    return resample(volume, Grid((184, 224, 48), affine))


@pytest.mark.parametrize(
    ("fixed_is", "change_mr", "change_ct"),
    [
        ("mr", None, None),
        ("ct", thick, None),
        pytest.param("ct", None, None, marks=pytest.mark.slow),
        pytest.param("mr", thick, None, marks=pytest.mark.slow),
        pytest.param("mr", None, without_crown, marks=pytest.mark.slow),
    ],
)
def test_a_known_rigid_misalignment_is_recovered(head, fixed_is, change_mr, change_ct):
    _, mr, ct, mask = head
    true = draw_transform(np.random.default_rng(3), mr.grid, translation_mm=20.0, rotation_deg=15.0)
    images = {"mr": mr, "ct": move(ct, true, -1000.0)} if fixed_is == "mr" else {"mr": move(mr, true, 0.0), "ct": ct}
    images = {"mr": (change_mr or (lambda v: v))(images["mr"]), "ct": (change_ct or (lambda v: v))(images["ct"])}
    found = register(images.pop(fixed_is), *images.values())
    assert mean_distance_mm(found, truth(true), mask) < 0.5


def test_a_known_affine_is_recovered(head):
    _, mr, ct, mask = head
    true = draw_transform(np.random.default_rng(1), mr.grid, translation_mm=15.0, rotation_deg=10.0, scale_spread=0.07)
    found = register(mr, move(ct, true, -1000.0), "affine")
    assert mean_distance_mm(found, truth(true), mask) < 0.7


@pytest.mark.slow
def test_another_head_comes_near_a_template(head):
    labels, template, _, mask = head
    config = HeadConfig(scale=(0.85, 0.97, 0.88), rotation_deg=(8, 0, -5), shift_mm=(5, -8, 4))
    other = simulate_anatomy(config, labels.grid, seed=7)
    found = register(template, simulate_mr(other, MR_PRESETS["t1w"], np.random.default_rng(1)), "affine")

    def dice(first, second):
        first, second = first.array[:, :, 40:], second.array[:, :, 40:]  # above the neck, where the field of view ends
        return 2 * (first & second).sum() / (first.sum() + second.sum())

    assert dice(mask, warp(head_mask(other), found, mask.grid)) > max(0.96, dice(mask, head_mask(other)) + 0.02)


@pytest.mark.parametrize(("kind", "spread", "most_mm"), [("rigid", 0.0, 0.3), pytest.param("affine", 0.05, 0.5, marks=pytest.mark.slow)])
def test_a_stripped_brain_is_registered_to_a_ct_without_its_skull(head, kind, spread, most_mm):
    labels, mr, ct, _ = head
    brain = labels.with_array(np.isin(labels.array, (*BRAIN, Tissue.CSF)), "mask")
    stripped = mr.with_array(np.where(brain.array, mr.array, np.float32(0)))
    true = draw_transform(np.random.default_rng(1), mr.grid, translation_mm=15.0, rotation_deg=10.0, scale_spread=spread)
    found = register(without_skull(ct), move(stripped, true, 0.0), kind)
    assert mean_distance_mm(found, truth(true), brain) < most_mm


def smooth_warp(grid):
    """Of about 3 mm, over lengths that control points every 30 mm can follow."""
    lattice = np.diag([50.0, 50, 50, 1])
    lattice[:3, 3] = grid.center - 325
    return Transform(np.eye(4), Grid((14, 14, 14), lattice), np.random.default_rng(0).normal(0, 5, (14, 14, 14, 3)))


def bone_edges(ct):
    """Points on the bone surface, and its normals."""
    vertices, _, normals, _ = marching_cubes(ct.array.astype(np.float32), 350.0)
    return ct.grid.to_world(vertices[::50]), normals[::50] / np.linalg.norm(normals[::50], axis=1, keepdims=True)


def error_along(normals, points, found, true):
    return float(np.abs(((found.apply(points) - true.apply(points)) * normals).sum(axis=1)).mean())


@pytest.mark.parametrize(("modality", "left"), [("ct", 0.1), pytest.param("mr", 0.7, marks=pytest.mark.slow)])
def test_a_free_form_deformation_takes_a_smooth_warp_out(head, modality, left):
    """At the edges of bone: nine tenths from CT to CT, less than half from MR to CT."""
    _, mr, ct, _ = head
    true, none = smooth_warp(ct.grid), Transform(np.eye(4))
    points, normals = bone_edges(warp(ct, true, ct.grid))
    found = register_free_form(warp(ct if modality == "ct" else mr, true, ct.grid), ct, none)
    assert error_along(normals, points, found, true) < left * error_along(normals, points, none, true)


@pytest.mark.slow
def test_between_modalities_a_free_form_deformation_harms_a_rigid_alignment(head):
    """A limit that is known, not one that is wanted: whoever mends this may turn it round, and the advice of the docstring with it."""
    _, mr, ct, _ = head
    points, normals = bone_edges(ct)
    rigid = register(mr, ct)
    free_form = register_free_form(mr, ct, rigid)
    before, after = (error_along(normals, points, found, Transform(np.eye(4))) for found in (rigid, free_form))
    assert before < 0.3 < after


def test_an_affine_transform_warps_a_volume_back(head):
    mr = head[1]
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(1) * 1.1
    matrix[:3, 3] = (4, -3, 2)
    ramp = mr.with_array((np.moveaxis(np.indices(mr.shape), 0, -1) @ np.array([1.0, 2.0, -1.0])).astype(np.float32))
    warped = warp(ramp, Transform(matrix), mr.grid)
    indices = np.array([[30.0, 36.0, 32.0], [28.0, 40.0, 30.0]])
    expected = mr.grid.to_voxel(Transform(matrix).apply(mr.grid.to_world(indices))) @ np.array([1.0, 2.0, -1.0])
    np.testing.assert_allclose([warped.array[tuple(i.astype(int))] for i in indices], expected, atol=1e-2)


def test_a_deformation_of_equal_coefficients_is_a_shift(head):
    mr = head[1]
    lattice = Grid((16, 16, 16), np.array([[30.0, 0, 0, -225], [0, 30, 0, -225], [0, 0, 30, -225], [0, 0, 0, 1]]))
    shifted = Transform(np.eye(4), lattice, np.full((16, 16, 16, 3), 1.0) * np.array([3.0, -2.0, 1.0]))
    np.testing.assert_allclose(shifted.apply(np.zeros((1, 3))), [[3, -2, 1]], atol=1e-9)
    whole = Transform(np.array([[1.0, 0, 0, 3], [0, 1, 0, -2], [0, 0, 1, 1], [0, 0, 0, 1]]))
    one, two = (warp(mr, transform, mr.grid).array[8:-8, 8:-8, 8:-8] for transform in (shifted, whole))
    np.testing.assert_allclose(one, two, atol=0.5)


def test_warping_reads_where_the_deformation_says(head):
    grid = head[1].grid
    ramp = Volume((np.moveaxis(np.indices(grid.shape), 0, -1) @ np.array([1.0, 2.0, -1.0])).astype(np.float32), grid.affine, "mr")
    turn = np.array([[1, 0.1, 0, 2.0], [-0.1, 1, 0, 0], [0, 0, 1, -3], [0, 0, 0, 1]])
    true = replace(smooth_warp(grid), affine=turn)
    indices = np.moveaxis(np.indices(grid.shape, dtype=float), 0, -1)
    where = grid.to_voxel(true.apply(grid.to_world(indices)))
    inside = ((where > 0) & (where < np.array(grid.shape) - 1)).all(axis=-1)  # the borders of the target included
    difference = (warp(ramp, true, grid).array - where @ np.array([1.0, 2.0, -1.0]))[inside]
    assert inside.mean() > 0.8 and np.abs(difference).max() < 0.2 and np.abs(difference).mean() < 0.02


def test_what_cannot_be_registered_is_said(head):
    _, mr, ct, mask = head
    with pytest.raises(DataError, match="nothing stands out"):
        register(ct, mr.with_array(np.zeros(mr.shape, np.float32)))
    with pytest.raises(DataError, match="the mask is empty"):
        register(ct, mr, fixed_mask=mask.with_array(np.zeros(mask.shape, bool)))
    with pytest.raises(DataError, match="too thin"):
        register(ct, Volume(mr.array[:, :, 60:62], mr.affine, "mr"))
    with pytest.raises(DataError, match="NaN"):
        register(ct, mr.with_array(np.full(mr.shape, np.nan, np.float32)), start=Transform(np.eye(4)))
    with pytest.raises(DataError, match="same part of a head"):
        register(ct, mr, start=Transform(np.block([[np.eye(3), np.full((3, 1), 900.0)], [0, 0, 0, 1]])))


@pytest.mark.slow
def test_registering_is_repeatable_and_silent(head, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = (register(head[1], head[2], seed=4).affine for _ in range(2))
    np.testing.assert_allclose(first, second, atol=1e-6)
    assert capfd.readouterr() == ("", "") and not list(tmp_path.iterdir())


@given(points=points, seed=st.integers(0, 99), offset=arrays(np.float64, 3, elements=st.floats(-50, 50)))
@settings(max_examples=40)
def test_landmarks_recover_rigid_and_affine_transforms(points, seed, offset):
    points = points + np.random.default_rng(seed).normal(0, 30, points.shape)
    turn = rotation(seed)
    for kind, linear in (("rigid", turn), ("affine", turn @ np.diag([0.9, 1.1, 1.2]))):
        moving = points @ linear.T + offset
        np.testing.assert_allclose(fit_landmarks(points, moving, kind).apply(points), moving, atol=1e-6)
    mirrored = fit_landmarks(points, points * np.array([-1, 1, 1]), "rigid").affine[:3, :3]
    np.testing.assert_allclose(mirrored @ mirrored.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(mirrored) > 0


def test_landmarks_that_do_not_determine_a_transform_are_refused():
    line = np.outer(np.arange(5.0), [1, 2, 3])
    with pytest.raises(DataError, match="on a line"):
        fit_landmarks(line, line, "rigid")
    plane = np.random.default_rng(0).normal(size=(6, 3)) * np.array([1, 1, 0])
    with pytest.raises(DataError, match="in a plane"):
        fit_landmarks(plane, plane, "affine")


def test_landmark_files(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("name,x,y,z\nnasion,0,85,-40\ninion,0,-90,-20\n")
    assert read_landmarks(path)["inion"].tolist() == [0, -90, -20]
    path.write_text("nasion,0,85,-40\ninion,0,-90\n")
    with pytest.raises(FileError, match=r"points\.csv, line 2"):
        read_landmarks(path)


def test_landmarks_are_paired_by_name(tmp_path):
    fixed, moving = tmp_path / "fixed.csv", tmp_path / "moving.csv"
    fixed.write_text("a,0,0,0\nb,50,0,0\nc,0,50,0\n")
    moving.write_text("c,1,52,3\na,1,2,3\nb,51,2,3\n")
    found, residual_mm = register_landmarks(fixed, moving, "rigid")
    np.testing.assert_allclose(found.apply(np.zeros((1, 3))), [[1, 2, 3]], atol=1e-9)
    assert residual_mm == pytest.approx(0, abs=1e-9)
    moving.write_text("c,1,52,3\na,1,2,3\n")
    with pytest.raises(FileError, match=r"moving\.csv: the landmarks b "):
        register_landmarks(fixed, moving, "rigid")


def test_a_known_bias_is_taken_out(head):
    labels, mr, _, mask = head
    x, y, z = 2 * (np.indices(mr.shape) / np.array(mr.shape)[:, None, None, None] - 0.5)
    field = np.exp(0.3 * x + 0.2 * y**2 - 0.25 * z + 0.15 * x * y).astype(np.float32)
    white_matter = binary_erosion(labels.array == Tissue.WHITE_MATTER)

    def variation(image):
        return float(image[white_matter].std() / image[white_matter].mean())

    biased = mr.with_array(mr.array * field)
    assert variation(biased.array) > 3 * variation(mr.array)
    corrected = correct_bias(biased, mask)
    assert variation(corrected.array) < 1.15 * variation(mr.array)
    np.testing.assert_allclose(corrected.array[mask.array].mean(), biased.array[mask.array].mean(), rtol=1e-5)
    with pytest.raises(DataError, match="the mask is empty"):
        correct_bias(biased, mask.with_array(np.zeros(mask.shape, bool)))
