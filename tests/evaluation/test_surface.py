import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from phantom_bone import all_of, ct_of, places
from small_cases import SHAPE, case_of, noisy_case
from transmodal.core.errors import DataError, GeometryError
from transmodal.core.volume import Grid, Volume
from transmodal.evaluation.protocol import score
from transmodal.evaluation.surface import SURFACE, bone_surface, compare_surfaces, deviation_mm, surface_statistics

SEEDS = st.integers(0, 9999)


def upright(spacing=1.0):
    return np.diag([spacing, spacing, spacing, 1.0])


def turned(seed, handed):
    """An oblique grid of a random orientation, anywhere in space."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn * np.linalg.det(turn) * (1.0, 1.0, handed)
    affine[:3, 3] = rng.uniform(-100, 100, 3)
    return affine


def bone_of(image):
    found = bone_surface(image, all_of(image))
    assert found is not None
    return found


def deviations_of(prediction, reference):
    return compare_surfaces(bone_of(prediction), bone_of(reference))


def ball(grid, radius, shift_mm=0.0):
    """Of bone, in the middle of its grid or shifted along x."""
    return ct_of(np.linalg.norm(places(grid) - grid.center - (shift_mm, 0, 0), axis=-1) - radius, grid)


def skull(points, scale=1.0, shift_mm=(0.0, 0.0, 0.0)):
    """Signed distance to a shell of 10 mm between the radii of 68 and 78 mm, when it is scaled and shifted."""
    radius = np.linalg.norm(points - shift_mm, axis=-1) / scale
    return scale * (np.abs(radius - 73) - 5)


@pytest.mark.parametrize("handed", [1, -1])
def test_the_deviation_of_a_displaced_skull_is_known_to_a_tenth_of_a_millimetre(handed):
    """Shifted by 1.5 mm and scaled by 3 %: the outer table is 0.8 to 3.8 mm outside the true one, the inner one as far inside the bone."""
    affine = turned(3, handed) @ np.diag([3.0, 3.0, 4.0, 1.0])
    affine[:3, 3] -= affine[:3, :3] @ (30, 30, 22) + affine[:3, 3]
    grid, shift_mm = Grid((61, 61, 46), affine), np.array([0.9, 0.0, 1.2])
    true, made = (bone_of(ct_of(skull(places(grid), *moved), grid)) for moved in ((), (1.03, shift_mm)))
    found = compare_surfaces(made, true)
    np.testing.assert_allclose(found.sct_to_ct, skull(made.surface.points), atol=0.1)
    np.testing.assert_allclose(found.ct_to_sct, -skull(true.surface.points, 1.03, shift_mm), atol=0.1)
    outer = found.sct_to_ct[np.linalg.norm(made.surface.points - shift_mm, axis=1) > 73 * 1.03]
    assert outer.max() == pytest.approx(0.03 * 78 + 1.5, abs=0.1)
    assert outer.min() == pytest.approx(0.03 * 78 - 1.5, abs=0.1)
    assert surface_statistics(found)["sct_to_ct_max_mm"] == pytest.approx(0.03 * 78 + 1.5, abs=0.1)


def test_the_statistics_of_a_shifted_ball_are_those_of_the_cosine():
    """Over a sphere the cosine of the angle to the shift is uniform in [-1, 1], and the deviation is the shift times that."""
    grid = Grid((44, 44, 44), upright(2.0))
    found = surface_statistics(deviations_of(ball(grid, 35, 1.5), ball(grid, 35)))
    for way in ("sct_to_ct", "ct_to_sct"):
        assert found[f"{way}_min_mm"] == pytest.approx(-1.5, abs=0.05)
        assert found[f"{way}_max_mm"] == pytest.approx(1.5, abs=0.05)
        assert found[f"{way}_mean_mm"] == pytest.approx(0, abs=0.05)
        assert found[f"{way}_sd_mm"] == pytest.approx(1.5 / 3**0.5, abs=0.05)
        assert found[f"{way}_iqr_mm"] == pytest.approx(1.5, abs=0.05)
        assert found[f"{way}_within_2mm"] == 1
    assert found["assd_mm"] == pytest.approx(0.75, abs=0.05)
    assert found["hd95_mm"] == pytest.approx(0.95 * 1.5, abs=0.05)


def test_the_share_within_2_mm_of_a_ball_that_is_shifted_further():
    """Two thirds of the cosines are within 2 / 3."""
    grid = Grid((46, 44, 44), upright(2.0))
    found = surface_statistics(deviations_of(ball(grid, 35, 3.0), ball(grid, 35)))
    assert found["within_2mm"] == pytest.approx(2 / 3, abs=0.05)


def test_too_much_bone_is_positive_and_too_little_negative_both_ways():
    grid = Grid((40, 40, 40), upright(2.0))
    for larger, smaller, sign in ((31.0, 30.0, 1), (30.0, 31.0, -1)):
        found = deviations_of(ball(grid, larger), ball(grid, smaller))
        np.testing.assert_allclose(found.sct_to_ct, sign, atol=0.05)
        np.testing.assert_allclose(found.ct_to_sct, sign, atol=0.05)


def test_a_perfect_synthetic_ct_deviates_nowhere(simulated_head):
    ct, mask = simulated_head["ct"], simulated_head["mask"]
    values = score(case_of(ct, ct, np.asarray(mask.array)), SURFACE).values
    shares = {name for name in values if name.endswith("within_2mm")}
    assert {values[name] for name in shares} == {1.0}
    assert all(value == pytest.approx(0, abs=1e-9) for name, value in values.items() if name not in shares)


@given(SEEDS)
@settings(max_examples=15)
def test_the_surface_of_bone_is_watertight_faces_outwards_and_is_nowhere_from_itself_on_any_grid(seed):
    """However ragged the mask is, which leaves single points between the cuts."""
    rng = np.random.default_rng(seed)
    image = Volume(rng.normal(200, 400, SHAPE), turned(seed, 1 if seed % 2 else -1), "ct")
    found = bone_surface(image, image.with_array(rng.random(SHAPE) < rng.uniform(0.6, 1), "mask"))
    assert found is not None
    mesh = trimesh.Trimesh(found.surface.points, found.surface.faces, process=False)
    assert mesh.is_watertight and mesh.volume > 0
    same = compare_surfaces(found, found)
    np.testing.assert_allclose(np.concatenate([same.sct_to_ct, same.ct_to_sct]), 0, atol=1e-9)


@given(SEEDS, st.sampled_from([1, -1]))
@settings(max_examples=10)
def test_deviations_are_the_same_wherever_the_head_lies_and_whichever_way_its_voxels_are_stored(seed, handed):
    case = noisy_case()
    there = [Volume(image.array, turned(seed, handed), "ct") for image in (case.prediction, case.reference)]
    here, moved = deviations_of(case.prediction, case.reference), deviations_of(*there)
    np.testing.assert_allclose(moved.sct_to_ct, here.sct_to_ct, atol=1e-9)
    np.testing.assert_allclose(moved.ct_to_sct, here.ct_to_sct, atol=1e-9)


def test_mirrored_voxels_with_a_mirrored_affine_are_the_same_bone():
    """Marching cubes splits some faces of voxels the other way then, so the points are the same and the triangles nearly."""
    grid = Grid((44, 40, 42), upright(2.0))
    mirror = np.diag([-2.0, 2, 2, 1])
    mirror[0, 3] = 2.0 * 43
    images = ball(grid, 35, 1.5), ball(grid, 35)
    here = surface_statistics(deviations_of(*images))
    mirrored = surface_statistics(deviations_of(*(Volume(image.array[::-1], mirror, "ct") for image in images)))
    assert mirrored == pytest.approx(here, abs=1e-3)


@given(SEEDS)
@settings(max_examples=10)
def test_when_true_and_synthetic_change_places_the_signs_do(seed):
    rng = np.random.default_rng(seed)
    first, second = (Volume(rng.normal(0, 400, SHAPE), upright(), "ct") for _ in range(2))
    one, other = deviations_of(first, second), deviations_of(second, first)
    np.testing.assert_allclose(one.sct_to_ct, -other.ct_to_sct, atol=1e-12)
    there, back = surface_statistics(one), surface_statistics(other)
    for name in ("hd95_mm", "assd_mm", "within_2mm"):
        assert there[name] == pytest.approx(back[name])
    greatest = max(np.abs(one.sct_to_ct).max(), np.abs(one.ct_to_sct).max())
    assert 0 <= there["assd_mm"] <= greatest
    assert 0 <= there["hd95_mm"] <= greatest
    assert 0 <= there["within_2mm"] <= 1


@given(SEEDS)
@settings(max_examples=10)
def test_what_is_outside_the_mask_has_no_influence(seed):
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPE, bool)
    mask[2:9, 1:, :8] = True
    case = noisy_case(mask=mask)
    noise = [np.where(mask, image.array, rng.normal(0, 2000, SHAPE)) for image in (case.reference, case.prediction)]
    other = case_of(case.reference.with_array(noise[0]), noise[1], mask)
    assert score(other, SURFACE).values == score(case, SURFACE).values


def test_where_mask_and_grid_cut_the_bone_is_neither_measured_from_nor_to():
    """A plate through the whole grid that is 12 mm too thin: every point is 6 mm off, though the cuts are nearer; sides 60 mm apart."""
    grid = Grid((12, 70, 12), upright())
    across = np.abs(places(grid)[..., 1] - 35)
    reference, prediction = ct_of(across - 30, grid), ct_of(across - 24, grid)
    mask = np.ones(grid.shape, bool)
    mask[:3] = False
    found = score(case_of(reference, np.where(mask, prediction.array, -1024), mask), SURFACE).values
    for way in ("sct_to_ct", "ct_to_sct"):
        assert found[f"{way}_min_mm"] == pytest.approx(-6, abs=1e-3)
        assert found[f"{way}_max_mm"] == pytest.approx(-6, abs=1e-3)
    bone = bone_surface(reference, reference.with_array(mask, "mask"))
    measured = bone.surface.points[bone.measured]
    assert (measured[:, 0].min(), measured[:, 0].max(), measured[:, 2].min(), measured[:, 2].max()) == (3, 11, 0, 11)
    assert not np.isin(bone.surface.faces, np.flatnonzero(bone.measured)).all()
    assert deviation_mm(np.array([[7.0, 35, 10.9]]), bone)[0] == pytest.approx(-30, abs=0.01)


def test_a_mask_of_bone_is_measured_at_the_borders_of_its_voxels():
    """Voxels of 2 mm whose centres are up to 1 mm from the surface end right on it."""
    grid = Grid((6, 40, 6), upright(2.0))
    across = np.abs(places(grid)[..., 1] - 39)
    reference = ct_of(across - 20, grid)
    case = case_of(reference, reference.with_array(across <= 19, "mask"))
    values = score(case, SURFACE).values
    assert values["hd95_mm"] == pytest.approx(0, abs=1e-3)
    wider = score(case_of(reference, reference.with_array(across <= 21, "mask")), SURFACE).values
    assert wider["sct_to_ct_mean_mm"] == wider["ct_to_sct_mean_mm"] == pytest.approx(2, abs=1e-3)


def test_specks_may_be_left_out():
    grid = Grid((30, 30, 30), upright(2.0))
    image = ball(grid, 20)
    speckled = np.array(image.array)
    speckled[1, 1, 1] = 1000
    found = bone_surface(image.with_array(speckled), all_of(image), least_mm3=10)
    np.testing.assert_array_equal(found.surface.points, bone_of(image).surface.points)
    assert len(found.measured) == len(found.surface.points)
    with pytest.raises(DataError, match="no piece of the surface holds 1e"):
        bone_surface(image, all_of(image), least_mm3=1e6)


def test_without_bone_there_are_reasons():
    case = noisy_case()
    soft = np.full(SHAPE, 40.0)
    scores = score(case_of(case.reference, soft), SURFACE)
    assert set(scores.values.values()) == {None}
    assert set(scores.reasons.values()) == {"the prediction has no bone inside the mask"}
    scores = score(case_of(case.reference.with_array(soft), case.prediction), SURFACE)
    assert set(scores.reasons.values()) == {"the true CT has no bone inside the mask"}
    with pytest.raises(GeometryError, match="the mask"):
        bone_surface(case.reference, all_of(Volume(soft, upright(2.0), "ct")))
