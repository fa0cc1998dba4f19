import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from transmodal.methods.generation import Generation, _smooth, deform, make_ct, make_mr
from transmodal.simulation.tissues import Tissue, tissue_table

CLEAN = Generation(deformation=0, sequences=0, texture=0, bias=0, noise=0, blur=0, thickness=1, bone_hu=0, soft_hu=0)


def blocks(dims: int = 2, side: int = 48) -> torch.Tensor:
    """Squares or cubes of brain in bone in skin, in background."""
    labels = np.zeros((side,) * dims, dtype=np.float32)
    for inset, tissue in ((6, Tissue.SKIN), (12, Tissue.CORTICAL_BONE), (18, Tissue.GREY_MATTER)):
        labels[(slice(inset, -inset),) * dims] = tissue
    return torch.from_numpy(labels)[None, None].expand(3, 1, *labels.shape).clone()


@pytest.mark.parametrize("dims", [2, 3])
def test_deformed_labels_are_labels_and_stand_on_the_seed(dims):
    labels = blocks(dims, 48 if dims == 2 else 40)
    torch.manual_seed(1)
    first = deform(labels, Generation())
    torch.manual_seed(1)
    assert torch.equal(deform(labels, Generation()), first)
    assert set(first.unique().tolist()) <= set(labels.unique().tolist())
    changed = (first != labels).float().mean(dim=tuple(range(1, labels.ndim)))
    assert ((changed > 0.005) & (changed < 0.5)).all()
    assert not torch.equal(first[0], first[1])
    assert torch.equal(deform(labels, CLEAN), labels)


def test_a_displacement_by_a_constant_moves_everything_by_as_much(monkeypatch):
    """Along the first axis by three voxels, along the second by none: the axes of the grid that is sampled are in the right order."""
    labels = torch.arange(20.0 * 16).view(1, 1, 20, 16)
    constant = torch.tensor([3.0, 0.0]).view(1, 2, 1, 1)
    monkeypatch.setattr(torch, "randn", lambda *shape, **_: constant.expand(shape))
    moved = deform(labels, Generation(deformation=1))
    assert torch.equal(moved[:, :, :17], labels[:, :, 3:])
    assert (moved[:, :, 17:] == 0).all()


@pytest.mark.parametrize("dims", [2, 3])
def test_a_ct_has_the_hu_of_its_tissues(dims):
    labels, table = blocks(dims), tissue_table()
    ct = make_ct(labels, CLEAN)
    for inset, tissue in ((8, Tissue.SKIN), (15, Tissue.CORTICAL_BONE), (24, Tissue.GREY_MATTER)):
        values = ct[(slice(None), 0, *[inset if k == 0 else slice(24 - 5, 24 + 5) for k in range(dims)])]
        assert values.mean().item() == pytest.approx(table[tissue].hu, abs=4 * table[tissue].hu_texture / np.sqrt(10))
    assert (ct[:, 0, :3] + 1000).abs().max() < 0.01


def test_heads_differ_in_the_hu_of_bone():
    middle = (slice(None), 0, slice(14, 16), slice(14, 34))
    bone = torch.cat([make_ct(blocks(), Generation())[middle].mean(dim=(1, 2)) for _ in range(20)])
    assert 100 < bone.std() < 350


@pytest.mark.parametrize("dims", [2, 3])
def test_a_clean_mr_is_one_value_a_tissue_and_air_is_darkest(dims):
    labels = blocks(dims)
    mr = make_mr(labels, labels > 0, CLEAN)
    for sample, numbers in zip(mr, labels, strict=True):
        assert sample.min() >= 0 and sample.max() <= 1
        for tissue in numbers.unique():
            inside = sample[_inner(numbers == tissue)]
            assert inside.std() < 1e-3
        assert sample[numbers == 0].mean() <= sample[numbers > 0].mean()
    assert not torch.allclose(mr[0], mr[1], atol=0.05)


def _inner(mask: torch.Tensor) -> torch.Tensor:
    """Without the voxels beside others, which a little blur reaches."""
    padded = (~mask)[None].float()
    pool = torch.nn.functional.max_pool2d if mask.ndim == 3 else torch.nn.functional.max_pool3d
    return pool(padded, 3, stride=1, padding=1)[0] == 0


def test_mrs_are_finite_whatever_is_drawn():
    for seed in range(30):
        torch.manual_seed(seed)
        labels = deform(blocks(), Generation())
        mr = make_mr(labels, labels > 0, Generation())
        assert mr.isfinite().all() and mr.min() >= 0 and mr.max() <= 1
        assert mr[labels > 0].std() > 0.01
    empty = torch.zeros_like(labels)
    assert make_mr(empty, empty > 0, Generation()).isfinite().all()


@pytest.mark.parametrize("sigmas", [(1.3, 0.6), (2.0, 1.0, 0.4)])
def test_the_gaussian_is_that_of_scipy(sigmas):
    image = np.random.default_rng(0).normal(size=(12, 17, 9)[: len(sigmas)]).astype(np.float32)
    expected = gaussian_filter(image, sigmas, mode="nearest", truncate=3)
    np.testing.assert_allclose(_smooth(torch.from_numpy(image)[None, None], sigmas)[0, 0], expected, atol=1e-5)
