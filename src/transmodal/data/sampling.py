"""From a dataset to batches. Every sample is a pure function of (seed, step, index): the same on any machine and in any order."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from pydantic import Field, model_validator
from scipy.ndimage import affine_transform
from torch import Tensor

from transmodal.core.config import Config
from transmodal.core.errors import ConfigError
from transmodal.core.volume import Direction, source_of, target_of
from transmodal.data.augment import Augmentation, draw_appearance, draw_matrix, draw_shift
from transmodal.data.extra_images import ExtraImages
from transmodal.data.manifest import Subject
from transmodal.data.squares import smallest_square
from transmodal.data.store import Dataset
from transmodal.imaging.intensity import Intensity
from transmodal.imaging.preparation import BACKGROUND

# Times that a sample is drawn; of a head with any contrast, some tenths of its slices at most have none.
_ATTEMPTS = 20


class View(Config):
    """What a network sees of a volume.

    Parameters
    ----------
    size : tuple of int
        Two numbers for patches of slices, three for 3D patches, in voxels. A slice that is smaller is padded with background.
    axes : tuple of int
        The axes that slices lie across: 0 sagittal, 1 coronal, 2 axial; each sample draws one. Without meaning in 3D.
    context : int
        Neighbouring slices on either side that are given as further input channels (2.5D).
    first_size : tuple of int, optional
        Another size for the patches of the first steps of a training: smaller ones, which teach faster what needs no wide view.
    first_steps : int
        How many steps those are.
    fit : {"none", "square"}
        ``square`` shows every slice whole: cut to the smallest square with the mask in its middle and resized to `size`, rather than
        patches of it.
    """

    size: tuple[int, int] | tuple[int, int, int]
    axes: tuple[Literal[0, 1, 2], ...] = Field(default=(2,), min_length=1)
    context: int = Field(default=0, ge=0)
    first_size: tuple[int, int] | tuple[int, int, int] | None = None
    first_steps: int = Field(default=0, ge=0)
    fit: Literal["none", "square"] = "none"

    @model_validator(mode="after")
    def _sensible(self) -> "View":
        if min(*self.size, *(self.first_size or ())) < 1:
            raise ValueError("every size must be at least 1")
        if self.dims == 3 and self.context:
            raise ValueError("context is for slices; a 3D patch holds its neighbours already")
        if self.fit == "square" and (self.dims == 3 or self.size[0] != self.size[1]):
            raise ValueError("fit = 'square' is for slices, and needs a size of two equal numbers")
        if self.first_steps and (self.first_size is None or len(self.first_size) != self.dims):
            raise ValueError(f"first_steps needs a first_size, of {self.dims} numbers as size")
        return self

    @property
    def dims(self) -> int:
        """2 for slices, 3 for volumes."""
        return len(self.size)

    @property
    def channels(self) -> int:
        """Input channels of one image."""
        return 1 + 2 * self.context

    def size_at(self, step: int) -> tuple[int, int] | tuple[int, int, int]:
        """The size of the patches of a training step."""
        return self.first_size if self.first_size and step < self.first_steps else self.size


class Sampling(Config):
    """Which images are drawn together.

    Parameters
    ----------
    pairing : {"paired", "unpaired", "mixed"}
        ``paired``: source and target of one subject at one place. ``unpaired``: of two different persons, each at its own place.
        ``mixed``: `unpaired_steps` steps of the one kind, then `paired_steps` of the other, in turn; where the subjects allow one
        kind only, that one.
    disjoint : bool
        Unpaired draws take their sources from one half of the subjects and their targets from the other.
    paired_fraction : float
        Share of the subjects with both images that are drawn as pairs. Of the others one half gives its sources alone and the other
        its targets, as if nothing else had been scanned.
    unpaired_steps, paired_steps : int
        The rhythm of ``mixed``.
    """

    pairing: Literal["paired", "unpaired", "mixed"] = "paired"
    disjoint: bool = False
    paired_fraction: float = Field(default=1.0, ge=0, le=1)
    unpaired_steps: int = Field(default=1, ge=1)
    paired_steps: int = Field(default=1, ge=1)

    def is_paired(self, step: int) -> bool:
        """Whether the batch of this step holds pairs, where the subjects allow both kinds."""
        if self.pairing == "mixed":
            return step % (self.unpaired_steps + self.paired_steps) >= self.unpaired_steps
        return self.pairing == "paired"


@dataclass(frozen=True)
class Frame:
    """A patch in a volume: index o of the patch lies at voxel ``center + matrix @ (o - (size - 1) / 2)``."""

    size: tuple[int, int, int]
    center: Float[np.ndarray, "3"]
    matrix: Float[np.ndarray, "3 3"]


@dataclass(frozen=True)
class Target:
    """What a network is to learn of a subject, where that is not the other modality in network units.

    Parameters
    ----------
    image : str
        The image of the subject that it is made of: ``mr``, ``ct`` or ``labels``.
    values : callable
        From the name of a subject and voxels of that image to what is to be learned there, as float32.
    alone : bool
        Whether nothing else is read, because the method makes the source of it too. The target then stands for the source, of a 2.5D
        view with all of its slices, and what is not 0 in it for the head.
    """

    image: str
    values: Callable[[str, Shaped[np.ndarray, " c *s"]], Float[np.ndarray, " c *s"]]
    alone: bool = False


@dataclass(frozen=True)
class Sample:
    """One patch of the source and one of the target, in network units, channels first, with their head masks."""

    source: Float[np.ndarray, " c *s"]
    target: Float[np.ndarray, " 1 *s"]
    source_mask: Bool[np.ndarray, " 1 *s"]
    target_mask: Bool[np.ndarray, " 1 *s"]


@dataclass(frozen=True)
class Batch:
    """Samples of one training step.

    Parameters
    ----------
    source : Tensor, shape (b, c, *s)
        In network units; `c` is 1, or the slices of a 2.5D view, and one more for each extra image.
    target : Tensor, shape (b, 1, *s)
        In network units; or 0 and 1, where the target is a mask, or numbers of classes.
    source_mask, target_mask : Tensor of bool, shape (b, 1, *s)
    paired : bool
        Whether source and target show the same place of the same subject.
    """

    source: Float[Tensor, "b c *s"]
    target: Float[Tensor, "b 1 *s"]
    source_mask: Bool[Tensor, "b 1 *s"]
    target_mask: Bool[Tensor, "b 1 *s"]
    paired: bool

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        moved = (t.to(device, non_blocking=True) for t in (self.source, self.target, self.source_mask, self.target_mask))
        return Batch(*moved, paired=self.paired)


class Sampler:
    """Draws samples of some subjects of a dataset.

    Parameters
    ----------
    dataset : Dataset
    subjects : sequence of str
        Names of the subjects to draw from.
    direction : {"mr2ct", "ct2mr"}
    view : View
    sampling : Sampling
    augmentation : Augmentation
    intensity : dict
        The intensity setting of ``mr`` and of ``ct``.
    seed : int
    target : Target, optional
        What is to be learned; by default the other modality in network units.
    extra_images : ExtraImages, optional
        What is given beside the source; by default nothing.

    Raises
    ------
    ConfigError
        If the subjects do not allow what `sampling` asks for: no pairs of source and target, or no two subjects to draw an unpaired
        sample from.
    """

    def __init__(
        self,
        dataset: Dataset,
        subjects: Sequence[str],
        direction: Direction,
        view: View,
        sampling: Sampling,
        augmentation: Augmentation,
        intensity: dict[str, Intensity],
        seed: int,
        target: Target | None = None,
        extra_images: ExtraImages | None = None,
    ) -> None:
        self.dataset, self.view, self.sampling, self.augmentation = dataset, view, sampling, augmentation
        self.intensity, self.seed, self.learned, self.extra_images = intensity, seed, target, extra_images
        self.source, self.target = source_of(direction), target.image if target else target_of(direction)
        self.subjects = {name: dataset.manifest.subject(name) for name in subjects}
        self.pairs, self.sources, self.targets = self._pools()
        self._require_enough()

    def is_paired(self, step: int) -> bool:
        """Whether the batch of this step holds pairs."""
        if self.sampling.pairing == "mixed" and not (self.pairs and self.sources):
            return bool(self.pairs)
        return self.sampling.is_paired(step)

    def batch(self, step: int, size: int, first: int = 0) -> Batch:
        """The samples `first` to ``first + size - 1`` of a step, stacked."""
        return collate([self.sample(step, first + k) for k in range(size)], self.is_paired(step))

    def sample(self, step: int, index: int) -> Sample:
        """Sample `index` of training step `step`, with some contrast in its images.

        Slices at the ends of a head may lie beyond a narrow window. There is nothing to learn from them, and where networks normalise each
        image by itself, their gradient has no bound. They are drawn again.
        """
        paired, found = self.is_paired(step), None
        for attempt in range(_ATTEMPTS):
            rng = np.random.default_rng((self.seed, step, index, *([attempt] if attempt else ())))
            found = self._draw(rng, paired, self.view.size_at(step))
            if self._has_contrast(found):
                break
        assert found is not None
        return found

    def _draw(self, rng: np.random.Generator, paired: bool, size: tuple[int, ...]) -> Sample:
        if paired:
            subject = self.subjects[self.pairs[rng.integers(len(self.pairs))]]
            frame = self._draw_frame(subject, self.source, size, self._draw_axis(rng), rng)
            return self._load(subject, frame, subject, frame, rng)
        name = self.sources[rng.integers(len(self.sources))]
        others = self._strangers(name, self.targets)
        source, target = self.subjects[name], self.subjects[others[rng.integers(len(others))]]
        axis = self._draw_axis(rng)
        frames = (self._draw_frame(source, self.source, size, axis, rng), self._draw_frame(target, self.target, size, axis, rng))
        return self._load(source, frames[0], target, frames[1], rng)

    def _has_contrast(self, found: Sample) -> bool:
        """Whether neither image is the same everywhere; a target that is no image, such as a mask of bone, may be."""
        return bool(np.ptp(found.source[: self.view.channels]) > 0 and (self.learned is not None or np.ptp(found.target) > 0))

    def _pools(self) -> tuple[list[str], list[str], list[str]]:
        """Who is drawn as a pair, whose sources are drawn by themselves, and whose targets."""
        pairs = [name for name, subject in self.subjects.items() if {self.source, self.target} <= subject.images.keys()]
        sources = [name for name, subject in self.subjects.items() if self.source in subject.images]
        targets = [name for name, subject in self.subjects.items() if self.target in subject.images]
        order = [str(name) for name in np.random.default_rng((self.seed, len(pairs))).permutation(sorted(pairs))]
        whole = set(order[: round(self.sampling.paired_fraction * len(order))])
        divided = [name for name in order if self.sampling.disjoint or name not in whole]
        gives_source = set(divided[: (len(divided) + 1) // 2])
        gives_target = set(divided) - gives_source
        targets = [name for name in targets if name not in gives_source]
        sources = [name for name in sources if name not in gives_target and self._strangers(name, targets)]
        return [name for name in pairs if name in whole], sources, targets

    def _strangers(self, name: str, others: Sequence[str]) -> list[str]:
        """Those of `others` that are not of the same person."""
        return [other for other in others if self.subjects[other].person != self.subjects[name].person]

    def _require_enough(self) -> None:
        if self.sampling.pairing == "paired" and not self.pairs:
            raise ConfigError(
                f"none of the {len(self.subjects)} subjects has both {self.source} and {self.target}; choose a recipe for unpaired scans"
            )
        if not self.sources and (self.sampling.pairing == "unpaired" or not self.pairs):
            raise ConfigError(
                f"unpaired samples need {self.source} and {self.target} of different persons; of {len(self.subjects)} subjects, "
                f"{len(self.targets)} may give {self.target}, and nobody else has {self.source}"
            )

    def _draw_axis(self, rng: np.random.Generator) -> int | None:
        return None if self.view.dims == 3 else self.view.axes[rng.integers(len(self.view.axes))]

    def _draw_frame(self, subject: Subject, name: str, wanted: tuple[int, ...], axis: int | None, rng: np.random.Generator) -> Frame:
        image = subject.images[name]
        order, size = _layout(wanted, self.view.channels, axis)
        spans = image.box or tuple((0, n) for n in image.shape)
        start = np.empty(3)
        for out_axis, volume_axis in enumerate(order):
            start[volume_axis] = _draw_start(size[out_axis], image.shape[volume_axis], spans[volume_axis], rng)
        lengths = np.array(size)[np.argsort(order)]
        # Columns are put in the order of the patch's axes: the last one of a slice is the axis that it lies across.
        matrix = draw_matrix(self.augmentation, axis, rng)[:, order]
        frame = Frame(size, start + (lengths - 1) / 2 + draw_shift(self.augmentation, axis, rng), matrix)
        return self._fit(frame, subject, name, order, rng) if self.view.fit == "square" else frame

    def _fit(self, frame: Frame, subject: Subject, name: str, order: list[int], rng: np.random.Generator) -> Frame:
        """The frame of the whole slice that a frame lies in, less what is cropped at random."""
        *in_plane, axis = order
        # The middle one of the slices, or the nearest if that lies beyond the image.
        shape = subject.images[name].shape
        index = int(np.clip(frame.center[axis], 0, shape[axis] - 1))
        start, stop = [0, 0, 0], [*shape]
        start[axis], stop[axis] = index, index + 1
        mask = self.dataset.read(subject.id, self._mask_of(name), (start[0], start[1], start[2]), (stop[0], stop[1], stop[2])) > 0
        square = smallest_square(np.squeeze(mask, axis))
        kept = 1 - self.augmentation.crop * rng.uniform()
        center = frame.center.copy()
        center[in_plane] = square.center + (1 - kept) * square.side * rng.uniform(-0.5, 0.5, size=2)
        zoom = kept * square.side / frame.size[0]
        return Frame(frame.size, center, frame.matrix * np.array([zoom, zoom, 1]))

    def _load(self, source: Subject, source_frame: Frame, target: Subject, target_frame: Frame, rng: np.random.Generator) -> Sample:
        if self.learned is not None and self.learned.alone:
            image = _channels(extract(self.dataset, target, self.target, target_frame, BACKGROUND[self.target]), self.view)
            image = self._in_network_units(target, self.target, image)
            middle = _middle(image, self.view)
            return Sample(image, middle, middle != 0, middle != 0)
        appearance = draw_appearance(self.augmentation, rng)
        images = []
        for subject, name, frame in ((source, self.source, source_frame), (target, self.target, target_frame)):
            image = _channels(extract(self.dataset, subject, name, frame, BACKGROUND[name]), self.view)
            image = self._in_network_units(subject, name, image)
            images.append(appearance.apply(image) if name == "mr" else image)
        masks = [
            extract(self.dataset, subject, self._mask_of(name), frame, 0.0) > 0
            for subject, name, frame in ((source, self.source, source_frame), (target, self.target, target_frame))
        ]
        images[0] = np.concatenate([images[0], *self._beside(source.id, source_frame)])
        return Sample(images[0], *(_middle(a, self.view) for a in (images[1], *(_channels(mask, self.view) for mask in masks))))

    def _beside(self, subject: str, frame: Frame) -> Iterator[Float[np.ndarray, " 1 *s"]]:
        """What accompanies the source: of a slab of slices, the middle one."""
        if self.extra_images is None:
            return
        images = self.extra_images.dataset
        for name, background in self.extra_images.backgrounds.items():
            patch = extract(images, images.manifest.subject(subject), name, frame, background)
            yield _middle(_channels(patch, self.view), self.view)

    def _mask_of(self, name: str) -> str:
        """The head mask of an image; a label map has that of the source, on whose grid it lies."""
        return f"{self.source if name == 'labels' else name}_mask"

    def _in_network_units(self, subject: Subject, name: str, image: Shaped[np.ndarray, " c *s"]) -> Float[np.ndarray, " c *s"]:
        if self.learned is not None and name == self.learned.image:
            return self.learned.values(subject.id, image)
        statistics = subject.images[name].statistics
        assert statistics is not None
        return self.intensity[name].fit(statistics).forward(image)


def extract(dataset: Dataset, subject: Subject, name: str, frame: Frame, fill: float) -> Shaped[np.ndarray, "x y z"]:
    """The voxels of one image at a frame: read exactly where the frame lies on voxels, interpolated linearly elsewhere.

    Only the box that the frame covers is read. Labels and masks are never interpolated. What lies outside the image is `fill`.
    """
    shape = np.array(subject.images[name].shape)
    half = (np.array(frame.size) - 1) / 2
    reach = np.abs(frame.matrix) @ half
    # One voxel more on every side: rounding may put a point that lies on the last voxel a hair beyond it.
    first = np.clip(np.floor(frame.center - reach).astype(int) - 1, 0, shape - 1)
    last = np.clip(np.ceil(frame.center + reach).astype(int) + 2, first + 1, shape)
    box = dataset.read(subject.id, name, tuple(first.tolist()), tuple(last.tolist()))
    offset: Any = frame.center - frame.matrix @ half - first
    on_voxels = np.isin(frame.matrix, (-1.0, 0.0, 1.0)).all() and (offset == np.round(offset)).all()
    order = 0 if on_voxels or box.dtype.kind in "bu" else 1
    image = box.astype(np.float32) if order else box
    return affine_transform(image, frame.matrix, offset=offset, output_shape=frame.size, order=order, mode="grid-constant", cval=fill)


def collate(samples: Sequence[Sample], paired: bool) -> Batch:
    """Stack samples into a batch."""
    fields = ("source", "target", "source_mask", "target_mask")
    return Batch(*(torch.from_numpy(np.stack([getattr(sample, field) for sample in samples])) for field in fields), paired=paired)


def _layout(size: tuple[int, ...], channels: int, axis: int | None) -> tuple[list[int], tuple[int, int, int]]:
    """The volume axis of each patch axis, and the patch's size with the slices of a slab last."""
    if axis is None:
        x, y, z = (*size, 1)[:3]
        return [0, 1, 2], (x, y, z)
    return [k for k in range(3) if k != axis] + [axis], (size[0], size[1], channels)


def _draw_start(size: int, length: int, span: tuple[int, int], rng: np.random.Generator) -> int:
    """First voxel of a patch along one axis: inside the image, and within the span of the head where it fits."""
    if size >= length:
        return -((size - length) // 2)
    low, high = min(span[0], length - size), max(span[1] - size, 0)
    if low > high:
        low = high = (low + high) // 2
    return int(rng.integers(low, high + 1))


def _channels(patch: Shaped[np.ndarray, " x y z"], view: View) -> Shaped[np.ndarray, " c *s"]:
    return np.ascontiguousarray(np.moveaxis(patch, -1, 0) if view.dims == 2 else patch[None])


def _middle(channels: Shaped[np.ndarray, " c *s"], view: View) -> Shaped[np.ndarray, " 1 *s"]:
    return channels[view.context : view.context + 1]
