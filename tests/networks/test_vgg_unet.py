import pytest
import torch
from torch import nn
from torch.nn import functional

from transmodal.networks.summary import count_convolutions, count_parameters
from transmodal.networks.vgg_unet import VGGUNet

# Configuration D of the VGG paper, and where its convolutions are in torchvision's ``features``.
CONFIGURATION_D = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512]
PLACES = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]


@pytest.fixture(scope="module")
def network():
    return VGGUNet().eval()


def test_the_encoder_has_the_names_and_shapes_of_torchvision(network):
    names = {name for name in network.state_dict() if name.startswith("features")}
    assert names == {f"features.{k}.{kind}" for k in PLACES for kind in ("weight", "bias")}
    widths = [3, *(c for c in CONFIGURATION_D if c != "M")]
    for k, place in enumerate(PLACES):
        assert network.state_dict()[f"features.{place}.weight"].shape == (widths[k + 1], widths[k], 3, 3)
    assert count_parameters(network.features) == 14_714_688


def test_it_has_about_29_million_values(network):
    up = [512, 256, 128, 64]
    back = [(1024, 512), (512, 512), (512, 256), (512, 256), (256, 256), (256, 128), (256, 128), (128, 64), (128, 64), (64, 64)]
    values = 14_714_688 + sum(9 * n * n + n for n in up) + sum(9 * i * o + 2 * o for i, o in back) + 64 + 1
    assert count_parameters(network) == values == 28_654_785
    assert count_convolutions(network) == 13 + 4 + 10 + 1


def test_the_encoder_computes_what_vgg_computes(network):
    weights = {name: torch.randn_like(t) * (2 / t[0].numel()) ** 0.5 for name, t in network.features.state_dict().items()}
    network.features.load_state_dict(weights)
    image = torch.randn(1, 3, 32, 32)
    expected, places = image, iter(PLACES)
    for layer in CONFIGURATION_D:
        if layer == "M":
            expected = functional.max_pool2d(expected, 2, 2)
        else:
            place = next(places)
            expected = functional.conv2d(expected, weights[f"{place}.weight"], weights[f"{place}.bias"], padding=1).relu()
    torch.testing.assert_close(network.features(image), expected)


def test_the_decoder_mirrors_the_encoder(network):
    """The numbers of channels that come out of the 3x3 convolutions, read backwards, are those that go into the encoder's."""
    into = [m.in_channels for m in network.features if isinstance(m, nn.Conv2d)][:10]
    out = [m.out_channels for m in network.decoder.modules() if isinstance(m, nn.Conv2d)]
    assert out[::-1] == [64, *into[1:]]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.features)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.decoder.modules()) == 10


def test_the_output_is_a_grey_level_and_every_block_is_used():
    network = VGGUNet((2, 4, 4, 8, 8))
    result = network(100 * torch.randn(2, 1, 32, 48))
    assert result.shape == (2, 1, 32, 48)
    assert result.min() >= 0
    assert result.max() <= 1
    result.mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_grey_is_normalised_as_the_colours_of_imagenet():
    plain, pretrained = VGGUNet((2, 4, 4, 8, 8)).eval(), VGGUNet((2, 4, 4, 8, 8), imagenet=True).eval()
    pretrained.load_state_dict(plain.state_dict())  # the constants are no weights
    seen = []
    pretrained.features[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    pretrained(torch.full((1, 1, 16, 16), 0.5))
    expected = [(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225]
    torch.testing.assert_close(seen[0][0, :, 0, 0], torch.tensor(expected))
