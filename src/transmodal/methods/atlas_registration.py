"""One atlas registered to one scan, by the surfaces of their brains or by their intensities, and what is kept of it."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field

from transmodal import __version__
from transmodal.core.config import Config
from transmodal.core.errors import CheckpointError, FileError
from transmodal.core.volume import Grid, Volume, whole_hu
from transmodal.engine.checkpoint import load_tree, save_tree
from transmodal.imaging.grid import isotropic_grid, resample
from transmodal.imaging.point_matching import PointMatching, match_points
from transmodal.imaging.preparation import BACKGROUND
from transmodal.imaging.registration import Transform, register, register_free_form, warp
from transmodal.imaging.surface import extract_surface
from transmodal.methods.fusion import Candidate

# Two scans are the same where they correlate so well on voxels of this size.
_COMPARED_MM, _SAME, _FEWEST_COMPARED = 3.0, 0.98, 100


class AtlasRegistration(Config):
    """How an atlas is brought onto a scan; the table ``[method.registration]`` of an atlas recipe.

    Parameters
    ----------
    by : {"surface", "intensity"}
        ``surface`` matches the surfaces of the two brains (multi-atlas/U-Net/cGAN paper, section 2.1), which what is cropped of a head
        does not concern; ``intensity`` compares whole MRs by mutual information.
    free_form_mm : float, optional
        Distance of the control points of a B-spline deformation of the MRs afterwards, 30 in the paper; by default the registration
        is affine.
    matching : PointMatching
    """

    by: Literal["surface", "intensity"] = "surface"
    free_form_mm: float | None = Field(default=None, ge=5)
    matching: PointMatching = PointMatching()


@dataclass(frozen=True, eq=False)
class AtlasHead:
    """An atlas: images of one head on one grid.

    Parameters
    ----------
    id : str
    mr, ct, bone, seen : Volume
        The bone is a mask, and so is where the CT has been.
    brain : Volume, optional
        A mask.
    """

    id: str
    mr: Volume
    ct: Volume
    bone: Volume
    seen: Volume
    brain: Volume | None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what a registration depends on."""
        return _digest(self.mr, self.brain)

    @cached_property
    def surface(self) -> Float[np.ndarray, "n 3"]:
        """Points on the surface of the brain, in RAS+ mm."""
        assert self.brain is not None, "surfaces need a brain"
        return extract_surface(self.brain).points

    def is_of(self, scan: Volume) -> bool:
        """Whether a scan is this very MR, however it was prepared: in the same place, and alike to the last per cent."""
        coarse = isotropic_grid(scan.grid, _COMPARED_MM)
        one, other = (np.asarray(resample(volume, coarse).array, dtype=np.float64) for volume in (self.mr, scan))
        both = (one > 0) & (other > 0)
        if np.count_nonzero(both) < _FEWEST_COMPARED or not (np.ptp(one[both]) and np.ptp(other[both])):
            return False
        return float(np.corrcoef(one[both], other[both])[0, 1]) > _SAME

    def place(self, transform: Transform, grid: Grid) -> Candidate:
        """The atlas where its registration puts it, on the grid of the scan."""
        return Candidate(
            mr=warp(self.mr, transform, grid).array,
            ct=whole_hu(warp(self.ct, transform, grid, fill=BACKGROUND["ct"]).array),
            bone=warp(self.bone, transform, grid).array,
            covered=warp(self.seen, transform, grid).array,
        )


@dataclass(frozen=True, eq=False)
class Registrar:
    """Registers atlases to a scan; a registration that it has done before it reads instead.

    Parameters
    ----------
    scan : Volume
        An MR.
    brain : Volume or None
        The mask of its brain, on any grid; needed for surfaces.
    settings : AtlasRegistration
    cache : Path or None
        The folder in which registrations are kept, by the hash of all that they depend on.
    """

    scan: Volume
    brain: Volume | None
    settings: AtlasRegistration
    cache: Path | None = None

    def __call__(self, head: AtlasHead) -> Transform:
        """Points of the scan to those of the atlas.

        Raises
        ------
        DataError
            If the two cannot be registered.
        """
        if self.cache is None:
            return self._register(head)
        programs = f"{__version__} {version('itk-elastix')}"
        key = hashlib.sha256(f"{programs} {self._digest} {head.digest} {self.settings.model_dump_json()}".encode()).hexdigest()
        path = self.cache / f"{key}.safetensors"
        try:
            return _read(path)
        except CheckpointError:  # not there yet, or damaged
            found = self._register(head)
        with suppress(FileError):  # a model may lie where nobody may write: the registration is done anew each time
            _write(found, path)
        return found

    @cached_property
    def _digest(self) -> str:
        return _digest(self.scan, self.brain)

    @cached_property
    def _surface(self) -> Float[np.ndarray, "n 3"]:
        assert self.brain is not None, "surfaces need a brain"
        return extract_surface(self.brain).points

    def _register(self, head: AtlasHead) -> Transform:
        if self.settings.by == "surface":
            affine = match_points(self._surface, head.surface, self.settings.matching)
        else:
            affine = register(self.scan, head.mr, "affine")
        if self.settings.free_form_mm is None:
            return affine
        return register_free_form(self.scan, head.mr, affine, spacing_mm=self.settings.free_form_mm)


def overlap(head: AtlasHead, transform: Transform, brain: Volume) -> float:
    """Dice of the brain of a scan and that of a registered atlas, within the field of view that both have."""
    assert head.brain is not None, "there is something to compare"
    moved = np.asarray(warp(head.brain, transform, brain.grid).array)
    everywhere = head.brain.with_array(np.ones(head.brain.shape, dtype=bool))
    covered = np.asarray(warp(everywhere, transform, brain.grid).array)
    own = (np.asarray(brain.array) > 0) & covered
    voxels = int(own.sum() + moved.sum())
    return 2 * int((own & moved).sum()) / voxels if voxels else 0.0


def vote(heads: Sequence[AtlasHead], transforms: Sequence[Transform], grid: Grid) -> Volume:
    """Where at least half of the registered atlases have brain."""
    votes = np.zeros(grid.shape, dtype=np.int32)
    for head, transform in zip(heads, transforms, strict=True):
        assert head.brain is not None, "every voter has one"
        votes += warp(head.brain, transform, grid).array
    return Volume(2 * votes >= len(heads), grid.affine, "mask")


def _digest(image: Volume, mask: Volume | None) -> str:
    digest = hashlib.sha256()
    for volume in (image, mask):
        if volume is not None:
            digest.update(f"{volume.modality} {volume.array.dtype} {volume.shape}".encode())
            digest.update(volume.affine.tobytes())
            digest.update(np.ascontiguousarray(volume.array).tobytes())
    return digest.hexdigest()


def _write(transform: Transform, path: Path) -> None:
    tree = {"affine": torch.from_numpy(transform.affine.copy())}
    if transform.control_grid is not None and transform.displacements is not None:
        tree |= {
            "control_affine": torch.from_numpy(transform.control_grid.affine.copy()),
            "displacements": torch.from_numpy(transform.displacements.copy()),
        }
    save_tree(path, tree)


def _read(path: Path) -> Transform:
    tree = load_tree(path)
    if "displacements" not in tree:
        return Transform(tree["affine"].numpy())
    displacements = tree["displacements"].numpy()
    x, y, z, _ = displacements.shape
    return Transform(tree["affine"].numpy(), Grid((x, y, z), tree["control_affine"].numpy()), displacements)
