import math
from typing import get_args

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from transmodal.losses.adversarial import Adversarial, discriminator_loss, generator_loss, gradient_penalty

KINDS = get_args(Adversarial)


@pytest.mark.parametrize(
    ("kind", "generator", "discriminator"),
    [
        ("least_squares", ((0.5 - 1) ** 2 + (-1 - 1) ** 2) / 2, (0**2 + 1**2) / 2 + (0.5**2 + 1**2) / 2),
        ("wasserstein", -(0.5 - 1) / 2, (0.5 - 1) / 2 - (1 + 2) / 2),
        (
            "cross_entropy",
            (math.log(1 + math.exp(-0.5)) + math.log(1 + math.exp(1))) / 2,
            (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2))) / 2 + (math.log(1 + math.exp(0.5)) + math.log(1 + math.exp(-1))) / 2,
        ),
    ],
)
@pytest.mark.parametrize("shape", [(2,), (2, 1, 1, 1), (1, 1, 1, 2)])
def test_by_hand(kind, generator, discriminator, shape):
    real, synthetic = torch.tensor([1.0, 2.0]).reshape(shape), torch.tensor([0.5, -1.0]).reshape(shape)
    assert generator_loss(kind, synthetic).item() == pytest.approx(generator)
    assert discriminator_loss(kind, real, synthetic).item() == pytest.approx(discriminator)


def test_cross_entropy_is_torchs_with_labels_one_and_zero_and_stays_finite():
    for scale in (1.0, 1000.0):
        real, synthetic = scale * torch.randn(2, 1, 5, 5), scale * torch.randn(2, 1, 5, 5)
        one, zero = torch.ones_like(real), torch.zeros_like(real)
        torch.testing.assert_close(generator_loss("cross_entropy", synthetic), cross_entropy(synthetic, one))
        expected = cross_entropy(real, one) + cross_entropy(synthetic, zero)
        torch.testing.assert_close(discriminator_loss("cross_entropy", real, synthetic), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_two_pull_the_scores_apart(kind):
    real, synthetic = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    discriminator_loss(kind, real, synthetic + 0.1).backward()
    assert real.grad is not None
    assert synthetic.grad is not None
    assert (real.grad < 0).all()
    assert (synthetic.grad > 0).all()
    (pull,) = torch.autograd.grad(generator_loss(kind, synthetic), synthetic)
    assert (pull < 0).all()


def test_the_penalty_of_a_linear_critic_is_known():
    """D(x) = a·x has the slope a everywhere, whose length is 5; and dP/da = 2 (|a| - 1) a / |a|."""
    a = torch.tensor([3.0, 4.0]).reshape(1, 1, 1, 2).requires_grad_()
    penalty = gradient_penalty(lambda x: (a * x).sum(dim=(1, 2, 3)), torch.randn(3, 1, 1, 2), torch.randn(3, 1, 1, 2))
    assert penalty.item() == pytest.approx(16)
    (slope,) = torch.autograd.grad(penalty, a)
    torch.testing.assert_close(slope.flatten(), 2 * 4 * torch.tensor([0.6, 0.8]))


def test_the_penalty_takes_the_mean_of_a_map_of_scores():
    """2 x at each of 16 pixels has the mean slope 2/16 by each pixel: a length of 2/16 * 4 = 1/2."""
    penalty = gradient_penalty(lambda x: 2 * x, torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4))
    assert penalty.item() == pytest.approx((0.5 - 1) ** 2)


def test_the_penalty_is_taken_between_the_images_where_the_seed_says():
    """D(x) = |x|²/2 has the slope x, so that the penalty tells where it was taken."""
    real, synthetic = torch.randn(4, 1, 3, 3), torch.randn(4, 1, 3, 3)
    torch.manual_seed(5)
    place = torch.rand(4, 1, 1, 1)
    lengths = ((1 - place) * real + place * synthetic).flatten(1).norm(dim=1)
    torch.manual_seed(5)
    found = gradient_penalty(lambda x: x.square().sum(dim=(1, 2, 3)) / 2, real, synthetic)
    torch.testing.assert_close(found, (lengths - 1).square().mean())


def test_no_gradient_of_the_penalty_goes_into_the_images():
    critic = nn.Conv2d(1, 1, 3)
    synthetic = torch.randn(2, 1, 6, 6, requires_grad=True)
    gradient_penalty(lambda x: critic(x).square(), torch.randn(2, 1, 6, 6), synthetic).backward()
    assert synthetic.grad is None
    assert critic.weight.grad is not None


def test_the_penalty_of_a_wrapped_critic_trains_in_mixed_precision():
    critic = nn.Sequential(nn.Conv2d(1, 2, 3), nn.LeakyReLU(0.2), nn.Conv2d(2, 1, 3))
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    wrapped = fabric.setup_module(critic)
    real, synthetic = torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8)
    loss = discriminator_loss("wasserstein", wrapped(real), wrapped(synthetic))
    fabric.backward(loss + 10 * gradient_penalty(wrapped.module, real, synthetic))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in critic[0].parameters())
