import numpy as np
import pytest
import torch
from scipy import stats

from transmodal.losses.voxel import gradient_difference, l1, l2, laplace


def test_by_hand():
    prediction = torch.tensor([[[[0.0, 1.0, 3.0], [0.0, 0.0, 0.0]]]])
    target = torch.tensor([[[[0.0, -1.0, 0.0], [0.0, 0.0, 0.0]]]])
    assert l1(prediction, target).item() == pytest.approx(5 / 6)
    assert l2(prediction, target).item() == pytest.approx(13 / 6)
    # down: (-1 - 1)², (-3 - 0)² and 0 over 3 differences; across: (1 + 1)², (2 - 1)² and two 0 over 4 differences
    assert gradient_difference(prediction, target).item() == pytest.approx(((4 + 9) / 3 + (4 + 1) / 4) / 2)
    # magnitudes: (1 - 1)², (3 - 0)²; (1 - 1)², (2 - 1)²
    assert gradient_difference(prediction, target, "magnitude").item() == pytest.approx((9 / 3 + 1 / 4) / 2)


@pytest.mark.parametrize("reading", ["signed", "magnitude"])
@pytest.mark.parametrize("shape", [(2, 1, 8, 9), (2, 1, 6, 7, 8)])
def test_a_constant_offset_has_no_gradient_difference(shape, reading):
    image = torch.randn(shape)
    assert gradient_difference(image + 3, image, reading).item() == pytest.approx(0, abs=1e-10)
    assert gradient_difference(image, torch.randn(shape), reading).item() > 0


def test_only_the_magnitude_reading_forgives_an_inverted_edge():
    image = torch.randn(1, 1, 8, 8)
    assert gradient_difference(-image, image, "magnitude").item() == 0
    assert gradient_difference(-image, image, "signed").item() > 1


@pytest.mark.parametrize("reading", ["signed", "magnitude"])
def test_gradients_are_right(reading):
    prediction = torch.randn(1, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    target = torch.randn(1, 1, 4, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: gradient_difference(p, target, reading), prediction)


def test_outside_the_mask_nothing_counts():
    prediction, target = torch.randn(2, 1, 6, 8), torch.randn(2, 1, 6, 8)
    mask = torch.zeros(2, 1, 6, 8, dtype=torch.bool)
    mask[:, :, 1:5, 2:7] = True
    inner = (slice(None), slice(None), slice(1, 5), slice(2, 7))
    for loss in (l1, l2, lambda p, t, m=None: gradient_difference(p, t, "signed", m)):
        expected = loss(prediction[inner], target[inner])
        torch.testing.assert_close(loss(prediction, target, mask), expected)
        torch.testing.assert_close(loss(torch.where(mask, prediction, 99.0), target, mask), expected)
    assert l1(prediction, target, torch.zeros_like(mask)) == 0


def test_the_likelihood_of_laplace_is_that_of_scipy_but_for_a_constant():
    rng = np.random.default_rng(0)
    error, scale = rng.normal(size=(2, 1, 5, 6)), rng.uniform(0.1, 3, size=(2, 1, 5, 6))
    expected = -stats.laplace.logpdf(error, scale=scale).mean() - np.log(2)
    assert laplace(torch.from_numpy(error), torch.from_numpy(np.log(scale))).item() == pytest.approx(expected)


def test_the_likelihood_is_best_where_the_spread_is_the_mean_absolute_error():
    error, best = torch.tensor([[[[1.0, -3.0, 2.0]]]]), np.log(2.0)
    values = [laplace(error, torch.full_like(error, best + step)).item() for step in (-0.1, 0.0, 0.1)]
    assert min(values) == values[1]
