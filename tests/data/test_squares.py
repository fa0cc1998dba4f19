import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from transmodal.data.squares import cut, paste, smallest_square


def box_mask(shape, low, high):
    mask = np.zeros(shape, dtype=bool)
    mask[low[0] : high[0], low[1] : high[1]] = True
    return mask


def test_by_hand():
    square = smallest_square(box_mask((20, 30), (4, 10), (10, 20)))
    assert square.side == 10
    np.testing.assert_array_equal(square.center, [6.5, 14.5])
    empty = smallest_square(np.zeros((20, 30), dtype=bool))
    assert (empty.side, *empty.center) == (30, 9.5, 14.5)


@given(top=st.integers(0, 8), left=st.integers(0, 8), height=st.integers(2, 10), width=st.integers(2, 10), size=st.integers(16, 50))
def test_a_ramp_is_cut_out_and_put_back(top, left, height, width, size):
    mask = box_mask((20, 20), (top, left), (top + height, left + width))
    ramp = np.add.outer(np.arange(20.0), -3 * np.arange(20.0)).astype(np.float32)
    square = smallest_square(mask)
    image = cut(np.stack([ramp, 2 * ramp]), square, size, 0.0)
    assert image.shape == (2, size, size)
    inside = box_mask((20, 20), (top + 1, left + 1), (top + height - 1, left + width - 1))
    back = paste(image[1], square, (20, 20))
    # The square may reach beyond the slice, where there is no ramp to go back to.
    near = np.ones((20, 20), dtype=bool)
    near[[0, -1]] = near[:, [0, -1]] = False
    np.testing.assert_allclose(back[inside & near], 2 * ramp[inside & near], atol=1e-3)


def test_voxels_are_left_alone_where_the_size_is_that_of_the_square():
    image = np.random.default_rng(0).normal(size=(1, 20, 20)).astype(np.float32)
    square = smallest_square(box_mask((20, 20), (3, 5), (11, 13)))
    patch = cut(image, square, 8, 0.0)
    np.testing.assert_allclose(patch[0], image[0, 3:11, 5:13], atol=1e-6)
    np.testing.assert_allclose(paste(patch[0], square, (20, 20))[3:11, 5:13], image[0, 3:11, 5:13], atol=1e-6)
