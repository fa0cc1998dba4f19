import numpy as np
import pytest
import torch
from scipy import ndimage

from transmodal.methods.random_fields import eroded, grown, highest_around, resize, share_around, smooth, smooth_field, surroundings


@pytest.mark.parametrize("sigmas", [(1.3, 0.6), (2.0, 1.0, 0.4)])
def test_the_gaussian_is_that_of_scipy(sigmas):
    image = np.random.default_rng(0).normal(size=(12, 17, 9)[: len(sigmas)]).astype(np.float32)
    expected = ndimage.gaussian_filter(image, sigmas, mode="nearest", truncate=3)
    np.testing.assert_allclose(smooth(torch.from_numpy(image)[None, None], sigmas)[0, 0], expected, atol=1e-5)


@pytest.mark.parametrize("reach", [1, 3])
@pytest.mark.parametrize("shape", [(30, 40), (20, 24, 18)])
def test_masks_grow_and_shrink_as_those_of_scipy(shape, reach):
    mask = np.random.default_rng(1).random(shape) > 0.99
    tensor, box = torch.from_numpy(mask)[None, None], np.ones((2 * reach + 1,) * len(shape))
    np.testing.assert_array_equal(grown(tensor, reach)[0, 0], ndimage.binary_dilation(mask, box))
    np.testing.assert_array_equal(eroded(~tensor, reach)[0, 0], ndimage.binary_erosion(~mask, box, border_value=1))
    share = ndimage.uniform_filter(mask.astype(float), 2 * reach + 1, mode="constant")
    np.testing.assert_allclose(share_around(tensor, reach)[0, 0], share, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 9, 7), (2, 1, 8, 1, 5)])
def test_the_highest_around_is_that_of_a_pooling(shape):
    torch.manual_seed(0)
    image = torch.randn(shape)
    pooled = torch.nn.functional.max_pool2d if len(shape) == 4 else torch.nn.functional.max_pool3d
    assert torch.equal(highest_around(image), pooled(image, kernel_size=3, stride=1, padding=1))


@pytest.mark.parametrize("reach", [3.0, 10.0, 24.0])
def test_surroundings_hold_what_is_near_and_nothing_far(reach):
    mask = torch.zeros(1, 1, 60, 70, dtype=torch.bool)
    mask[..., 20:30, 25:40] = True
    distance = torch.from_numpy(ndimage.distance_transform_edt(~mask[0, 0].numpy()))
    near = surroundings(mask, reach)[0, 0]
    assert near[distance <= max(reach - 4, 0)].all()
    assert not near[distance > np.sqrt(2) * (reach + 8)].any()


def test_a_field_is_smooth_and_of_unit_variance_at_its_nodes():
    torch.manual_seed(0)
    field = smooth_field(torch.zeros(40, 1, 64, 64), 8)
    assert field.shape == (40, 1, 64, 64)
    assert field.mean().abs() < 0.05 and 0.5 < field.var() < 1.3
    assert field.diff(dim=2).std() < 0.35
    assert smooth_field(torch.zeros(2, 1, 8, 9, 10), 4, channels=3).shape == (2, 3, 8, 9, 10)


@pytest.mark.parametrize(("size", "other"), [((12, 10), (5, 17)), ((12, 10, 8), (5, 17, 8))])
def test_images_are_resized_as_torch_does(size, other):
    image, mode = torch.randn(2, 3, *size), {2: "bilinear", 3: "trilinear"}[len(size)]
    torch.testing.assert_close(resize(image, other), torch.nn.functional.interpolate(image, size=other, mode=mode))
    assert resize(image, size) is image


def test_a_constant_stays_when_it_is_resized():
    image = torch.full((1, 1, 12, 10, 8), 3.0)
    torch.testing.assert_close(resize(image, (5, 7, 8)), torch.full((1, 1, 5, 7, 8), 3.0))
