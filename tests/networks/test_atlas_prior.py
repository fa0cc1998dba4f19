import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from transmodal.networks.atlas_prior import BoneWeighted, Weighting, saturate


class Sum(nn.Module):
    """Adds its channels."""

    stride = 4

    def forward(self, image):
        return image.sum(dim=1, keepdim=True)


def complement(alpha, beta, channel=0, threshold=0.5) -> Weighting:
    return Weighting(channel, threshold, alpha, beta, -alpha, 1 - beta)


def inputs(mr=1.0, atlas=-0.5, *bones) -> torch.Tensor:
    return torch.tensor([mr, atlas, *bones]).reshape(1, -1, 1, 1).expand(1, -1, 4, 4)


def test_eq_6_is_a_ramp_that_saturates():
    bone = torch.tensor([0.0, 0.1, 0.25, 0.5, 1.0]).reshape(1, 1, 1, 5)
    torch.testing.assert_close(saturate(bone, 0.25).flatten(), torch.tensor([0.0, 0.4, 1.0, 1.0, 1.0]))


def test_eqs_5_and_7_by_hand():
    network = BoneWeighted(Sum(), 1, {0: complement(0.8, 0.1, threshold=0.5)})
    weight = 0.8 * (0.2 / 0.5) + 0.1
    expected = weight * 1.0 + (1 - weight) * -0.5
    torch.testing.assert_close(network(inputs(1.0, -0.5, 0.2)), torch.full((1, 1, 4, 4), expected))


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_without_weight_it_is_the_atlas_and_with_all_of_it_the_network(mr, atlas):
    network = BoneWeighted(Sum(), 1, {0: complement(1.0, 0.0)})
    torch.testing.assert_close(network(inputs(mr, atlas, 0.0)), torch.full((1, 1, 4, 4), atlas))
    torch.testing.assert_close(network(inputs(mr, atlas, 1.0)), torch.full((1, 1, 4, 4), mr))


def test_weights_that_are_no_complement_count_from_the_lowest_hu():
    network = BoneWeighted(Sum(), 1, {0: Weighting(0, 1.0, 0.0, 0.5, 0.0, 0.25)}, zero=-1.0)
    torch.testing.assert_close(network(inputs(1.0, 0.0, 0.7)), torch.full((1, 1, 4, 4), 0.5 * 2 + 0.25 * 1 - 1))


def test_the_weights_change_at_their_step_and_travel_with_the_network():
    schedule = {2: complement(0.0, 1.0, channel=1), 0: complement(1.0, 0.0)}
    network = BoneWeighted(Sum(), 1, schedule).train()
    made = [float(network(inputs(1.0, -1.0, 0.0, 0.0)).mean()) for _ in range(4)]
    assert made == [-1.0, -1.0, 1.0, 1.0]
    other = BoneWeighted(Sum(), 1, schedule).eval()
    assert float(other(inputs(1.0, -1.0, 0.0, 0.0)).mean()) == -1.0
    other.load_state_dict(network.state_dict())
    assert float(other(inputs(1.0, -1.0, 0.0, 0.0)).mean()) == 1.0
    assert int(other.step) == 4  # prediction is no training


def test_an_informed_network_sees_the_atlas_and_its_own_weight():
    network = BoneWeighted(Sum(), 1, {0: complement(0.5, 0.5, threshold=1.0)}, informed=True)
    weight = 0.5 * 0.4 + 0.5
    made = 0.3 + 0.2 + weight
    torch.testing.assert_close(network(inputs(0.3, 0.2, 0.4)), torch.full((1, 1, 4, 4), weight * made + (1 - weight) * 0.2))


def test_the_gradient_is_weighted_as_the_output_is():
    inner = nn.Conv2d(1, 1, 1)
    network = BoneWeighted(inner, 1, {0: complement(0.6, 0.1, threshold=1.0)})
    network(inputs(1.0, 0.0, 0.5)).sum().backward()
    assert inner.bias.grad.item() == pytest.approx(16 * 0.4)
