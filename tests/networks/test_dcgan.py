import pytest
import torch
from torch.nn import functional

from transmodal.core.errors import ConfigError
from transmodal.networks.dcgan import LatentDiscriminator, LatentGenerator
from transmodal.networks.summary import count_convolutions, count_parameters

# In, out, and whether a batch normalisation follows.
GENERATOR = [(128, 512, True), (512, 256, True), (256, 128, True), (128, 64, True), (64, 1, False)]
DISCRIMINATOR = [(1, 64, True), (64, 128, True), (128, 256, True), (256, 512, True), (512, 1, False)]


@pytest.mark.parametrize(
    ("kind", "table", "known"), [(LatentGenerator, GENERATOR, 3_804_033), (LatentDiscriminator, DISCRIMINATOR, 2_763_649)]
)
def test_their_sizes_at_64_pixels(kind, table, known):
    with torch.device("meta"):
        network = kind()
    # A convolution has a bias where no normalisation brings one; a normalisation has a factor and an offset.
    assert count_parameters(network) == sum(16 * i * o + (2 * o if norm else o) for i, o, norm in table) == known
    assert count_convolutions(network) == 5


def randomized(network):
    state = network.state_dict()
    state.update({name: torch.randn_like(t) * 0.2 for name, t in state.items() if "running" not in name and t.is_floating_point()})
    network.load_state_dict(state)
    learned = [tensor for name, tensor in state.items() if "running" not in name and "num_batches" not in name]
    return network, iter(learned)


def normalized(x, weights):
    """Batch normalisation by the batch itself."""
    mean, variance = x.mean(dim=(0, 2, 3), keepdim=True), x.var(dim=(0, 2, 3), keepdim=True, correction=0)
    factor, offset = next(weights), next(weights)
    return (x - mean) / (variance + 1e-5).sqrt() * factor[:, None, None] + offset[:, None, None]


def test_the_generator_computes_what_is_written_layer_by_layer():
    network, weights = randomized(LatentGenerator(6, 2, channels=3, size=32))
    latent = torch.randn(4, 6)
    x = normalized(functional.conv_transpose2d(latent[:, :, None, None], next(weights)), weights).relu()
    for _ in range(2):
        x = normalized(functional.conv_transpose2d(x, next(weights), stride=2, padding=1), weights).relu()
    expected = functional.conv_transpose2d(x, next(weights), next(weights), stride=2, padding=1).tanh()
    assert next(weights, None) is None
    torch.testing.assert_close(network(latent), expected, rtol=1e-4, atol=1e-5)


def test_the_discriminator_computes_what_is_written_layer_by_layer():
    network, weights = randomized(LatentDiscriminator(2, channels=3, size=32))
    image = torch.randn(4, 2, 32, 32)
    x = image
    for _ in range(3):
        x = functional.leaky_relu(normalized(functional.conv2d(x, next(weights), stride=2, padding=1), weights), 0.2)
    expected = functional.conv2d(x, next(weights), next(weights)).flatten()
    assert next(weights, None) is None
    torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [16, 64, 256])
def test_images_of_one_size_go_from_one_to_the_other(size):
    images = LatentGenerator(5, channels=1, size=size)(torch.randn(2, 5))
    assert images.shape == (2, 1, size, size)
    assert LatentDiscriminator(channels=1, size=size)(images).shape == (2,)


@pytest.mark.parametrize("size", [28, 8, 0, 96])
@pytest.mark.parametrize("kind", [LatentGenerator, LatentDiscriminator])
def test_other_sizes_are_refused(kind, size):
    with pytest.raises(ConfigError, match=f"size = {size}: .*power of two"):
        kind(size=size)
