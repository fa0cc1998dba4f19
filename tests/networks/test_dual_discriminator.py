from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from receptive_field import receptive_field
from transmodal.networks.dual_discriminator import VARIANTS, DualDiscriminator
from transmodal.networks.summary import count_convolutions, count_parameters

# Table II of the paper: filters of head, shared network and tail.
TABLE = {
    "D1": ([64], [64, 128, 256, 512], [512, 1]),
    "D2": ([64, 64], [64, 128, 256, 512], [512, 512, 1]),
    "D3": ([64, 64], [64, 128, 256, 512], [512, 512, 512, 1]),
    "D4": ([64], [128, 256, 512], [512, 1]),
    "D5": ([64], [128, 256, 512], [1]),
}
KNOWN = {"D1": 11_228_226, "D2": 19_749_058, "D3": 28_138_690, "D4": 11_162_626, "D5": 2_772_994}
SMALLEST = {"D1": 49, "D2": 66, "D3": 82, "D4": 25, "D5": 17}


def values(widths):
    return sum(16 * i * o + o for i, o in pairwise(widths))


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_has_the_filters_of_the_paper(variant):
    head, trunk, tail = TABLE[variant]
    with torch.device("meta"):
        network = DualDiscriminator(variant)
    heads = values([1, *head]) + values([2, *head])
    assert count_parameters(network) == heads + values([head[-1], *trunk]) + 2 * values([trunk[-1], *tail]) == KNOWN[variant]
    assert count_convolutions(network) == 2 * len(head) + len(trunk) + 2 * len(tail)


@pytest.mark.parametrize(("variant", "pixels"), [("D1", 145), ("D2", 196), ("D3", 244), ("D4", 73), ("D5", 49)])
def test_only_the_trunk_halves(variant, pixels):
    """From the last score backwards: r + 3 for a convolution of stride 1, 2 r + 2 for one of stride 2."""
    head, trunk, tail = VARIANTS[variant]
    expected = 1 + 3 * (len(tail) + 1)
    for _ in trunk:
        expected = 2 * expected + 2
    assert expected + 3 * len(head) == pixels
    assert receptive_field(DualDiscriminator(variant, channels=1), 2 * pixels + 40, paired=False) == pixels


@pytest.mark.parametrize("paired", [False, True])
def test_it_computes_what_is_written_layer_by_layer(paired):
    network = DualDiscriminator("D2", channels=2)
    network.load_state_dict({name: torch.randn_like(tensor) * 0.3 for name, tensor in network.state_dict().items()})
    kind = "paired" if paired else "unpaired"
    parts = (network.heads[kind], network.trunk, network.tails[kind])
    weights = iter([tensor for part in parts for tensor in part.state_dict().values()])

    def convolve(x, stride=1):
        return functional.conv2d(x, next(weights), next(weights), stride, padding=1)

    def normalize(x):
        return functional.leaky_relu(functional.instance_norm(x), 0.2)

    image = torch.randn(2, 2 if paired else 1, 80, 70)
    x = normalize(convolve(convolve(image)))
    for _ in range(4):
        x = normalize(convolve(x, 2))
    expected = convolve(normalize(convolve(normalize(convolve(x)))))
    assert next(weights, None) is None
    torch.testing.assert_close(network(image, paired), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("paired", "trained"), [(False, "unpaired"), (True, "paired")])
def test_both_kinds_train_the_trunk_and_each_its_own_head_and_tail(paired, trained):
    network = DualDiscriminator(channels=1)
    network(torch.randn(1, 2 if paired else 1, 64, 64), paired).mean().backward()
    moved = {".".join(name.split(".")[:2]) for name, p in network.named_parameters() if p.grad is not None}
    assert {name for name in moved if not name.startswith("trunk")} == {f"heads.{trained}", f"tails.{trained}"}
    assert all(p.grad is not None for p in network.trunk.parameters())


@pytest.mark.parametrize(("variant", "size"), SMALLEST.items())
def test_the_smallest_image_has_one_score(variant, size):
    network = DualDiscriminator(variant, channels=1)
    assert VARIANTS[variant].smallest == size
    assert network(torch.randn(1, 1, size, size), paired=False).shape == (1, 1, 1, 1)
    with pytest.raises((ValueError, RuntimeError)):
        network(torch.randn(1, 1, size - 1, size - 1), paired=False)
