"""Multi-atlas synthesis: heads whose CT is known are registered to an MR, and their CTs are fused.

Section 2.1 of the multi-atlas/U-Net/cGAN paper: the surface of each atlas's brain is registered to that of the subject's by robust point
matching, affine, and the transformed CTs are averaged; in a further row of its tables a free-form deformation of 30 mm follows. By
surfaces, because what is cropped of a head misleads a registration by intensities. There is nothing to train: the atlases are the model.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from jaxtyping import Shaped
from pydantic import Field

from transmodal.contracts import FittedMethod
from transmodal.core.config import Config
from transmodal.core.errors import CheckpointError, ConfigError, DataError, TransmodalError
from transmodal.core.jobs import run_jobs
from transmodal.core.progress import track
from transmodal.core.volume import Volume
from transmodal.data.store import Dataset
from transmodal.engine.predict import Setting, place_result, place_soft, prepare_source
from transmodal.evaluation.bone import segment_bone
from transmodal.imaging.brain import require_brain, strip_by_deepbet
from transmodal.imaging.grid import resample
from transmodal.imaging.preparation import PreparedScan
from transmodal.imaging.registration import Transform
from transmodal.methods.atlas_registration import AtlasHead, AtlasRegistration, Registrar, overlap, vote
from transmodal.methods.fusion import Fused, Fusion, fuse

# Brains of different simulated heads, matched by their surfaces, overlap by 0.956 at least (30 pairs), and that of Colin 27 with five
# others by 0.929.
LEAST_OVERLAP = 0.75
# How the masks of atlases are brought onto a scan whose own is not known.
_BRAIN_BY = AtlasRegistration(by="intensity", free_form_mm=30)
CACHE_NAME = "registrations"
_IMAGES = ("mr", "ct", "bone", "seen", "brain")
# Head masks of an MR and of its CT differ by so much without anything being cut off.
_RIM_MM = 10.0

T = TypeVar("T")


class AtlasSettings(Config):
    """The ``[method]`` table of an atlas recipe.

    Parameters
    ----------
    registration : AtlasRegistration
    brain : {"atlas", "deepbet"}
        Who finds a brain, where surfaces need it and no mask of it is given: the masks of the atlases, each registered by intensities
        (with a free-form deformation), by vote; or deepbet, for T1-weighted MRs.
    fusion : {"mean", "median", "local_similarity"}
        See `transmodal.methods.fusion.fuse`.
    window_mm : float
        Standard deviation of the Gaussian window of ``local_similarity``.
    """

    name: Literal["atlas"] = "atlas"
    registration: AtlasRegistration = AtlasRegistration()
    brain: Literal["atlas", "deepbet"] = "atlas"
    fusion: Fusion = "mean"
    window_mm: float = Field(default=5.0, gt=0)


class Atlas(FittedMethod):
    """A set of atlases.

    Parameters
    ----------
    settings : AtlasSettings
    setting : Setting
        Direction, which must be ``mr2ct``, and preparation.
    """

    Settings = AtlasSettings

    def __init__(self, settings: AtlasSettings, setting: Setting) -> None:
        if setting.direction != "mr2ct":
            raise ConfigError(f"direction = {setting.direction}: atlases are registered to MRs, and their CTs are fused; set mr2ct")
        self.settings, self.setting = settings, setting
        self.directions = (setting.direction,)
        self.uses_brain = settings.registration.by == "surface"
        self.heads: tuple[AtlasHead, ...] = ()
        self._given: Volume | None = None

    def with_brain(self, mask: Volume) -> "Atlas":
        """The same atlases, told the mask of the brain in the scan to come."""
        told = copy(self)
        told._given = mask
        return told

    def fit(self, dataset: Dataset, subjects: Sequence[str]) -> None:
        """Take the pairs among the subjects as atlases; find the bone in their CTs, and the brain where a mask is missing.

        Raises
        ------
        DataError
            If there is no pair, a CT has no bone, or a brain cannot be found.
        """
        pairs = [name for name in subjects if dataset.manifest.subject(name).paired]
        if not pairs:
            raise DataError(f"none of the {len(subjects)} subjects has both an MR and a CT, which an atlas needs")
        heads = [_read_head(dataset, name) for name in pairs]
        if self.settings.registration.by == "surface":
            known = tuple(head for head in heads if head.brain is not None)
            heads = [_of(head.id, self._with_its_brain, head, known) for head in heads]
        self.heads, self.opinions = tuple(heads), len(heads)

    def state(self) -> dict[str, Shaped[np.ndarray, "..."]]:
        """The images of every atlas, named by its id and theirs, and its affine."""
        state: dict[str, np.ndarray] = {}
        for head in self.heads:
            state[f"{head.id}.affine"] = head.mr.affine
            state |= {f"{head.id}.{name}": image.array for name in _IMAGES if (image := getattr(head, name)) is not None}
        return {name: _as_stored(array) for name, array in state.items()}

    def load_state(self, state: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
        """Take back the atlases; `CheckpointError` if an image is missing."""
        ids = [name.removesuffix(".affine") for name in state if name.endswith(".affine")]
        try:
            self.heads = tuple(_restore_head(name, state) for name in ids)
        except KeyError as error:
            raise CheckpointError(f"the weights are not those of atlases: {error} is missing") from error
        if not self.heads:
            raise CheckpointError("the weights belong to another architecture: there is no atlas in them")
        self.opinions = len(self.heads)

    def synthesize(self, scan: Volume) -> Volume:
        """The fused CT, on the scan's own grid."""
        return self.synthesize_with_uncertainty(scan)[0]

    def synthesize_with_uncertainty(self, scan: Volume) -> tuple[Volume, Volume]:
        """The same, and the standard deviation over the atlases in HU."""
        prepared = prepare_source(scan, self.setting)
        fused = self.fuse(prepared)
        result = place_result(fused.ct, prepared, scan, "ct")
        return result, place_soft(fused.sd, prepared, scan, "uncertainty")

    def fuse(self, prepared: PreparedScan) -> Fused:
        """Register the atlases to a prepared scan and fuse what they have, on its working grid.

        An atlas that is the scan itself is left out.

        Raises
        ------
        DataError
            If no atlas is left, or one cannot be registered, or no brain is found whose surface it can be registered by.
        """
        heads = tuple(head for head in self.heads if not head.is_of(prepared.volume))
        if not heads:
            raise DataError("the scan is the only atlas there is; build a set with others (transmodal atlas build)")
        if len(heads) < len(self.heads):
            print("transmodal: the scan is itself an atlas, which is left out", file=sys.stderr)
        grid = prepared.volume.grid
        candidates = [head.place(transform, grid) for head, transform in self._register(prepared.volume, heads)]
        fused = fuse(candidates, self.settings.fusion, prepared.volume, self.settings.window_mm)
        _tell_of_gaps(fused, prepared)
        return fused

    def find_brain(self, scan: Volume, heads: Sequence[AtlasHead]) -> Volume:
        """The mask of the brain that was given, on the grid of the scan, or else the one that is found there, by these atlases or deepbet.

        Raises
        ------
        DataError
            If it cannot be the mask of a brain, by its volume or its symmetry.
        ConfigError
            If deepbet is not installed.
        """
        if self._given is not None:
            return require_brain(resample(self._given, scan.grid), "the mask of the brain")
        if self.settings.brain == "deepbet":
            return require_brain(strip_by_deepbet(scan), "what deepbet takes for the brain")
        known = [head for head in heads if head.brain is not None]
        transforms = self._run(Registrar(scan, None, _BRAIN_BY, self._cache), known)
        return require_brain(vote(known, transforms, scan.grid), "what the atlases take for the brain")

    def _register(self, scan: Volume, heads: Sequence[AtlasHead]) -> list[tuple[AtlasHead, Transform]]:
        """The atlases, and how they are registered; without those whose brain does not come to lie on that of the scan."""
        registration = self.settings.registration
        if registration.by == "intensity":
            return list(zip(heads, self._run(Registrar(scan, None, registration, self._cache), heads), strict=True))
        brain = self.find_brain(scan, heads)
        transforms = self._run(Registrar(scan, brain, registration, self._cache), heads)
        alike = [overlap(head, transform, brain) for head, transform in zip(heads, transforms, strict=True)]
        if max(alike) < LEAST_OVERLAP:
            raise DataError(
                f"the brain of the scan fits none of the atlases': once matched, they overlap by {max(alike):.2f} (Dice) at best, where "
                f"brains do by {LEAST_OVERLAP:g} at least; look at its mask, put a better one beside the scan (brain.nii.gz), or register "
                'atlases by what needs none (method.registration.by = "intensity")'
            )
        for head, value in zip(heads, alike, strict=True):
            if value < LEAST_OVERLAP:
                print(f"transmodal: the atlas {head.id} is left out: its brain overlaps by {value:.2f} (Dice) only", file=sys.stderr)
        return [(head, t) for head, t, value in zip(heads, transforms, alike, strict=True) if value >= LEAST_OVERLAP]

    @property
    def _cache(self) -> Path | None:
        return None if self.folder is None else (self.folder / CACHE_NAME).resolve()  # workers may be elsewhere

    def _run(self, registrar: Registrar, heads: Sequence[AtlasHead]) -> list[Transform]:
        """All registrations, in the order of the heads, by as many processes as there are workers."""
        found: dict[str, Transform] = {}
        for head, outcome in track(run_jobs(registrar, heads, self.workers), "registering atlases", total=len(heads)):
            if isinstance(outcome, TransmodalError):
                raise type(outcome)(f"atlas {head.id}: {outcome}") from outcome
            found[head.id] = outcome
        return [found[head.id] for head in heads]

    def _with_its_brain(self, head: AtlasHead, known: Sequence[AtlasHead]) -> AtlasHead:
        if head.brain is not None:
            brain = require_brain(head.brain, "the mask of the brain")
        elif known or self.settings.brain == "deepbet":
            brain = self.find_brain(head.mr, known)
        else:
            raise DataError(
                "no subject has a mask of the brain, by whose surface atlases are registered: put brain.nii.gz beside at least one MR and "
                'prepare again; or set method.brain = "deepbet" (T1-weighted MRs), or method.registration.by = "intensity"'
            )
        return replace(head, brain=brain)


def _read_head(dataset: Dataset, name: str) -> AtlasHead:
    subject = dataset.manifest.subject(name)
    grid = subject.images["mr"].grid
    mr = Volume(dataset.read_all(name, "mr").astype(np.float32), grid.affine, "mr")
    ct = mr.with_array(dataset.read_all(name, "ct").astype(np.int16), "ct")
    inside = mr.with_array(dataset.read_all(name, "ct_mask") > 0, "mask")
    brain = mr.with_array(dataset.read_all(name, "brain") > 0, "mask") if "brain" in subject.images else None
    head = mr.with_array(dataset.read_all(name, "mr_mask") > 0, "mask")
    return AtlasHead(name, mr, ct, _of(name, segment_bone, ct, inside), _seen(head, inside), brain)


def _seen(mr_mask: Volume, ct_mask: Volume) -> Volume:
    """Where the CT has been: all but what the MR shows of a head and the CT does not, other than the rim."""
    from scipy.ndimage import distance_transform_edt

    beyond = np.asarray(distance_transform_edt(~np.asarray(ct_mask.array), sampling=ct_mask.spacing)) > _RIM_MM
    return mr_mask.with_array(~(np.asarray(mr_mask.array) & beyond))


def _of(name: str, function: Callable[..., T], *arguments: object) -> T:
    """Call a function, and let its errors name the subject."""
    try:
        return function(*arguments)
    except TransmodalError as error:
        raise type(error)(f"{name}: {error}") from error


def _restore_head(name: str, state: Mapping[str, np.ndarray]) -> AtlasHead:
    mr = Volume(state[f"{name}.mr"], state[f"{name}.affine"], "mr")
    ct = mr.with_array(state[f"{name}.ct"], "ct")
    bone, seen = (mr.with_array(state[f"{name}.{mask}"] > 0, "mask") for mask in ("bone", "seen"))
    brain = state.get(f"{name}.brain")
    return AtlasHead(name, mr, ct, bone, seen, None if brain is None else mr.with_array(brain > 0, "mask"))


def _as_stored(array: np.ndarray) -> np.ndarray:
    """Arrays of their own that torch takes: masks as bytes."""
    return np.array(array, dtype=np.uint8 if array.dtype == bool else array.dtype)


def _tell_of_gaps(fused: Fused, prepared: PreparedScan) -> None:
    inside = prepared.mask.array > 0
    missing = float((inside & ~fused.covered).sum() / inside.sum())
    if missing > 0.01:
        print(f"transmodal: {missing:.0%} of the head lies beyond every atlas; it is given the HU of soft tissue there", file=sys.stderr)
