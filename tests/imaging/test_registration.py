import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from transmodal.core.errors import DataError, FileError
from transmodal.core.volume import Grid
from transmodal.imaging.bias import correct_bias
from transmodal.imaging.landmarks import fit_landmarks, read_landmarks
from transmodal.imaging.registration import Transform, register, warp
from transmodal.simulation.contrast import MR_PRESETS, CTConfig, simulate_ct, simulate_mr
from transmodal.simulation.head import head_grid, simulate_anatomy
from transmodal.simulation.labels import head_mask
from transmodal.simulation.misalignment import draw_transform, move
from transmodal.simulation.parameters import HeadConfig

points = arrays(np.float64, (6, 3), elements=st.floats(-100, 100))


def rotation(seed):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


@pytest.fixture(scope="module")
def head():
    config, rng = HeadConfig(), np.random.default_rng(0)
    labels = simulate_anatomy(config, head_grid((64, 72, 64), config), seed=0)
    mr, ct = simulate_mr(labels, MR_PRESETS["t1w"], rng), simulate_ct(labels, CTConfig(), rng)
    return mr, ct, head_mask(labels)


@pytest.mark.parametrize("fixed_is", ["mr", "ct"])
def test_a_known_rigid_misalignment_is_recovered(head, fixed_is):
    mr, ct, mask = head
    rng = np.random.default_rng(3)
    true = draw_transform(rng, mr.grid, translation_mm=20.0, rotation_deg=15.0)
    moved = move(ct if fixed_is == "mr" else mr, true, -1000.0 if fixed_is == "mr" else 0.0)
    found = register(mr if fixed_is == "mr" else ct, moved)
    inside = mr.grid.to_world(np.argwhere(mask.array)[::53].astype(float))
    errors = np.linalg.norm(found.apply(inside) - true.forward(inside), axis=1)
    assert errors.mean() < 0.5


def test_an_affine_transform_warps_a_volume_back(head):
    mr = head[0]
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(1) * 1.1
    matrix[:3, 3] = (4, -3, 2)
    ramp = mr.with_array((np.moveaxis(np.indices(mr.shape), 0, -1) @ np.array([1.0, 2.0, -1.0])).astype(np.float32))
    warped = warp(ramp, Transform(matrix), mr.grid)
    indices = np.array([[30.0, 36.0, 32.0], [28.0, 40.0, 30.0]])
    expected = mr.grid.to_voxel(Transform(matrix).apply(mr.grid.to_world(indices))) @ np.array([1.0, 2.0, -1.0])
    np.testing.assert_allclose([warped.array[tuple(i.astype(int))] for i in indices], expected, atol=1e-2)


def test_a_deformation_of_equal_coefficients_is_a_shift(head):
    mr = head[0]
    lattice = Grid((16, 16, 16), np.array([[30.0, 0, 0, -225], [0, 30, 0, -225], [0, 0, 30, -225], [0, 0, 0, 1]]))
    shifted = Transform(np.eye(4), lattice, np.full((16, 16, 16, 3), 1.0) * np.array([3.0, -2.0, 1.0]))
    np.testing.assert_allclose(shifted.apply(np.zeros((1, 3))), [[3, -2, 1]], atol=1e-9)
    whole = Transform(np.array([[1.0, 0, 0, 3], [0, 1, 0, -2], [0, 0, 1, 1], [0, 0, 0, 1]]))
    one, two = (warp(mr, transform, mr.grid).array[8:-8, 8:-8, 8:-8] for transform in (shifted, whole))
    np.testing.assert_allclose(one, two, atol=0.5)


def test_nothing_to_register_is_said(head):
    empty = head[0].with_array(np.zeros(head[0].shape, np.float32))
    with pytest.raises(DataError, match="nothing stands out"):
        register(head[1], empty)


@given(points=points, seed=st.integers(0, 99), offset=arrays(np.float64, 3, elements=st.floats(-50, 50)))
@settings(max_examples=40)
def test_landmarks_recover_rigid_and_affine_transforms(points, seed, offset):
    points = points + np.random.default_rng(seed).normal(0, 30, points.shape)
    turn = rotation(seed)
    for kind, linear in (("rigid", turn), ("affine", turn @ np.diag([0.9, 1.1, 1.2]))):
        moving = points @ linear.T + offset
        np.testing.assert_allclose(fit_landmarks(points, moving, kind).apply(points), moving, atol=1e-6)


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


def test_a_known_bias_is_taken_out(head):
    mr, _, mask = head
    x = np.linspace(-1, 1, mr.shape[0])[:, None, None]
    field = np.exp(0.5 * x + 0.3 * x**2).astype(np.float32)
    before = mr.array * field
    after = correct_bias(mr.with_array(before), mask).array
    inside = mask.array & (mr.array > 500)

    def spread(image):
        ratio = np.log(image[inside] / mr.array[inside])
        return float(ratio.std())

    assert spread(after) < 0.8 * spread(before)
