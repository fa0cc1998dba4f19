import pytest
import torch

from transmodal.losses.features import feature_difference


def test_by_hand():
    prediction = [torch.tensor([[[0.0, 3.0]]]), torch.tensor([[[[10.0]]]])]
    target = [torch.tensor([[[1.0, -1.0]]]), torch.tensor([[[[40.0]]]])]
    # first level: (1 + 4) / 2 over (1 + 1) / 2; second: 30 over 40
    assert feature_difference(prediction, target).item() == pytest.approx((2.5 + 0.75) / 2)


def test_equal_features_do_not_differ_and_levels_count_alike_whatever_their_scale():
    target = [torch.randn(2, 4, 8, 8), torch.randn(2, 8, 4, 4)]
    prediction = [torch.randn_like(level) for level in target]
    assert feature_difference(target, target) == 0
    scaled = feature_difference([prediction[0], 1000 * prediction[1]], [target[0], 1000 * target[1]])
    torch.testing.assert_close(scaled, feature_difference(prediction, target))


def test_where_the_target_has_no_features_the_difference_is_not_divided():
    zeros = torch.zeros(1, 2, 4, 4)
    assert feature_difference([zeros + 0.5], [zeros]).item() == 0.5
    assert feature_difference([zeros], [zeros]).item() == 0


def test_gradients_are_right():
    prediction = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    target = torch.randn(1, 2, 3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: feature_difference([p, p[..., :2]], [target, target[..., :2]]), prediction)
