import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transmodal.core.config import validate
from transmodal.core.errors import ConfigError
from transmodal.core.volume import Volume
from transmodal.imaging.grid import resample
from transmodal.imaging.preparation import Preparation, TemplateSpace, find_space, prepare_scan
from transmodal.imaging.scan import write_scan
from transmodal.simulation.misalignment import draw_transform, move


def brick(low, high, shape=(30, 34, 28), spacing=(3.0, 3.0, 3.0)):
    """An MR with a brick in it, and its mask."""
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-40, 10, 5)
    values = np.random.default_rng(0).normal(100, 10, shape).astype(np.float32)
    return Volume(values, affine, "mr"), Volume(mask, affine, "mask")


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(3, 8)), min_size=3, max_size=3))
def test_the_crop_is_a_cube_with_the_mask_in_its_middle_and_no_voxel_is_interpolated(spans):
    low, high = [a for a, _ in spans], [a + n for a, n in spans]
    scan, mask = brick(low, high)
    prepared = prepare_scan(scan, Preparation(spacing_mm="native", crop=True), mask)
    side = max(n for _, n in spans)
    assert prepared.volume.shape == (side,) * 3
    assert np.count_nonzero(prepared.mask.array) == np.count_nonzero(mask.array)
    np.testing.assert_array_equal(prepared.volume.array[prepared.mask.array], scan.array[mask.array])
    middle = prepared.volume.grid.to_world((np.array(prepared.volume.shape) - 1) / 2)
    wanted = scan.grid.to_world((np.array(low) + np.array(high) - 1) / 2)
    assert np.abs(middle - wanted).max() <= 1.5 + 1e-9  # half a voxel, where the mask has an odd width in an even cube


def test_a_crop_of_anisotropic_voxels_is_a_cube_in_millimetres():
    scan, mask = brick((2, 3, 4), (22, 13, 8), spacing=(1.0, 2.0, 4.0))
    prepared = prepare_scan(scan, Preparation(spacing_mm="native", crop=True), mask)
    assert prepared.volume.shape == (20, 10, 5)


def test_the_brain_is_needed_to_measure_in_it():
    with pytest.raises(ConfigError, match=r"needs template\.mr and template\.brain"):
        validate(Preparation, {"measure_in": "brain"}, "--set")


def test_a_spacing_is_a_number_or_native():
    assert validate(Preparation, {"spacing_mm": "native"}, "--set").spacing_mm == "native"
    for wrong in (0, -1, "fine"):
        with pytest.raises(ConfigError, match="spacing_mm"):
            validate(Preparation, {"spacing_mm": wrong}, "--set")


@pytest.fixture(scope="module")
def template(simulated_head, tmp_path_factory):
    """A head as a template, and the same head moved by a known affine transform."""
    folder = tmp_path_factory.mktemp("template")
    mr, brain = simulated_head["mr"], simulated_head["brain"]
    write_scan(mr, folder / "mr.nii.gz")
    write_scan(brain, folder / "brain.nii.gz")
    truth = draw_transform(np.random.default_rng(3), mr.grid, translation_mm=8, rotation_deg=6, scale_spread=0.04)
    return TemplateSpace(mr=str(folder / "mr.nii.gz"), brain=str(folder / "brain.nii.gz")), truth, move(mr, truth, fill=0.0)


@pytest.mark.slow
def test_the_space_of_a_template_is_found(template, simulated_head):
    space, truth, moved = template
    found = find_space(moved, Preparation(template=space))
    head = np.argwhere(simulated_head["mask"].array)[::97].astype(float)
    points = simulated_head["mr"].grid.to_world(head)
    error = np.linalg.norm(points @ found.to_scan[:3, :3].T + found.to_scan[:3, 3] - truth.forward(points), axis=1)
    assert error.mean() < 1.0


@pytest.mark.slow
def test_what_is_prepared_in_the_space_of_a_template_looks_like_it_and_goes_back(template, simulated_head):
    space, _, moved = template
    prepared = prepare_scan(moved, Preparation(template=space, spacing_mm="native", measure_in="brain"))
    mr, mask = simulated_head["mr"], simulated_head["mask"].array & prepared.mask.array
    assert prepared.volume.shape == mr.shape
    assert np.corrcoef(prepared.volume.array[mask], mr.array[mask])[0, 1] > 0.95
    brain = simulated_head["brain"].array
    assert prepared.statistics.mean == pytest.approx(mr.array[brain].mean(), rel=0.06)
    back = resample(prepared.volume, moved.grid)
    inside = (back.array > 0) & (moved.array > 0)
    assert np.corrcoef(back.array[inside], moved.array[inside])[0, 1] > 0.95
