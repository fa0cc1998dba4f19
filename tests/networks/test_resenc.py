import pytest
import torch
from monai.networks.blocks.dynunet_block import UnetResBlock
from torch import nn

from transmodal.networks.resenc import ResEncUNet, ResidualBlock
from transmodal.networks.summary import count_convolutions, count_parameters


def test_its_size():
    with torch.device("meta"):
        network = ResEncUNet(3)
    # stem; two a block and one for each shortcut between widths; up, merge at five levels; output
    assert count_convolutions(network) == 1 + 2 * 26 + 4 + 2 * 5 + 1
    three = [(1, 32, 1), (32, 32, 2), (32, 64, 1), (64, 64, 5), (64, 128, 1), (128, 128, 7), (128, 256, 1), (256, 256, 11)]
    three += [(256, 320, 1), (320, 320, 11), (320, 320, 12)]
    three += [(640, 320, 1), (512, 256, 1), (256, 128, 1), (128, 64, 1), (64, 32, 1)]
    up = [(320, 320), (320, 256), (256, 128), (128, 64), (64, 32)]
    shortcuts = [(32, 64), (64, 128), (128, 256), (256, 320)]
    values = sum(n * (27 * i * o + o + 2 * o) for i, o, n in three) + sum(8 * i * o + o for i, o in up)
    values += sum(i * o + 2 * o for i, o in shortcuts) + 32 + 1
    assert count_parameters(network) == values == 102_348_193
    assert network.stride == 32


@pytest.mark.parametrize(("dims", "size"), [(2, (16, 24)), (3, (8, 16, 8))])
def test_the_output_has_the_size_of_the_input(dims, size):
    network = ResEncUNet(dims, 3, 2, channels=(4, 8, 8), blocks=(1, 2, 2))
    assert network(torch.randn(2, 3, *size)).shape == (2, 2, *size)


@pytest.mark.parametrize("outputs", [4, 6])
def test_parity_with_monai(outputs):
    """Without a stride, MONAI's residual block is the same function of the same weights."""
    ours = ResidualBlock(3, 4, outputs)
    norm, act = ("INSTANCE", {"affine": True}), ("leakyrelu", {"negative_slope": 0.01})
    theirs = UnetResBlock(3, 4, outputs, kernel_size=3, stride=1, norm_name=norm, act_name=act)
    (first, norm1, _), second, norm2 = ours.body
    pairs = [(first, theirs.conv1.conv), (norm1, theirs.norm1), (second, theirs.conv2.conv), (norm2, theirs.norm2)]
    if outputs != 4:
        pairs += [(ours.shortcut[0], theirs.conv3.conv), (ours.shortcut[1], theirs.norm3)]
    for a, b in pairs:
        for name, tensor in a.state_dict().items():
            if name in b.state_dict():
                b.state_dict()[name].copy_(tensor.normal_())
            else:
                tensor.zero_()  # theirs has no bias before a normalisation
    image = torch.randn(2, 4, 6, 8, 5)
    torch.testing.assert_close(ours(image), theirs(image), rtol=1e-4, atol=1e-4)


def test_a_shortcut_that_halves_takes_the_mean_of_each_cube():
    block = ResidualBlock(3, 2, 2, stride=2)
    for parameter in block.body.parameters():
        nn.init.zeros_(parameter)
    image = torch.rand(1, 2, 4, 6, 8)
    expected = image.reshape(1, 2, 2, 2, 3, 2, 4, 2).mean(dim=(3, 5, 7))
    torch.testing.assert_close(block(image), expected)
