import pytest
import torch
from monai.networks.nets.patchgan_discriminator import PatchDiscriminator

from receptive_field import receptive_field
from transmodal.networks.patchgan import PatchGAN
from transmodal.networks.summary import count_convolutions, count_parameters


@pytest.mark.parametrize(("layers", "pixels"), [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_every_score_sees_a_patch_of(layers, pixels):
    assert receptive_field(PatchGAN(channels=1, layers=layers), 2 * pixels + 20) == pixels


@pytest.mark.parametrize(("channels", "known"), [(1, 2_762_689), (2, 2_763_713), (3, 2_764_737)])
def test_it_has_as_many_values_as_the_papers(channels, known):
    with torch.device("meta"):
        network = PatchGAN(channels)
    widths = [(channels, 64), (64, 128), (128, 256), (256, 512), (512, 1)]
    assert count_parameters(network) == sum(16 * i * o + o for i, o in widths) == known
    assert count_convolutions(network) == 5


def test_the_width_grows_up_to_eight_times_the_first():
    shapes = [tuple(tensor.shape[:2]) for name, tensor in PatchGAN(1, 2, layers=5).state_dict().items() if name.endswith("weight")]
    assert shapes == [(2, 1), (4, 2), (8, 4), (16, 8), (16, 16), (16, 16), (1, 16)]


@pytest.mark.parametrize("layers", [2, 3])
def test_parity_with_monai(layers):
    ours = PatchGAN(2, 4, layers)
    theirs = PatchDiscriminator(spatial_dims=2, channels=4, in_channels=2, num_layers_d=layers, norm="INSTANCE", bias=True)
    values = [torch.randn_like(tensor) * 0.2 for tensor in ours.state_dict().values()]
    for network in (ours, theirs):
        network.load_state_dict(dict(zip(network.state_dict(), values, strict=True)))
    image = torch.randn(2, 2, 48, 40)
    torch.testing.assert_close(ours(image), theirs(image)[-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layers", [1, 3])
def test_the_smallest_image_has_one_score(layers):
    size = 3 * 2**layers
    assert PatchGAN(1, 2, layers)(torch.randn(1, 1, size, size)).shape == (1, 1, 1, 1)


def test_a_slice_of_256_has_30_by_30_scores():
    assert PatchGAN(1, 1)(torch.zeros(1, 1, 256, 256)).shape == (1, 1, 30, 30)
