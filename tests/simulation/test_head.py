import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from transmodal.core.volume import Grid, Volume
from transmodal.simulation.head import head_grid, simulate_anatomy
from transmodal.simulation.labels import head_mask
from transmodal.simulation.parameters import HeadConfig, draw_head
from transmodal.simulation.tissues import BONE, BRAIN, Tissue

INFANT = draw_head(np.random.default_rng(4), age_years=0.2).model_copy(update={"rotation_deg": (0.0, 0.0, 0.0)})


def _simulate(config: HeadConfig, spacing: float) -> Volume:
    low_resolution = head_grid((64, 64, 64), config)
    shape = np.ceil(np.array(low_resolution.shape) * low_resolution.spacing / spacing).astype(int)
    return simulate_anatomy(config, head_grid((int(shape[0]), int(shape[1]), int(shape[2])), config, spacing), seed=1)


@pytest.fixture(scope="module")
def adult() -> Volume:
    return _simulate(HeadConfig(), 2.0)


@pytest.fixture(scope="module")
def infant() -> Volume:
    return _simulate(INFANT, 1.6)


def _is(volume: Volume, *tissues: Tissue) -> np.ndarray:
    return np.isin(np.asarray(volume.array), tissues)


def _vault_is_closed(head: Volume, bottom: float) -> bool:
    """Whether, above a height in anatomy mm, bone keeps everything outside from the inside of the skull."""
    height = head.grid.to_world(np.array([[0.0, 0.0, k] for k in range(head.shape[2])]))[:, 2]
    top = np.asarray(head.array)[:, :, height > bottom]
    pieces, _ = ndimage.label(~np.isin(top, BONE))
    return not set(np.unique(pieces[np.isin(top, BRAIN)])) & set(np.unique(pieces[top == Tissue.BACKGROUND]))


def _litres(head: Volume, *tissues: Tissue) -> float:
    return float(_is(head, *tissues).sum() * np.prod(head.spacing) / 1e6)


def test_every_tissue_is_there(adult):
    counts = np.bincount(np.asarray(adult.array).ravel(), minlength=len(Tissue))
    assert counts.min() > 0


def test_volumes_are_those_of_an_adult(adult):
    assert 1.0 < _litres(adult, *BRAIN) < 1.6
    assert 0.5 < _litres(adult, Tissue.GREY_MATTER) / _litres(adult, Tissue.WHITE_MATTER) < 2.5
    assert 0.01 < _litres(adult, Tissue.EYE, Tissue.LENS) < 0.02  # two eyes of about 7 ml
    assert 0.3 < _litres(adult, *BONE) < 1.1


@pytest.mark.parametrize("name", ["adult", "infant"])
def test_fluid_lies_between_brain_and_bone(name, request):
    head = request.getfixturevalue(name)
    cross = ndimage.generate_binary_structure(3, 1)
    assert not (ndimage.binary_dilation(_is(head, *BRAIN), cross) & _is(head, *BONE)).any()


def test_the_vault_of_an_adult_is_closed_and_that_of_an_infant_is_not(adult, infant):
    assert _vault_is_closed(adult, bottom=12.0)
    assert not _vault_is_closed(infant, bottom=12.0)


def test_the_skull_opens_at_the_foramen_magnum(adult):
    fluid, _ = ndimage.label(_is(adult, Tissue.CSF, *BRAIN))
    places = np.rint(adult.grid.to_voxel(0.92 * np.array([[0.0, -18.0, 60.0], [0.0, -43.0, -110.0]]))).astype(int)
    inside, canal = fluid[tuple(places.T)]
    assert inside == canal > 0


def test_skull_thickness_is_the_one_asked_for():
    for thickness in (4.0, 8.0):
        config = HeadConfig(skull_thickness_mm=thickness, skull_variation=0.0, warp_mm=0.0)
        spacing = 0.5
        affine = np.diag([spacing, spacing, spacing, 1.0])
        affine[:3, 3] = (0, -18 * 0.92, 50)
        column = np.asarray(simulate_anatomy(config, Grid((1, 1, 120), affine), seed=0).array).ravel()
        assert np.isin(column, BONE).sum() * spacing == pytest.approx(thickness, abs=1.0)
        assert (column == Tissue.DIPLOE).sum() * spacing == pytest.approx(thickness - 2 * config.table_mm, abs=1.0)


def test_air_and_bone_lie_where_they_should(adult):
    def at(x: float, y: float, z: float) -> Tissue:
        i, j, k = np.rint(adult.grid.to_voxel(np.array((x, y, z)) * 0.92)).astype(int)
        return Tissue(int(adult.array[i, j, k]))

    for side in (-1, 1):
        assert at(side * 29, 48, -70) == Tissue.SINUS_AIR  # maxillary
        assert at(side * 8, 15, -42) == Tissue.SINUS_AIR  # sphenoid
        assert at(side * 32, 60, -39) == Tissue.EYE
        assert at(side * 30, -16, -45) in BONE  # petrous ridge
    assert at(0, 2, -120) == Tissue.SINUS_AIR  # throat


def test_sinuses_and_teeth_can_be_absent():
    bare = _simulate(HeadConfig(tooth_mm=0, frontal_sinus=0, mastoid_air=0), 4.0)
    assert not _is(bare, Tissue.TOOTH).any()


def test_mask_holds_all_tissue_and_internal_air(adult):
    mask = np.asarray(head_mask(adult).array)
    assert mask[np.asarray(adult.array) != Tissue.BACKGROUND].all()
    assert ndimage.label(mask)[1] == 1
    assert not mask[0, 0, -1]


def test_same_seed_same_head_other_seed_other_head():
    config = HeadConfig()
    first, again, other = (np.asarray(simulate_anatomy(config, head_grid((32, 32, 32), config), seed).array) for seed in (5, 5, 6))
    assert (first == again).all()
    assert 0.001 < (first != other).mean() < 0.2
    assert draw_head(np.random.default_rng(3)) == draw_head(np.random.default_rng(3))


def test_the_same_head_on_two_grids(adult):
    coarse = simulate_anatomy(HeadConfig(), head_grid((64, 64, 64)), seed=1)
    points = coarse.grid.to_world(np.indices(coarse.shape).reshape(3, -1).T.astype(float))
    i, j, k = np.clip(np.rint(adult.grid.to_voxel(points)).astype(int), 0, np.array(adult.shape) - 1).T
    fine = np.asarray(adult.array)[i, j, k].reshape(coarse.shape)
    for tissues, bound in ((BRAIN, 0.9), (BONE, 0.65), ((Tissue.EYE, Tissue.LENS), 0.75)):
        a, b = np.isin(np.asarray(coarse.array), tissues), np.isin(fine, tissues)
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > bound, tissues


def test_a_posed_head_is_the_head_seen_by_a_moved_scanner():
    posed = HeadConfig(rotation_deg=(15.0, -10.0, 20.0), shift_mm=(3.0, 4.0, -5.0))
    grid = head_grid((32, 36, 32), posed)
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("xyz", posed.rotation_deg, degrees=True).as_matrix()
    pose[:3, 3] = posed.shift_mm
    seen = simulate_anatomy(HeadConfig(), Grid(grid.shape, np.linalg.inv(pose) @ grid.affine), seed=2)
    assert (np.asarray(simulate_anatomy(posed, grid, seed=2).array) != np.asarray(seen.array)).mean() < 1e-3


def test_a_left_handed_grid_gives_the_same_head():
    grid = head_grid((33, 33, 33))
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = 32
    mirrored = simulate_anatomy(HeadConfig(), Grid(grid.shape, grid.affine @ flip), seed=0)
    plain = simulate_anatomy(HeadConfig(), grid, seed=0)
    assert (np.asarray(mirrored.array)[::-1] != np.asarray(plain.array)).mean() < 1e-3


@given(st.integers(0, 2**31), st.one_of(st.none(), st.floats(0, 100)))
@settings(max_examples=50)
def test_any_drawn_head_is_valid_and_covered_by_its_grid(seed, age):
    config = draw_head(np.random.default_rng(seed), age)
    assert HeadConfig.model_validate(config.model_dump()) == config
    grid = head_grid((48, 56, 48), config)
    assert grid.shape == (48, 56, 48)
    assert np.ptp(grid.corners()[:, 2]) > 100


def test_heads_grow():
    newborn, adult = (np.mean([draw_head(np.random.default_rng(s), age).scale for s in range(20)]) for age in (0.0, 30.0))
    assert newborn < 0.7 * adult


def test_a_smaller_spacing_keeps_the_crown_in_view():
    whole, close = head_grid((64, 64, 64)), head_grid((64, 64, 64), spacing_mm=2.0)
    assert close.spacing == pytest.approx((2, 2, 2))
    assert close.corners()[:, 2].max() == pytest.approx(whole.corners()[:, 2].max())


def test_a_grid_beside_the_head_is_empty():
    affine = np.eye(4)
    affine[:3, 3] = 1000
    empty = simulate_anatomy(HeadConfig(), Grid((8, 8, 8), affine), seed=0)
    assert (np.asarray(empty.array) == Tissue.BACKGROUND).all()
