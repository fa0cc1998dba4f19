import pytest
import torch
from torch.nn import functional

from transmodal.networks.resnet_generator import ResnetGenerator
from transmodal.networks.summary import count_convolutions, count_parameters


@pytest.mark.parametrize(("channels", "known"), [(1, 11_365_633), (3, 11_378_179)])
def test_it_has_as_many_values_as_cyclegans(channels, known):
    """11.378 million, with three channels, is what CycleGAN's own implementation reports."""
    with torch.device("meta"):
        network = ResnetGenerator(channels, channels)
    down = 49 * channels * 64 + 64 + 9 * 64 * 128 + 128 + 9 * 128 * 256 + 256
    residual = 9 * 2 * (9 * 256 * 256 + 256)
    up = 9 * 256 * 128 + 128 + 9 * 128 * 64 + 64 + 49 * 64 * channels + channels
    assert count_parameters(network) == down + residual + up == known
    assert count_convolutions(network) == 1 + 2 + 18 + 2 + 1
    assert network.stride == 4


def test_it_computes_what_is_written_layer_by_layer():
    network = ResnetGenerator(2, 3, channels=4, blocks=2)
    values = iter([torch.randn_like(tensor) * 0.3 for tensor in network.state_dict().values()])
    network.load_state_dict({name: next(values) for name in network.state_dict()})
    layers = iter(network.state_dict().values())

    def convolve(x, reach, stride=1):
        padded = functional.pad(x, [reach] * 4, "reflect") if stride == 1 else functional.pad(x, [reach] * 4)
        return functional.conv2d(padded, next(layers), next(layers), stride)

    def widen(x):
        return functional.conv_transpose2d(x, next(layers), next(layers), stride=2, padding=1, output_padding=1)

    norm = functional.instance_norm
    image = torch.randn(2, 2, 16, 24)
    x = norm(convolve(image, 3)).relu()
    x = norm(convolve(x, 1, 2)).relu()
    x = norm(convolve(x, 1, 2)).relu()
    for _ in range(2):
        x = x + norm(convolve(norm(convolve(x, 1)).relu(), 1))
    x = norm(widen(x)).relu()
    x = norm(widen(x)).relu()
    expected = convolve(x, 3).tanh()
    assert next(layers, None) is None
    torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (20, 12)])
def test_the_output_has_the_size_of_the_input(size):
    assert ResnetGenerator(3, 1, channels=2, blocks=1)(torch.randn(2, 3, *size)).shape == (2, 1, *size)
