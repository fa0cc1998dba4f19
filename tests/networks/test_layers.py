import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from transmodal.networks import layers
from transmodal.networks.dcgan import LatentDiscriminator, LatentGenerator
from transmodal.networks.dual_discriminator import DualDiscriminator
from transmodal.networks.layers import CHANNELS_LAST, CONV, InstanceNorm, bare_instance_norm, normalized_in_windows, windows_over
from transmodal.networks.patchgan import PatchGAN
from transmodal.networks.resenc import ResEncUNet
from transmodal.networks.resnet_generator import ResnetGenerator
from transmodal.networks.unet import UNet
from transmodal.networks.vgg_unet import VGGUNet


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


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("size", [(6, 7), (4, 5, 6)], ids=["slices", "volumes"])
def test_instance_norm_and_its_gradients_are_the_same_in_either_layout(size, images):
    torch.manual_seed(0)
    norm, features, weights = InstanceNorm(5), 3 + 2 * torch.randn(images, 5, *size), torch.randn(images, 5, *size)
    nn.init.uniform_(norm.weight)
    found = []
    for layout in (torch.contiguous_format, CHANNELS_LAST[len(size)]):
        norm.zero_grad()
        image = features.clone(memory_format=layout).requires_grad_()
        result = norm(image)
        (weights * result).sum().backward()
        assert result.is_contiguous(memory_format=layout)
        found.append([result, image.grad, norm.weight.grad.clone(), norm.bias.grad.clone()])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
def test_instance_norm_of_a_large_volume_keeps_its_digits(kind):
    """Over 2.5 million voxels, sums in float32, one voxel after the other, are off by several parts in ten thousand."""
    torch.manual_seed(0)
    volume = (3 + torch.randn(1, 4, 151, 128, 128)).to(kind)
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
        found = InstanceNorm(4)(volume.to(memory_format=torch.channels_last_3d))
    exact = nn.functional.instance_norm(volume.double())
    assert found.dtype == kind
    sd, exact_sd = ((normal.double() * exact).mean(dim=(2, 3, 4)) for normal in (found, exact.to(kind)))
    torch.testing.assert_close(sd, exact_sd, rtol=4e-5, atol=0)


@pytest.mark.parametrize("affine", [True, False])
def test_instance_norm_by_slabs_has_the_gradients_of_its_function(affine, monkeypatch):
    monkeypatch.setattr(layers, "_SUMMED_VOXELS", 24)  # two slices of the first size at once, and one is left over
    torch.manual_seed(0)
    norm = InstanceNorm(2, affine=affine).double()
    image = torch.randn(1, 2, 5, 3, 4, dtype=torch.float64).to(memory_format=torch.channels_last_3d).requires_grad_()
    torch.testing.assert_close(norm(image), nn.functional.instance_norm(image))
    assert torch.autograd.gradcheck(norm, image)
    assert torch.autograd.gradgradcheck(norm, image)


@given(st.integers(1, 50), st.integers(0, 40), st.integers(1, 90))
def test_windows_lie_on_their_axis_and_cover_its_inner_part(window, padding, inner):
    size = max(window, inner + padding)
    spans = [(round(first * size), round(last * size)) for first, last in windows_over(size, inner, window)]
    assert all(first >= 0 and last <= size and last - first == window for first, last in spans)
    before = (size - inner) // 2
    covered = {voxel for first, last in spans for voxel in range(first, last)}
    assert covered >= set(range(before, before + inner))
    assert len(spans) == -(-inner // window)


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.02)], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d], ids=str)
def test_instance_norm_in_windows_takes_each_voxel_as_often_as_windows_hold_it(layout, kind, tolerance, monkeypatch):
    monkeypatch.setattr(layers, "_SUMMED_VOXELS", 12)
    torch.manual_seed(0)
    norm, image = InstanceNorm(3), (2 + 3 * torch.randn(2, 3, 8, 6, 4)).to(kind).float()
    nn.init.uniform_(norm.weight)
    # Three windows of 3 along the first axis, one of 4 in the middle of the second, all of the third.
    windows = (windows_over(8, 8, 3), windows_over(6, 2, 4), windows_over(4, 4, 4))
    held = torch.cat([image[:, :, first : first + 3, 1:5] for first in (0, 2, 5)], dim=2)
    mean, sd = held.mean(dim=(2, 3, 4), keepdim=True), held.std(dim=(2, 3, 4), keepdim=True, correction=0)
    expected = norm.weight.view(3, 1, 1, 1) * (image - mean) / sd
    with torch.no_grad(), normalized_in_windows(nn.Sequential(norm), windows), torch.autocast("cpu", torch.bfloat16, kind != torch.float32):
        found = norm(image.to(kind, copy=True).to(memory_format=layout))
    assert found.dtype == kind
    torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(norm(image), nn.functional.instance_norm(image, weight=norm.weight))


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (UNet(2, channels=(4, 8)), (1, 1, 16, 16)),
        (UNet(3, channels=(4, 8)), (1, 1, 8, 8, 8)),
        (ResEncUNet(3, channels=(4, 8), blocks=(1, 1)), (1, 1, 8, 8, 8)),
        (VGGUNet((2, 2, 4, 4, 8)), (1, 1, 16, 16)),
        (ResnetGenerator(channels=4, blocks=1), (1, 1, 16, 16)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_networks_give_is_not_in_steps_of_bfloat16(network, shape):
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        made = network(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    assert made.dtype == torch.float32
    assert (made != made.bfloat16()).float().mean() > 0.9


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
