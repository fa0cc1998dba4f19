"""From a trained network to a volume: prepare the scan as the training scans were, predict, and go back to the scan's own grid."""

import math
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from transmodal.core.config import Config
from transmodal.core.errors import ConfigError, DataError, OutOfMemory
from transmodal.core.volume import Direction, Modality, Volume, source_of, target_of
from transmodal.data.sampling import View
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
    """

    patch: tuple[int, int] | tuple[int, int, int] | None = None
    overlap: float = Field(default=0.5, ge=0, lt=1)


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
    image = predict_array(network, source.forward(prepared.volume.array), setting, source)
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
    network: nn.Module, image: Float[np.ndarray, "x y z"], setting: Setting, source: IntensityMap
) -> Float[np.ndarray, "x y z"]:
    """Network output for a whole volume in network units; slices of several axes are averaged.

    Memory is bounded by the volume and the activations of a few slices or patches, whatever the number of them. Where the device has
    not even that much, fewer go through it at once, and at last the CPU takes over; a warning says so.

    Raises
    ------
    OutOfMemory
        If the CPU cannot hold it either.
    """
    network = optimize_layout(network.eval())
    device = next(network.parameters()).device
    background = float(source.forward(np.array([BACKGROUND[setting.source]]))[0])
    try:
        for place, at_once in _attempts(device):
            try:
                return _predict(network.to(place), image, setting, background, place, at_once)
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


def _predict(
    network: nn.Module, image: Float[np.ndarray, "x y z"], setting: Setting, background: float, device: torch.device, at_once: int
) -> Float[np.ndarray, "x y z"]:
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=use_bf16("auto", device)):
        if setting.view.dims == 3:
            inputs = torch.from_numpy(np.ascontiguousarray(image))[None, None].to(device)
            return _apply(network, inputs, setting.prediction, background, at_once)[0, 0].float().cpu().numpy()
        total = np.zeros(image.shape, dtype=np.float32)
        for axis in setting.view.axes:
            slices, out = np.moveaxis(image, axis, 0), np.moveaxis(total, axis, 0)
            for first, slab in _slabs(slices, setting.view.context, background, at_once):
                result = _apply(network, torch.from_numpy(slab).to(device), setting.prediction, background, at_once)
                out[first : first + len(slab)] += result[:, 0].float().cpu().numpy()
        return total / len(setting.view.axes)


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
