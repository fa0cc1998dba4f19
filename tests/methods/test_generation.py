import numpy as np
import pytest
import torch

from transmodal.methods.generated_anatomy import Anatomy, draw_anatomy
from transmodal.methods.generation import Generation, draw_pairs, make_ct, make_mr, shift_fat
from transmodal.methods.random_fields import eroded
from transmodal.simulation.tissues import Tissue, tissue_table

STILL = {
    "deformation": 0,
    "wrinkles": 0,
    "air_cells": 0,
    "thickness_change": 0,
    "lining": 0,
    "soft_change": 0,
    "wide_fluid": 0,
    "strands": 0,
    "lesions": 0,
    "fluid": 0,
    "fillings": 0,
    "surroundings": 0,
    "cuts": 0,
}
CLEAN = Generation(
    **STILL,
    sequences=0,
    texture=0,
    bias=0,
    noise=0,
    ghost=0,
    chemical_shift=0,
    gamma=0,
    blur=0,
    thickness=1,
    coarseness=1,
    bone_hu=0,
    soft_hu=0,
    density_hu=0,
)


def blocks(dims: int = 2, side: int = 48) -> torch.Tensor:
    """A square or cube of brain in bone in skin, in background."""
    labels = np.zeros((side,) * dims, dtype=np.float32)
    for inset, tissue in ((6, Tissue.SKIN), (12, Tissue.CORTICAL_BONE), (18, Tissue.GREY_MATTER)):
        labels[(slice(inset, -inset),) * dims] = tissue
    return torch.from_numpy(labels)[None, None]


def head(dims: int = 2, marrow: float = 1.0) -> Anatomy:
    labels = blocks(dims)
    return Anatomy(labels, torch.full_like(labels, marrow), torch.zeros_like(labels, dtype=torch.bool))


@pytest.mark.parametrize("dims", [2, 3])
def test_a_ct_has_the_hu_of_its_tissues(dims):
    ct, table = make_ct(head(dims), CLEAN), tissue_table()
    for inset, tissue in ((8, Tissue.SKIN), (15, Tissue.CORTICAL_BONE), (24, Tissue.GREY_MATTER)):
        values = ct[(0, 0, *[inset if k == 0 else slice(24 - 5, 24 + 5) for k in range(dims)])]
        assert values.mean().item() == pytest.approx(table[tissue].hu, abs=4 * table[tissue].hu_texture / np.sqrt(10))
    assert (ct[:, 0, :3] + 1000).abs().max() < 0.01


def test_heads_differ_in_the_hu_of_bone():
    middle = (0, 0, slice(14, 16), slice(14, 34))
    means = [make_ct(head(), Generation(density_hu=0))[middle].mean() for _ in range(60)]
    assert 75 < torch.stack(means).std() < 250


def test_bone_is_denser_here_than_there():
    torch.manual_seed(0)
    spread = [make_ct(head(), CLEAN.model_copy(update={"density_hu": density}))[0, 0, 14:34, 14:16].std() for density in (0.0, 400.0)]
    assert spread[1] > 1.5 * spread[0]


@pytest.mark.parametrize("marrow", [0.0, 1.0])
def test_spongy_bone_is_bright_and_soft_by_its_marrow(marrow):
    """With none of it it is as dark as dense bone, and nearly as dense."""
    torch.manual_seed(0)
    spongy = head(marrow=marrow)
    spongy = Anatomy(torch.where(spongy.labels == Tissue.GREY_MATTER, float(Tissue.DIPLOE), spongy.labels), spongy.marrow, spongy.void)
    table, inside = tissue_table(), (0, 0, slice(21, 27), slice(21, 27))
    expected = table[Tissue.DIPLOE].hu if marrow else 0.8 * table[Tissue.CORTICAL_BONE].hu
    assert make_ct(spongy, CLEAN)[inside].mean().item() == pytest.approx(expected, abs=150)
    mr = make_mr(spongy, CLEAN.model_copy(update={"dark_bone": 1.0}))
    assert (mr[inside].mean() - mr[0, 0, 15, 20:28].mean() < 1e-3) == (marrow == 0)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_clean_mr_is_one_value_a_tissue_and_air_is_darkest(dims):
    anatomy = head(dims)
    first, second = make_mr(anatomy, CLEAN), make_mr(anatomy, CLEAN)
    assert first.min() >= 0 and first.max() <= 1
    for tissue in anatomy.labels.unique():
        assert first[eroded(anatomy.labels == tissue)].std() < 1e-3
    assert first[~anatomy.mask].mean() <= first[anatomy.mask].mean()
    assert not torch.allclose(first, second, atol=0.05)


def test_fat_is_displaced_and_water_is_not():
    anatomy = head(marrow=0.25)
    labels = torch.where(anatomy.labels == Tissue.SKIN, float(Tissue.FAT), anatomy.labels)
    labels = torch.where(labels == Tissue.GREY_MATTER, float(Tissue.DIPLOE), labels)
    image = 1.0 + labels
    shifted = shift_fat(image, Anatomy(labels, anatomy.marrow, anatomy.void), 2, 3)
    row, fat, marrow = shifted[0, 0, 24], 1.0 + Tissue.FAT, 1.0 + Tissue.DIPLOE
    assert row[6:8].tolist() == [0, 0] and row[8:12].tolist() == [fat] * 4  # it left a gap, and stayed within itself
    assert row[12:14].tolist() == [1 + Tissue.CORTICAL_BONE + fat] * 2  # and lies over the bone beside it
    assert row[18:20].tolist() == [0.75 * marrow] * 2 and row[20:30].tolist() == [marrow] * 10
    assert torch.equal(shift_fat(image, anatomy, 0, 2), image)


def test_metal_is_dark_whatever_the_contrast():
    anatomy = head()
    void = torch.zeros_like(anatomy.void)
    void[..., 20:28, 20:28] = True
    for seed in range(5):
        torch.manual_seed(seed)
        mr = make_mr(Anatomy(anatomy.labels, anatomy.marrow, void), CLEAN)
        assert mr[eroded(void)].max() < 0.1


@pytest.mark.parametrize("dims", [2, 3])
def test_pairs_are_finite_whatever_is_drawn_and_stand_on_the_seed(dims):
    labels = blocks(dims).expand(2, -1, *[-1] * dims)
    for seed in range(20 if dims == 2 else 6):
        torch.manual_seed(seed)
        pair = draw_pairs(labels, Generation(lesions=0.5, fluid=0.5, fillings=0.5, surroundings=0.5, cuts=0.5))
        assert pair.mr.shape == pair.ct.shape == pair.mask.shape == labels.shape
        assert pair.mr.isfinite().all() and pair.mr.min() >= 0 and pair.mr.max() <= 1
        assert pair.ct.isfinite().all() and pair.ct.min() >= -1024 and pair.ct.max() <= 3071
        assert pair.mr[pair.mask].std() > 0.01
    torch.manual_seed(0)
    first = draw_pairs(labels, Generation())
    torch.manual_seed(0)
    assert torch.equal(draw_pairs(labels, Generation()).mr, first.mr)
    assert not torch.equal(first.mr[0], first.mr[1])
    assert draw_pairs(torch.zeros_like(labels), Generation()).mr.isfinite().all()


def test_what_lies_around_a_head_is_air_in_its_ct():
    torch.manual_seed(0)
    anatomy = draw_anatomy(blocks(), CLEAN.model_copy(update={"surroundings": 1.0}))
    outside = eroded(~anatomy.mask)
    assert (make_ct(anatomy, CLEAN)[outside] + 1000).abs().max() < 0.01
