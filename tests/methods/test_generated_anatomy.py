import numpy as np
import pytest
import torch
from scipy import ndimage

from transmodal.methods import generated_anatomy
from transmodal.methods.generated_anatomy import (
    FIBROUS,
    FILLING,
    NUMBERS,
    SURROUNDINGS,
    AnatomyRanges,
    change_thickness,
    cut,
    deform,
    draw_anatomy,
    fill_teeth,
    hollow_skull,
    is_any,
    line_skull,
    mix_soft_tissue,
    surround,
    thread_strands,
    widen_fluid,
)
from transmodal.methods.random_fields import eroded, grown
from transmodal.simulation.tissues import Tissue

_SHARES = (
    *("air_cells", "thickness_change", "lining", "soft_change", "wide_fluid", "strands"),
    *("lesions", "fluid", "fillings", "surroundings", "cuts"),
)
NEVER = dict.fromkeys(_SHARES, 0)
STILL = AnatomyRanges(deformation=0, wrinkles=0, **NEVER)
SKULL = (Tissue.CORTICAL_BONE, Tissue.DIPLOE)


def blocks(dims: int = 2, side: int = 56) -> torch.Tensor:
    """Nested squares or cubes: skin, fat, muscle, tables and diploe of a skull, fluid, brain."""
    labels = np.zeros((side,) * dims, dtype=np.float32)
    layers = [Tissue.SKIN, Tissue.FAT, Tissue.MUSCLE, Tissue.CORTICAL_BONE, Tissue.DIPLOE, Tissue.CORTICAL_BONE, Tissue.CSF]
    for number, tissue in enumerate([*layers, Tissue.GREY_MATTER]):
        inset = 6 + 2 * number
        labels[(slice(inset, -inset),) * dims] = tissue
    return torch.from_numpy(labels)[None, None]


@pytest.fixture(params=[2, 3])
def labels(request):
    return blocks(request.param)


def test_deformed_labels_are_labels_and_stand_on_the_seed(labels):
    torch.manual_seed(1)
    first = deform(labels, AnatomyRanges())
    torch.manual_seed(1)
    assert torch.equal(deform(labels, AnatomyRanges()), first)
    assert set(first.unique().tolist()) <= set(labels.unique().tolist())
    assert 0.01 < (first != labels).float().mean() < 0.7
    assert torch.equal(deform(labels, STILL), labels)


def test_a_displacement_by_a_constant_moves_everything_by_as_much(monkeypatch):
    """Along the first axis by three voxels, along the second by none: the axes of the grid that is sampled are in the right order."""
    labels = torch.arange(20.0 * 16).view(1, 1, 20, 16)
    constant = torch.tensor([3.0, 0.0]).view(1, 2, 1, 1)
    monkeypatch.setattr(generated_anatomy, "smooth_field", lambda like, distance, channels: constant.expand(1, 2, 20, 16))
    moved = deform(labels, AnatomyRanges(deformation=1, wrinkles=0))
    assert torch.equal(moved[:, :, :17], labels[:, :, 3:])
    assert (moved[:, :, 17:] == 0).all()


@pytest.mark.parametrize("dims", [2, 3])
def test_air_comes_into_thick_bone_away_from_the_brain_and_leaves_the_vault(dims):
    labels, skull = blocks(dims), is_any(blocks(dims), SKULL)
    block = (0, 0, *[slice(23, 33)] * dims)
    thick = torch.where(labels == Tissue.GREY_MATTER, float(Tissue.MUSCLE), labels)
    thick = torch.where(thick == Tissue.CSF, float(Tissue.MUSCLE), thick)
    thick[block] = Tissue.DIPLOE
    found = 0
    for seed in range(8):
        torch.manual_seed(seed)
        hollow = hollow_skull(thick)
        air = hollow == Tissue.SINUS_AIR
        assert not (air & ~is_any(thick, SKULL)).any()
        assert not (air & skull).any()
        assert not (grown(air) & (hollow == Tissue.DIPLOE)).any()
        assert torch.equal(hollow[~grown(air)], thick[~grown(air)])
        found += int(air[block].any())
        brain_around = torch.where(thick == Tissue.MUSCLE, float(Tissue.GREY_MATTER), thick)
        assert not (hollow_skull(brain_around) == Tissue.SINUS_AIR).any()
    assert found >= 6


def test_the_skull_changes_by_one_voxel_at_most_and_has_dense_bone_under_its_surface(labels):
    before = is_any(labels, SKULL)[0, 0].numpy()
    box = np.ones((3,) * before.ndim)
    sizes = set()
    for seed in range(12):
        torch.manual_seed(seed)
        changed = change_thickness(labels)
        skull = is_any(changed, SKULL)
        assert not (skull[0, 0].numpy() & ~ndimage.binary_dilation(before, box)).any()
        assert not (ndimage.binary_erosion(before, box) & ~skull[0, 0].numpy()).any()
        assert (changed[skull & ~eroded(skull)] == Tissue.CORTICAL_BONE).all()
        assert torch.equal(changed[labels == Tissue.GREY_MATTER], labels[labels == Tissue.GREY_MATTER])
        sizes.add(np.sign(int(skull.sum()) - int(before.sum())))
    assert {-1, 1} <= sizes


def test_a_lining_lies_on_the_skull_and_takes_nothing_of_it(labels):
    torch.manual_seed(1)
    lined = line_skull(labels)
    skull, lining = is_any(labels, SKULL), lined == FIBROUS
    assert lining.any()
    assert torch.equal(is_any(lined, SKULL), skull)
    assert not (lining & ~grown(skull)).any()
    assert torch.equal(lined[~lining], labels[~lining])


def test_fat_and_muscle_are_mixed_and_nothing_else_changes(labels):
    torch.manual_seed(0)
    mixed = mix_soft_tissue(labels)
    soft = is_any(labels, (Tissue.FAT, Tissue.MUSCLE))
    assert torch.equal(is_any(mixed, (Tissue.FAT, Tissue.MUSCLE)), soft)
    assert torch.equal(mixed[~soft], labels[~soft])
    assert not torch.equal(mixed[soft], labels[soft])


def test_what_is_around_a_head_lies_in_its_air(labels):
    found = 0
    for seed in range(8):
        torch.manual_seed(seed)
        surrounded = surround(labels)
        assert torch.equal(surrounded[labels > 0], labels[labels > 0])
        assert set(surrounded[labels == 0].unique().tolist()) <= {0.0, float(SURROUNDINGS)}
        found += int((surrounded == SURROUNDINGS).any())
    assert found > 4


def test_a_cut_leaves_a_half_space_of_the_head(labels):
    for seed in range(8):
        torch.manual_seed(seed)
        rest = cut(torch.ones_like(labels))
        assert 0.5 < rest.mean() <= 1
        assert set(rest.unique().tolist()) <= {0.0, 1.0}


def test_metal_is_in_teeth_and_silences_what_is_around(labels):
    torch.manual_seed(0)
    assert torch.equal(fill_teeth(labels)[0], labels)
    assert not fill_teeth(labels)[1].any()
    teeth = torch.where(labels == Tissue.GREY_MATTER, float(Tissue.TOOTH), labels)
    filled, void = fill_teeth(teeth)
    assert (filled == FILLING).any() and (teeth[filled == FILLING] == Tissue.TOOTH).all()
    assert void[filled == FILLING].all() and void.sum() > (filled == FILLING).sum()


def test_a_head_that_may_not_change_is_that_of_the_label_map(labels):
    anatomy = draw_anatomy(labels, STILL)
    assert torch.equal(anatomy.labels, labels)
    assert torch.equal(anatomy.mask, labels > 0)
    assert torch.equal(anatomy.bone, is_any(labels, SKULL))
    assert not anatomy.void.any()


def test_heads_have_known_labels_and_marrow_from_none_to_all(labels):
    means = []
    for seed in range(15):
        torch.manual_seed(seed)
        anatomy = draw_anatomy(labels, AnatomyRanges(lesions=1, fluid=1, surroundings=1, cuts=1, fillings=1))
        assert anatomy.labels.shape == anatomy.marrow.shape == anatomy.void.shape == labels.shape
        assert anatomy.labels.min() >= 0 and anatomy.labels.max() < NUMBERS
        assert anatomy.marrow.min() >= 0 and anatomy.marrow.max() <= 1
        assert not (anatomy.mask & (anatomy.labels == SURROUNDINGS)).any()
        means.append(float(anatomy.marrow.mean()))
    assert min(means) < 0.4 and max(means) > 0.8


def test_fluid_gets_wider_by_two_voxels_of_brain_at_most(labels):
    fluid, brain, box = (labels == Tissue.CSF)[0, 0].numpy(), labels == Tissue.GREY_MATTER, np.ones((3,) * (labels.ndim - 2))
    widths = set()
    for seed in range(12):
        torch.manual_seed(seed)
        changed = widen_fluid(labels)
        new = changed != labels
        assert brain[new].all() and (changed[new] == Tissue.CSF).all()
        reached = [ndimage.binary_dilation(fluid, box, iterations=k) for k in (1, 2)]
        assert not (new[0, 0].numpy() & ~reached[1]).any()
        widths.add(2 if (new[0, 0].numpy() & ~reached[0]).any() else 1 if new.any() else 0)
    assert {1, 2} <= widths


def test_strands_run_through_fluid_and_muscle_alone(labels):
    torch.manual_seed(3)
    changed = [thread_strands(labels) for _ in range(8)]
    new = torch.stack([one != labels for one in changed])
    assert all((one[one != labels] == FIBROUS).all() for one in changed)
    assert is_any(labels, (Tissue.CSF, Tissue.MUSCLE))[new.any(0)].all()
    assert 0.02 < new.float().sum() / (8 * is_any(labels, (Tissue.CSF, Tissue.MUSCLE)).sum()) < 0.5
