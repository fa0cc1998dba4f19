import pytest
import torch
from monai.networks.nets.basic_unet import BasicUNet

from transmodal.networks.summary import count_convolutions, count_parameters
from transmodal.networks.unet import UNet


@pytest.mark.parametrize("dims", [2, 3])
def test_the_papers_unet_has_23_layers(dims):
    with torch.device("meta"):
        network = UNet(dims)
    assert count_convolutions(network) == 23
    assert network.stride == 8
    levels = {(1, 64): 1, (64, 64): 2, (64, 128): 1, (128, 128): 2, (128, 256): 1, (256, 256): 2, (256, 512): 1, (512, 512): 2}
    way_up = {(512, 256): 1, (256, 256): 2, (256, 128): 1, (128, 128): 2, (128, 64): 1}
    three = sum(n * (3**dims * i * o + o) for table in (levels, way_up) for (i, o), n in table.items())
    up = sum(2**dims * i * o + o for i, o in [(512, 256), (256, 128), (128, 64)])
    assert count_parameters(network) == three + up + 64 + 1 == {2: 11_531_329, 3: 33_896_641}[dims]


@pytest.mark.parametrize("norm", ["none", "batch", "instance"])
@pytest.mark.parametrize(("dims", "size"), [(2, (16, 24)), (3, (8, 16, 8))])
def test_the_output_has_the_size_of_the_input(dims, size, norm):
    network = UNet(dims, in_channels=3, out_channels=2, channels=(4, 8, 8, 8), norm=norm)
    assert network(torch.randn(2, 3, *size)).shape == (2, 2, *size)


@pytest.mark.parametrize(("dims", "size"), [(2, (16, 24)), (3, (8, 16, 8))])
def test_the_features_are_what_the_way_up_begins_with(dims, size):
    network = UNet(dims, channels=(2, 4, 8))
    image, seen = torch.randn(1, 1, *size), []
    for block in (*network.encoder, network.bottom):
        block.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    levels = network.encode(image)
    assert [tuple(level.shape[1:]) for level in levels] == [(c, *(n // 2**k for n in size)) for k, c in enumerate((2, 4, 8))]
    seen.clear()
    network(image)
    assert all(torch.equal(level, output) for level, output in zip(levels, seen, strict=True))


def test_group_norm_with_one_channel_a_group_is_instance_norm():
    x = torch.randn(2, 4, 8, 8)
    block = UNet(2, channels=(4, 8), norm="instance").encoder[0]
    norm = block[1]
    torch.testing.assert_close(norm(x), torch.nn.functional.instance_norm(x, eps=norm.eps))


def test_parity_with_monai():
    """With two convolutions a level, batch norm and ReLU, MONAI's BasicUNet is the same function of the same weights."""
    ours = UNet(2, channels=(8, 8, 16, 32, 64), convolutions=2, last_convolutions=2, norm="batch").eval()
    theirs = BasicUNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        features=(8, 8, 16, 32, 64, 8),
        act="relu",
        norm="batch",
        bias=False,
        upsample="deconv",
    ).eval()
    source = [module for module in ours.modules() if not list(module.children())]
    source = [module for module in source if list(module.parameters())]
    blocks = [theirs.conv_0, theirs.down_1, theirs.down_2, theirs.down_3, theirs.down_4]
    blocks += [theirs.upcat_4, theirs.upcat_3, theirs.upcat_2, theirs.upcat_1, theirs.final_conv]
    target = [leaf for block in blocks for leaf in block.modules() if not list(leaf.children()) and list(leaf.parameters())]
    ups = [leaf for leaf in target if isinstance(leaf, torch.nn.ConvTranspose2d)]
    # Ours lists all up-convolutions, then all blocks of the way up; MONAI interleaves them.
    rest = [leaf for leaf in target if leaf not in ups]
    order = [m for m in source if not isinstance(m, torch.nn.ConvTranspose2d)]
    own_ups = [m for m in source if isinstance(m, torch.nn.ConvTranspose2d)]
    for a, b in zip(order + own_ups, rest + ups, strict=True):
        state = b.state_dict()
        state.update({name: torch.randn_like(t) * 0.2 for name, t in a.state_dict().items() if t.is_floating_point() and "var" not in name})
        a.load_state_dict({name: t for name, t in state.items() if name in a.state_dict()})
        b.load_state_dict(state)
    x = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)
