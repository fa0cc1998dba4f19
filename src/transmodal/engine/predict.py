"""From a trained network to a volume: prepare the scan as the training scans were, predict, and go back to the scan's own grid."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import nn

from transmodal.core.config import Config
from transmodal.core.errors import ConfigError, DataError, OutOfMemory
from transmodal.core.volume import Direction, Modality, Volume, reverse, source_of, target_of, whole_hu
from transmodal.data.sampling import View
from transmodal.data.squares import cut, paste, smallest_square
from transmodal.engine.hardware import Precision, optimize_layout, use_bf16
from transmodal.engine.moments import Moments
from transmodal.engine.patches import apply_network
from transmodal.imaging.grid import resample
from transmodal.imaging.intensity import Intensity, IntensityMap, IntensityStatistics
from transmodal.imaging.preparation import BACKGROUND, Preparation, PreparedScan, prepare_scan

# Slices that go through a network at once. Eight 256x256 slices need well under a gigabyte in a U-Net of 64 channels.
SLICES_AT_ONCE = 8
# What a network for volumes sees of the air around a head, in voxels, unless one patch can hold the head with less of it; what lies
# farther out is not computed, for it is blanked.
BOX_MARGIN = 16


class Prediction(Config):
    """How a volume is put together: the ``[predict]`` table of a recipe.

    Parameters
    ----------
    patch : tuple of int, optional
        Size of overlapping patches, blended by Hann windows, which favour their centres; two numbers for slices, three for
        volumes. None takes whole slices (or the whole volume) at once.
    window : tuple of int, optional
        Size of what instance normalisation takes its mean and SD over in patches of volumes that are larger. A network is another one
        where it sees more of a head than it has learned from; in windows of the size that it has learned from it stays much the same,
        in larger patches, of which fewer cover a head. Patches are then cut to the head, and `patch` is their largest size. None is the
        whole patch.
    overlap : float
        Share of a patch that its neighbour covers again.
    axes : tuple of int, optional
        The axes across which slices are predicted and averaged, of those of the view; by default all of them.
    flip : tuple of int
        Axes of the volume (0 right, 1 front, 2 top) along which it is also mirrored: the predictions of the scan and of its mirror
        images, along each set of these axes, are mirrored back and averaged (test-time augmentation).
    precision : {"auto", "fp32", "bf16"}
        ``auto`` computes in bfloat16 where the hardware is faster in it.
    """

    patch: tuple[int, int] | tuple[int, int, int] | None = None
    window: tuple[int, int, int] | None = None
    overlap: float = Field(default=0.5, ge=0, lt=1)
    axes: tuple[Literal[0, 1, 2], ...] | None = Field(default=None, min_length=1)
    flip: tuple[Literal[0, 1, 2], ...] = ()
    precision: Precision = "auto"

    @property
    def mirrors(self) -> list[tuple[int, ...]]:
        """The sets of axes that the volume is mirrored along in turn; the first is empty."""
        axes = sorted(set(self.flip))
        return [chosen for count in range(len(axes) + 1) for chosen in combinations(axes, count)]


@dataclass(frozen=True)
class Beside:
    """What a network is given beside the source, in network units.

    Parameters
    ----------
    images : ndarray, shape (k, x, y, z)
    backgrounds : tuple of k float
        What lies outside each image.
    """

    images: Float[np.ndarray, "k x y z"]
    backgrounds: tuple[float, ...]


class Setting(Config):
    """What prediction must know of training beside the weights; it is stored in the run.

    Parameters
    ----------
    direction : {"mr2ct", "ct2mr"}
    preparation : Preparation
        Of the training scans, and so of every scan to come.
    intensity : dict
        The intensity setting of ``mr`` and of ``ct``.
    statistics : dict
        Of a typical training image of ``mr`` and of ``ct``: where a scan-dependent intensity map goes back to.
    view : View
    prediction : Prediction
    """

    direction: Direction
    preparation: Preparation
    intensity: dict[str, Intensity]
    statistics: dict[str, IntensityStatistics]
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

    @property
    def target_map(self) -> IntensityMap:
        """From the target's unit to network units and back."""
        return self.intensity[self.target].fit(self.statistics[self.target])

    def towards(self, direction: Direction) -> "Setting":
        """The same, for the other direction if need be."""
        return self.model_copy(update={"direction": direction})

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes across which slices are predicted."""
        return self.prediction.axes or self.view.axes

    @property
    def opinions(self) -> int:
        """How many predictions of a voxel are averaged: one a plane and mirror image."""
        return len(self.prediction.mirrors) * (1 if self.view.dims == 3 else len(self.axes))


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
    mean = predict_prepared(network, prepared, setting).mean
    return place_result(setting.target_map.inverse(mean), prepared, scan, setting.target)


def synthesize_with_uncertainty(network: nn.Module, scan: Volume, setting: Setting) -> tuple[Volume, Volume]:
    """Apply a network to a scan, and tell how far the planes and mirror images that are averaged differ.

    Returns
    -------
    Volume
        As `synthesize` gives it.
    Volume
        The standard deviation over the planes and mirror images, in the unit of the result (before clipping): float32, on the same
        grid, 0 outside the head.
    """
    prepared = prepare_source(scan, setting)
    found, target = predict_prepared(network, prepared, setting), setting.target_map
    result = place_result(target.inverse(found.mean), prepared, scan, setting.target)
    return result, place_soft(target.inverse_sd(found.sd, found.mean), prepared, scan, "uncertainty")


def cycle(forward: nn.Module, backward: nn.Module, scan: Volume, setting: Setting) -> Volume:
    """Make the other modality of a scan with one network, and the scan again of that with another.

    Returns
    -------
    Volume
        Of the scan's modality, on its grid and in its own units; background outside the head.
    """
    prepared = prepare_source(scan, setting)
    between, end = setting.target_map, setting.intensity[setting.source].fit(prepared.statistics)
    other = between.inverse(predict_prepared(forward, prepared, setting).mean)
    again = predict(backward, other, setting.towards(reverse(setting.direction)), between, prepared.mask.array).mean
    return place_result(end.inverse(again), prepared, scan, setting.source)


def predict_prepared(network: nn.Module, prepared: PreparedScan, setting: Setting, beside: Beside | None = None) -> Moments:
    """Network output over the working grid of a prepared scan, in network units."""
    return predict_channels(network, prepared, setting, 1, beside)[0]


def predict_channels(
    network: nn.Module, prepared: PreparedScan, setting: Setting, channels: int, beside: Beside | None = None
) -> list[Moments]:
    """The first so many channels of a network's output over the working grid of a prepared scan, each as `predict_prepared` gives it."""
    source = setting.intensity[setting.source].fit(prepared.statistics)
    return _predict(network, prepared.volume.array, setting, source, prepared.mask.array, beside, channels)


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
    return result.with_array(whole_hu(result.array)) if target == "ct" else result


def place_soft(values: Float[np.ndarray, "x y z"], prepared: PreparedScan, scan: Volume, modality: Modality) -> Volume:
    """Set standard deviations or probabilities to 0 outside the head, and take them to the scan's grid."""
    masked = np.where(prepared.mask.array, values, np.float32(0)).astype(np.float32)
    return resample(prepared.volume.with_array(masked, modality), scan.grid, fill=0.0)


def predict(
    network: nn.Module,
    image: Float[np.ndarray, "x y z"],
    setting: Setting,
    source: IntensityMap,
    mask: Bool[np.ndarray, "x y z"] | None = None,
    beside: Beside | None = None,
) -> Moments:
    """Network output, in network units, for a whole volume in the scan's units: mean and spread over the planes and mirror images.

    The mask is what a view is fitted to that shows whole slices, and what a view of volumes is cut around; without one that is the whole
    image. A view of whole slices has nothing beside.

    Memory is bounded by the volume and the activations of a few slices or patches, whatever the number of them. Where the device has
    not even that much, fewer go through it at once, and at last the CPU takes over; a warning says so.

    Raises
    ------
    ConfigError
        If a patch has not as many sizes as the view.
    OutOfMemory
        If the CPU cannot hold it either.
    """
    return _predict(network, image, setting, source, mask, beside, channels=1)[0]


def _predict(
    network: nn.Module,
    image: Float[np.ndarray, "x y z"],
    setting: Setting,
    source: IntensityMap,
    mask: Bool[np.ndarray, "x y z"] | None,
    beside: Beside | None,
    channels: int,
) -> list[Moments]:
    patch, dims = setting.prediction.patch, setting.view.dims
    if patch is not None and len(patch) != dims:
        raise ConfigError(f"predict.patch = {patch} has {len(patch)} sizes; the view has {dims}")
    network = optimize_layout(network.eval())
    device = next(network.parameters()).device
    mask = np.ones(image.shape, dtype=bool) if mask is None else mask
    beside = beside or Beside(np.empty((0, *image.shape), dtype=np.float32), ())
    assert setting.view.fit == "none" or not beside.backgrounds, "whole slices are cut and resized one by one"
    try:
        for place, at_once in _attempts(device, setting.view):
            try:
                task = _Task(network.to(place), setting, source, beside.backgrounds, channels, place, at_once)
                return _over_mirrors(task, image, mask, beside.images)
            except RuntimeError as error:
                if not _lacks_memory(error):
                    raise
                warnings.warn(f"{place} has too little memory for {at_once} slices or patches at once; trying with less", stacklevel=2)
    finally:
        network.to(device)
    raise OutOfMemory(f"predicting {'x'.join(map(str, image.shape))} voxels needs more memory than there is; set a smaller predict.patch")


def _attempts(device: torch.device, view: View) -> Iterator[tuple[torch.device, int]]:
    """Where to predict and how many slices at once: less and less on the device, then on the CPU. Of volumes a patch is enough."""
    for place in dict.fromkeys((device, torch.device("cpu"))):
        yield from ((place, at_once) for at_once in ((1,) if view.dims == 3 else (SLICES_AT_ONCE, SLICES_AT_ONCE // 4, 1)))


def _lacks_memory(error: RuntimeError) -> bool:
    """Whether torch could not allocate; on the CPU the error has no class of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


@dataclass(frozen=True)
class _Task:
    network: nn.Module
    setting: Setting
    source: IntensityMap
    beside: tuple[float, ...]
    channels: int
    device: torch.device
    at_once: int

    def apply(self, images: Float[np.ndarray, "b c *s"], beside: Float[np.ndarray, "b k *s"] | None = None) -> Float[np.ndarray, "d b *s"]:
        """The network's output for images in the scan's units, with what lies beside them in network units."""
        background = float(self.source.forward(np.full((1, 1), BACKGROUND[self.setting.source])).item())
        inputs = self.source.forward(images)
        backgrounds = [background] * inputs.shape[1]
        if beside is not None:
            inputs, backgrounds = np.concatenate([inputs, beside], axis=1), [*backgrounds, *self.beside]
        filled = torch.tensor(backgrounds, device=self.device)
        prediction, at_device = self.setting.prediction, torch.from_numpy(inputs).to(self.device)
        outputs = apply_network(self.network, at_device, filled, prediction.patch, prediction.overlap, self.at_once, prediction.window)
        return np.moveaxis(outputs[:, : self.channels].float().cpu().numpy(), 1, 0)


def _over_mirrors(
    task: _Task, image: Float[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"], beside: Float[np.ndarray, "k x y z"]
) -> list[Moments]:
    found, device = [Moments() for _ in range(task.channels)], task.device
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=use_bf16(task.setting.prediction.precision, device)):
        for mirror in task.setting.prediction.mirrors:
            mirrored, its_mask = (np.ascontiguousarray(np.flip(array, mirror)) for array in (image, mask))
            its_beside = np.ascontiguousarray(np.flip(beside, tuple(1 + axis for axis in mirror)))
            for values in _by_plane(task, mirrored, its_mask, its_beside):
                for moments, channel in zip(found, values, strict=True):
                    moments.add(np.flip(channel, mirror))
    return found


def _by_plane(
    task: _Task, image: Float[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"], beside: Float[np.ndarray, "k x y z"]
) -> Iterator[Float[np.ndarray, "d x y z"]]:
    """The channels of the prediction of a whole volume, once for each axis that slices lie across."""
    view = task.setting.view
    if view.dims == 3:
        background = task.setting.target_map.forward(np.full((1, 1, 1), BACKGROUND[task.setting.target]))
        values, box = np.full((task.channels, *image.shape), background.item(), dtype=np.float32), _box(mask, task.setting.prediction.patch)
        values[:, *box] = task.apply(image[box][None, None], beside[:, *box][None])[:, 0]
        yield values
        return
    for axis in task.setting.axes:
        values = np.empty((task.channels, *image.shape), dtype=np.float32)
        slices, masks = (np.moveaxis(array, axis, 0) for array in (image, mask))
        others, out = np.moveaxis(beside, 1 + axis, 0), np.moveaxis(values, 1 + axis, 1)
        for first, slab in _slabs(slices, view.context, BACKGROUND[task.setting.source], task.at_once):
            part = slice(first, first + len(slab))
            out[:, part] = _apply_fitted(task, slab, masks[part]) if view.fit == "square" else task.apply(slab, others[part])
        yield values


def _box(mask: Bool[np.ndarray, "x y z"], patch: tuple[int, ...] | None) -> tuple[slice, slice, slice]:
    """The smallest part of the volume with the mask and a margin around it; all of it where the mask is empty."""
    spans = [np.flatnonzero(mask.any(axis=tuple(k for k in range(3) if k != axis))) for axis in range(3)]
    if not spans[0].size:
        return slice(None), slice(None), slice(None)
    x, y, z = map(_with_margin, spans, patch or (0, 0, 0))
    return x, y, z


def _with_margin(span: Int[np.ndarray, " n"], patch: int) -> slice:
    first, end = int(span[0]), int(span[-1]) + 1
    room = patch - (end - first)
    margin = min(room // 2, BOX_MARGIN) if room >= 0 else BOX_MARGIN
    return slice(max(first - margin, 0), end + margin)


def _apply_fitted(task: _Task, slab: Float[np.ndarray, "b c h w"], masks: Bool[np.ndarray, "b h w"]) -> Float[np.ndarray, "d b h w"]:
    """The output for slices that are cut to squares and resized for the network, and back."""
    size, fill = task.setting.view.size[0], BACKGROUND[task.setting.source]
    squares = [smallest_square(mask) for mask in masks]
    outputs = task.apply(np.stack([cut(slices, square, size, fill) for slices, square in zip(slab, squares, strict=True)]))
    return np.stack([[paste(output, square, masks[0].shape) for output, square in zip(every, squares, strict=True)] for every in outputs])


def _slabs(
    slices: Float[np.ndarray, "n h w"], context: int, background: float, at_once: int
) -> Iterator[tuple[int, Float[np.ndarray, "b c h w"]]]:
    """Slices a few at a time, each with its neighbours as channels."""
    padded = np.pad(slices, ((context, context), (0, 0), (0, 0)), constant_values=background)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 1 + 2 * context, axis=0)
    for first in range(0, len(slices), at_once):
        yield first, np.moveaxis(windows[first : first + at_once], -1, 1).copy()
