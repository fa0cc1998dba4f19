import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transmodal.engine.checkpoint import load_tree, save_tree
from transmodal.engine.pool import ImagePool


def numbered(*numbers):
    """Images that can be told apart: one pixel, whose value is a number."""
    return torch.tensor(numbers, dtype=torch.float32).reshape(-1, 1, 1, 1)


def contents(pool):
    return pool.state()["images"].flatten().tolist()


def test_while_it_fills_it_gives_back_what_it_gets():
    pool = ImagePool(5)
    for batch in (numbered(0, 1), numbered(2, 3, 4)):
        assert pool.exchange(batch).equal(batch)
    assert contents(pool) == [0, 1, 2, 3, 4]


@given(size=st.integers(1, 6), batches=st.lists(st.integers(1, 5), max_size=12), seed=st.integers(0, 2**31))
def test_once_full_it_neither_makes_nor_loses_an_image(size, batches, seed):
    torch.manual_seed(seed)
    pool = ImagePool(size)
    pool.exchange(numbered(*range(-size, 0)))
    count = 0
    for length in batches:
        before, batch = contents(pool), list(range(count, count + length))
        found = pool.exchange(numbered(*batch)).flatten().tolist()
        assert sorted(found + contents(pool)) == sorted(batch + before)
        assert len(found) == length
        count += length


def test_half_of_the_images_are_from_the_past_and_each_place_is_as_likely():
    torch.manual_seed(0)
    draws, size = 2000, 4
    pool = ImagePool(size)
    pool.exchange(numbered(*range(size)))
    exchanged = [0] * size
    for number in range(size, size + draws):
        before = contents(pool)
        (found,) = pool.exchange(numbered(number)).flatten().tolist()
        if found != number:
            exchanged[before.index(found)] += 1
    # Five standard deviations of binomial counts
    assert abs(sum(exchanged) - draws / 2) < 5 * (draws / 4) ** 0.5
    assert all(abs(n - draws / 8) < 5 * (draws * 7 / 64) ** 0.5 for n in exchanged)


def test_a_pool_of_none_gives_back_what_it_gets_and_draws_nothing():
    batch = torch.randn(3, 1, 4, 4)
    pool, state = ImagePool(0), torch.get_rng_state()
    assert pool.exchange(batch).equal(batch)
    assert torch.get_rng_state().equal(state)
    assert contents(pool) == []


@pytest.mark.parametrize("size", [0, 2])
def test_the_graph_ends_here(size):
    pool = ImagePool(size)
    for _ in range(4):
        assert not pool.exchange(torch.randn(2, 1, 4, 4, requires_grad=True) * 2).requires_grad


def test_what_is_kept_is_a_copy():
    pool, batch = ImagePool(2), numbered(1, 2)
    pool.exchange(batch)
    batch.zero_()
    assert contents(pool) == [1, 2]


def test_images_from_a_file_and_from_a_device_are_saved_together(monkeypatch):
    """As after a resumed training on a GPU, which is stood in for by a tensor that only `cpu` makes one like the others."""

    class Elsewhere(torch.Tensor):
        def cpu(self):
            return self.as_subclass(torch.Tensor)

    pool = ImagePool(2)
    pool.load_state({"images": numbered(1)})
    pool.exchange(numbered(2).as_subclass(Elsewhere))
    assert type(pool.state()["images"]) is torch.Tensor
    assert contents(pool) == [1, 2]


@pytest.mark.parametrize("filled", [0, 2, 3, 7])
def test_it_goes_on_exactly_from_a_file(tmp_path, filled):
    pool, again = ImagePool(3), ImagePool(3)
    for number in range(filled):
        pool.exchange(torch.full((1, 2, 4, 5), float(number)).to(memory_format=torch.channels_last))
    save_tree(tmp_path / "pool.safetensors", pool.state())
    again.load_state(load_tree(tmp_path / "pool.safetensors"))
    results = []
    for each in (pool, again):
        torch.manual_seed(1)
        results.append([each.exchange(torch.full((2, 2, 4, 5), 100.0 + k)) for k in range(10)])
    for expected, found in zip(*results, strict=True):
        assert found.equal(expected)
        assert found.stride() == expected.stride()
