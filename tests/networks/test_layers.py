import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from transmodal.networks.dcgan import LatentDiscriminator, LatentGenerator
from transmodal.networks.dual_discriminator import DualDiscriminator
from transmodal.networks.layers import CONV, bare_instance_norm, fold, unfold
from transmodal.networks.patchgan import PatchGAN
from transmodal.networks.resnet_generator import ResnetGenerator


@pytest.mark.parametrize(
    "network", [ResnetGenerator(blocks=1), PatchGAN(), DualDiscriminator("D5"), LatentGenerator(), LatentDiscriminator()], ids=type
)
def test_adversarial_networks_begin_small(network):
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)):
            centre = 1.0 if isinstance(layer, nn.BatchNorm2d) else 0.0
            count = layer.weight.numel()
            # Five standard errors each
            assert layer.weight.mean().item() == pytest.approx(centre, abs=5 * 0.02 / count**0.5)
            assert layer.weight.std().item() == pytest.approx(0.02, rel=5 / (2 * count) ** 0.5)
            assert layer.bias is None or not layer.bias.any()


def test_the_bare_instance_norm_is_instance_norm_and_learns_nothing():
    norm, features = bare_instance_norm(3), 5 + 2 * torch.randn(2, 3, 6, 7)
    torch.testing.assert_close(norm(features), nn.functional.instance_norm(features))
    assert not list(norm.parameters())


def test_gradients_of_small_volumes_are_right_in_bfloat16():
    """Those of torch's own layer are not, on CPUs that compute in bfloat16."""
    torch.manual_seed(0)
    layer, volume = CONV[3](32, 32, kernel_size=3, padding=1), torch.randn(1, 32, 2, 3, 4)
    gradients = []
    for enabled in (False, True, True, True):
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            layer(volume).float().sum().backward()
        gradients.append(layer.weight.grad.clone())
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], rtol=0.02, atol=0.5)


@given(st.integers(2, 3), st.integers(1, 3), st.integers(1, 3), st.lists(st.integers(1, 3), min_size=3, max_size=3))
def test_what_is_folded_can_be_unfolded(dims, block, channels, blocks):
    image = torch.randn(2, channels, *(block * n for n in blocks[:dims]))
    folded = fold(image, block)
    assert folded.shape == (2, channels * block**dims, *blocks[:dims])
    assert torch.equal(unfold(folded, block), image)
    if dims == 2:
        assert torch.equal(folded, nn.functional.pixel_unshuffle(image, block))


def test_each_block_of_a_volume_becomes_the_channels_of_its_voxel():
    image = torch.arange(4.0 * 6 * 8).view(1, 1, 4, 6, 8)
    assert torch.equal(fold(image, 2)[0, :, 1, 2, 3], image[0, 0, 2:4, 4:6, 6:8].flatten())
