"""From a trained network to a volume: prepare the scan as the training scans were, predict, and go back to the scan's own grid."""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from transmodal.core.config import Config
from transmodal.core.errors import ConfigError, DataError, OutOfMemory
from transmodal.core.volume import Direction, Modality, Volume, source_of, target_of
from transmodal.data.sampling import View
from transmodal.data.squares import cut, paste, smallest_square
from transmodal.engine.hardware import optimize_layout, use_bf16
from transmodal.imaging.grid import resample
from transmodal.imaging.intensity import Intensity, IntensityMap, IntensityStatistics
from transmodal.imaging.preparation import BACKGROUND, Preparation, PreparedScan, prepare_scan

# Slices that go through a network at once. Eight 256x256 slices need well under a gigabyte in a U-Net of 64 channels.
SLICES_AT_ONCE = 8


class Prediction(Config):
    """How a volume is put together: the ``[predict]`` table of a recipe.

    Parameters
    ----------
    patch : tuple of int, optional
        Size of overlapping patches, blended with a Gaussian that favours their centres; two numbers for slices, three for
        volumes. None takes whole slices (or the whole volume) at once.
    overlap : float
        Share of a patch that its neighbour covers again.
    axes : tuple of int, optional
        The axes across which slices are predicted and averaged, of those of the view; by default all of them.
    """

    patch: tuple[int, int] | tuple[int, int, int] | None = None
    overlap: float = Field(default=0.5, ge=0, lt=1)
    axes: tuple[Literal[0, 1, 2], ...] | None = Field(default=None, min_length=1)


class Setting(Config):
    """What prediction must know of training beside the weights; it is stored in the run.

    Parameters
    ----------
    direction : {"mr2ct", "ct2mr"}
    preparation : Preparation
        Of the training scans, and so of every scan to come.
    intensity : dict
        The intensity setting of ``mr`` and of ``ct``.
    target_statistics : IntensityStatistics
        Of a typical training target: where a scan-dependent intensity map goes back to.
    view : View
    prediction : Prediction
    """

    direction: Direction
    preparation: Preparation
    intensity: dict[str, Intensity]
    target_statistics: IntensityStatistics
    view: View
    prediction: Prediction

    @property
    def source(self) -> Modality:
        """The modality that goes in."""
        return source_of(self.direction)

    @property
    def target(self) -> Modality:
        """The modality that comes out."""
        return target_of(self.direction)


def synthesize(network: nn.Module, scan: Volume, setting: Setting) -> Volume:
    """Apply a network to a scan.

    Parameters
    ----------
    network : Module
        On the device that is to be used.
    scan : Volume
        Of the source modality, on any grid.
    setting : Setting

    Returns
    -------
    Volume
        Of the target modality on the scan's own grid; HU as int16 for a CT, float32 for an MR; background outside the head.

    Raises
    ------
    DataError
        If the scan is of the wrong modality, or no head is found in it.
    """
    prepared = prepare_source(scan, setting)
    source = setting.intensity[setting.source].fit(prepared.statistics)
    target = setting.intensity[setting.target].fit(setting.target_statistics)
    image = predict_array(network, prepared.volume.array, setting, source, prepared.mask.array)
    return place_result(target.inverse(image), prepared, scan, setting.target)


def prepare_source(scan: Volume, setting: Setting) -> PreparedScan:
    """Prepare a scan as the training scans were; `DataError` if it is of the wrong modality, or no head is found in it."""
    if scan.modality != setting.source:
        raise DataError(f"the model turns {setting.source} into {setting.target}; the scan was given as {scan.modality}")
    return prepare_scan(scan, setting.preparation)


def place_result(values: Float[np.ndarray, "x y z"], prepared: PreparedScan, scan: Volume, target: Modality) -> Volume:
    """Blank what lies outside the head and take the result from the working grid to the scan's."""
    background = BACKGROUND[target]
    masked = np.where(prepared.mask.array, values, np.float32(background)).astype(np.float32)
    result = resample(prepared.volume.with_array(masked, target), scan.grid, fill=background)
    return result.with_array(np.round(result.array).astype(np.int16)) if target == "ct" else result


def predict_array(
    network: nn.Module,
    image: Float[np.ndarray, "x y z"],
    setting: Setting,
    source: IntensityMap,
    mask: Bool[np.ndarray, "x y z"] | None = None,
) -> Float[np.ndarray, "x y z"]:
    """Network output, in network units, for a whole volume in the scan's units; slices of several axes are averaged.

    The mask is what a view is fitted to that shows whole slices; without one that is the whole image.

    Memory is bounded by the volume and the activations of a few slices or patches, whatever the number of them. Where the device has
    not even that much, fewer go through it at once, and at last the CPU takes over; a warning says so.

    Raises
    ------
    OutOfMemory
        If the CPU cannot hold it either.
    """
    network = optimize_layout(network.eval())
    device = next(network.parameters()).device
    mask = np.ones(image.shape, dtype=bool) if mask is None else mask
    try:
        for place, at_once in _attempts(device):
            try:
                return _predict(_Task(network.to(place), setting, source, place, at_once), image, mask)
            except RuntimeError as error:
                if not _lacks_memory(error):
                    raise
                warnings.warn(f"{place} has too little memory for {at_once} slices or patches at once; trying with less", stacklevel=2)
    finally:
        network.to(device)
    raise OutOfMemory(f"predicting {'x'.join(map(str, image.shape))} voxels needs more memory than there is; set a smaller predict.patch")


def _attempts(device: torch.device) -> Iterator[tuple[torch.device, int]]:
    """Where to predict and how many slices or patches at once: less and less on the device, then on the CPU."""
    for place in dict.fromkeys((device, torch.device("cpu"))):
        yield from ((place, at_once) for at_once in (SLICES_AT_ONCE, SLICES_AT_ONCE // 4, 1))


def _lacks_memory(error: RuntimeError) -> bool:
    """Whether torch could not allocate; on the CPU the error has no class of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


@dataclass(frozen=True)
class _Task:
    network: nn.Module
    setting: Setting
    source: IntensityMap
    device: torch.device
    at_once: int

    def apply(self, images: Float[np.ndarray, "b c *s"]) -> Float[np.ndarray, " b *s"]:
        """The network's output for images in the scan's units."""
        background = float(self.source.forward(np.full((1, 1), BACKGROUND[self.setting.source])).item())
        inputs = torch.from_numpy(self.source.forward(images)).to(self.device)
        return _apply(self.network, inputs, self.setting.prediction, background, self.at_once)[:, 0].float().cpu().numpy()


def _predict(task: _Task, image: Float[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"]) -> Float[np.ndarray, "x y z"]:
    view, device = task.setting.view, task.device
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=use_bf16("auto", device)):
        if view.dims == 3:
            return task.apply(image[None, None])[0]
        total = np.zeros(image.shape, dtype=np.float32)
        axes = task.setting.prediction.axes or view.axes
        for axis in axes:
            slices, masks, out = (np.moveaxis(a, axis, 0) for a in (image, mask, total))
            for first, slab in _slabs(slices, view.context, BACKGROUND[task.setting.source], task.at_once):
                part = slice(first, first + len(slab))
                out[part] += _apply_fitted(task, slab, masks[part]) if view.fit == "square" else task.apply(slab)
        return total / len(axes)


def _apply_fitted(task: _Task, slab: Float[np.ndarray, "b c h w"], masks: Bool[np.ndarray, "b h w"]) -> Float[np.ndarray, "b h w"]:
    """The output for slices that are cut to squares and resized for the network, and back."""
    size, fill = task.setting.view.size[0], BACKGROUND[task.setting.source]
    squares = [smallest_square(mask) for mask in masks]
    outputs = task.apply(np.stack([cut(slices, square, size, fill) for slices, square in zip(slab, squares, strict=True)]))
    return np.stack([paste(output, square, masks[0].shape) for output, square in zip(outputs, squares, strict=True)])


def _slabs(
    slices: Float[np.ndarray, "n h w"], context: int, background: float, at_once: int
) -> Iterator[tuple[int, Float[np.ndarray, "b c h w"]]]:
    """Slices a few at a time, each with its neighbours as channels."""
    padded = np.pad(slices, ((context, context), (0, 0), (0, 0)), constant_values=background)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 1 + 2 * context, axis=0)
    for first in range(0, len(slices), at_once):
        yield first, np.moveaxis(windows[first : first + at_once], -1, 1).copy()


def _apply(
    network: nn.Module, inputs: Float[Tensor, "b c *s"], prediction: Prediction, background: float, at_once: int
) -> Float[Tensor, "b d *s"]:
    """Whole images, or overlapping patches."""
    if prediction.patch is None:
        return _apply_whole(network, inputs, background)
    if len(prediction.patch) != inputs.ndim - 2:
        raise ConfigError(f"predict.patch = {prediction.patch} has {len(prediction.patch)} sizes; the view has {inputs.ndim - 2}")
    from monai.inferers.utils import sliding_window_inference

    outputs = sliding_window_inference(
        inputs,
        roi_size=prediction.patch,
        sw_batch_size=at_once,
        predictor=lambda patch: network(patch).float(),
        overlap=prediction.overlap,
        mode="gaussian",
        cval=background,
    )
    assert isinstance(outputs, Tensor)
    return outputs


def _apply_whole(network: nn.Module, inputs: Float[Tensor, "b c *s"], background: float) -> Float[Tensor, "b d *s"]:
    """Pad to what the network's poolings divide, apply, and cut the padding off."""
    stride = int(getattr(network, "stride", 1))
    sizes = inputs.shape[2:]
    missing = [math.ceil(size / stride) * stride - size for size in sizes]
    padding = [value for extra in reversed(missing) for value in (extra // 2, extra - extra // 2)]
    outputs = network(pad(inputs, padding, value=background))
    for d, (size, extra) in enumerate(zip(sizes, missing, strict=True), start=2):
        outputs = outputs.narrow(d, extra // 2, size)
    return outputs
