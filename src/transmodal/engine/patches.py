"""A network over images that are larger than what it sees at once."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.signal.windows import hann

from transmodal.networks.layers import normalized_in_windows, windows_over


def apply_network(
    network: nn.Module,
    inputs: Float[Tensor, "b c *s"],
    backgrounds: Float[Tensor, " c"],
    patch: tuple[int, ...] | None,
    overlap: float,
    at_once: int,
    window: tuple[int, ...] | None = None,
) -> Float[Tensor, "b d *s"]:
    """The output of a network for images of any size.

    Parameters
    ----------
    network : Module
    inputs : Tensor, shape (b, c, *s)
    backgrounds : Tensor, shape (c,)
        What lies beyond the border, channel by channel.
    patch : tuple of int, optional
        Size of the overlapping patches that the network sees; None shows it whole images.
    overlap : float
        Share of a patch that its neighbour covers again.
    at_once : int
        How many patches go through the network at once.
    window : tuple of int, optional
        Size of the windows that instance normalisation takes its mean and SD over in larger patches of volumes, which are then no larger
        than the images need.
    """
    sizes = inputs.shape[2:]
    stride = int(getattr(network, "stride", 1))
    needed = tuple(math.ceil(size / stride) * stride for size in sizes)
    if patch is None:
        outputs = network(_padded(inputs, needed, backgrounds))
    elif window is None or len(patch) < 3:
        outputs = _slide(network, inputs, backgrounds, patch, overlap, at_once)
    else:
        window = tuple(map(min, window, patch))
        patch = tuple(min(largest, max(least, size)) for largest, least, size in zip(patch, window, needed, strict=True))
        inner = (min(size, whole) for size, whole in zip(sizes, patch, strict=True))
        with normalized_in_windows(network, tuple(map(windows_over, patch, inner, window))):
            outputs = _slide(network, inputs, backgrounds, patch, overlap, at_once)
    for d, size in enumerate(sizes, start=2):
        outputs = outputs.narrow(d, (outputs.shape[d] - size) // 2, size)
    return outputs


def _slide(
    network: nn.Module,
    inputs: Float[Tensor, "b c *s"],
    backgrounds: Float[Tensor, " c"],
    patch: tuple[int, ...],
    overlap: float,
    at_once: int,
) -> Float[Tensor, "b d *t"]:
    from monai.inferers.utils import sliding_window_inference

    wanted = [max(size, least) for size, least in zip(inputs.shape[2:], patch, strict=True)]
    outputs = sliding_window_inference(
        _padded(inputs, wanted, backgrounds),
        roi_size=patch,
        sw_batch_size=at_once,
        # A copy, because the output is weighted in place: a network may give back its input, which is a view of the whole.
        predictor=lambda part: network(part).to(torch.float32, copy=True),
        overlap=overlap,
        roi_weight_map=_weights(patch, inputs.device),
    )
    assert isinstance(outputs, Tensor)
    return outputs


def _weights(patch: tuple[int, ...], device: torch.device) -> Float[Tensor, "1 1 *s"]:
    """What each voxel of a patch counts: the product of a Hann window along each axis, which falls from 1 in the middle to next to nothing.

    MONAI's Gaussian does not fall below a thousandth. Far from the middle of a patch it does not fall at all, so that the outermost voxels
    of the next, of which a network knows least, count as much as inner ones, and a line is seen where it begins.
    """
    weights = torch.ones(1, 1, *[1] * len(patch), device=device)
    for axis, length in enumerate(patch, start=2):
        # Every other point of it: the middles of the voxels, as it is 0 at the border itself.
        window = hann(2 * length + 1, device=device)[1::2]
        weights = weights * window.reshape(*[1] * axis, -1, *[1] * (len(patch) + 1 - axis))
    return weights


def _padded(inputs: Float[Tensor, "b c *s"], sizes: Sequence[int], backgrounds: Float[Tensor, " c"]) -> Float[Tensor, "b c *t"]:
    """Images in the middle of larger ones of these sizes."""
    if tuple(sizes) == tuple(inputs.shape[2:]):
        return inputs
    filled = backgrounds.reshape(1, -1, *[1] * len(sizes)).expand(*inputs.shape[:2], *sizes).clone()
    middle = filled
    for d, (size, whole) in enumerate(zip(inputs.shape[2:], sizes, strict=True), start=2):
        middle = middle.narrow(d, (whole - size) // 2, size)
    middle.copy_(inputs)
    return filled
