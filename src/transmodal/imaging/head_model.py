"""A head in layers, for models of current: scalp, bone, the cavity of the brain, and air, each closed, out of a CT alone.

A CT tells air, soft tissue and bone. It does not tell brain from fluid, or skin from muscle, at the noise of a head CT, let alone in a
synthetic one: the cavity is one compartment unless a mask of the brain is given.
"""

from enum import IntEnum

import numpy as np
from jaxtyping import Bool
from pydantic import Field

from transmodal.core.config import Config
from transmodal.core.errors import DataError
from transmodal.core.volume import Volume, require_same_grid
from transmodal.imaging.grid import isotropic_grid, resample
from transmodal.imaging.masks import head_mask

Mask = Bool[np.ndarray, "x y z"]
Spacing = tuple[float, float, float]

# Sinuses, mouth and ear canals are below this.
_AIR_HU = -300.0
# The outermost layer of the head, this thick, is soft tissue: it covers nostrils, ear canals, and bone below thin skin.
_SCALP_MM = 2.0
# The cavity is looked for on a grid this coarse.
_WORKING_MM = 2.0
# This share of a voxel there must be soft for it to count as soft.
_MOSTLY = 0.8
# Half the width of the widest way out of the cavity, the spinal canal.
_CANAL_MM = 12.0
# Steps of the working grid by which the cavity, found with a ball of that size, is let into recesses that are too narrow for the ball.
_RECESS_STEPS = 3
# Between the cavity and what is outside the skull there is at least this much bone ...
_LEAST_BONE_MM = 1.5
# ... and bone is compact this far below its surface: there, what is darker is its partial volume.
_TABLE_MM = 1.5
# With less bone than this share of what lies next to it, a cavity is none.
_LEAST_ENCLOSED = 0.75


class HeadLabel(IntEnum):
    """Numbers of the layers."""

    OUTSIDE = 0
    SOFT_TISSUE = 1
    COMPACT_BONE = 2
    SPONGY_BONE = 3
    INTRACRANIAL = 4
    BRAIN = 5
    INTERNAL_AIR = 6


BONE = (HeadLabel.COMPACT_BONE, HeadLabel.SPONGY_BONE)
CAVITY = (HeadLabel.INTRACRANIAL, HeadLabel.BRAIN)


class HeadModelSettings(Config):
    """How the layers are told apart.

    Parameters
    ----------
    bone_hu : float
        Bone is above it.
    compact_hu : float
        Below it, bone that is not at a surface is spongy. 700 HU parts cortical from trabecular bone in Lim Fat et al. (Skeletal Radiol
        2012;41:557).
    closing_mm : float
        Holes in bone up to twice this are closed: sutures, vessels, thin bone that the CT has lost.
    """

    bone_hu: float = 250.0
    compact_hu: float = 700.0
    closing_mm: float = Field(default=3.0, ge=0)


def head_model(ct: Volume, settings: HeadModelSettings, brain: Volume | None = None) -> tuple[Volume, float]:
    """Divide a head into layers, each of which closes around the next.

    No voxel of the cavity shares a face with anything but bone, and none outside the head with anything but soft tissue, except where
    the border of the grid cuts them.

    Parameters
    ----------
    ct : Volume
        In HU.
    settings : HeadModelSettings
    brain : Volume, optional
        A mask of the brain on the grid of the CT; without it, the cavity is one.

    Returns
    -------
    labels : Volume
        `HeadLabel` numbers on the grid of the CT.
    enclosed : float
        The share of what lies next to the cavity, from 0 to 1, that was bone. At the rest bone was put: at the foramen magnum,
        at holes that the closing did not reach, and wherever the skull is missing.

    Raises
    ------
    GeometryError
        If the mask of the brain lies on another grid.
    DataError
        If there is no head, no cavity that bone encloses, or most of the mask of the brain is not in it.
    """
    if brain is not None:
        require_same_grid(ct.grid, brain.grid, "the CT", "the mask of the brain")
    hu, spacing = np.asarray(ct.array), ct.spacing
    head = np.asarray(head_mask(ct).array)
    room = _shrunk(head, _SCALP_MM, spacing)
    air = room & (hu < _AIR_HU)
    bone = room & ~air & _closed(room & (hu > settings.bone_hu), settings.closing_mm, spacing)
    cavity = _cavity(ct, room & ~bone & ~air) & _shrunk(room, _LEAST_BONE_MM, spacing)
    around = _grown(cavity, _LEAST_BONE_MM, spacing) & ~cavity
    enclosed = _require_enclosed(bone[around], settings)
    bone = (bone | around) & ~cavity
    labels = np.full(ct.shape, HeadLabel.OUTSIDE, dtype=np.uint8)
    labels[head] = HeadLabel.SOFT_TISSUE
    labels[air] = HeadLabel.INTERNAL_AIR
    labels[bone] = HeadLabel.COMPACT_BONE
    labels[_shrunk(bone, _TABLE_MM, spacing) & (hu < settings.compact_hu)] = HeadLabel.SPONGY_BONE
    labels[cavity] = HeadLabel.INTRACRANIAL
    if brain is not None:
        labels[_within(cavity, brain)] = HeadLabel.BRAIN
    return ct.with_array(labels, "labels"), enclosed


def _require_enclosed(bone: Bool[np.ndarray, " n"], settings: HeadModelSettings) -> float:
    """Return the share of bone in what lies next to a cavity, or raise if it is too little for a skull."""
    enclosed = float(bone.mean()) if bone.size else 0.0
    if enclosed < _LEAST_ENCLOSED:
        raise DataError(
            f"no skull that encloses a brain was found: {enclosed:.0%} of what lies next to the largest cavity is bone, which is what is "
            f"above {settings.bone_hu:g} HU; check that the whole skull is in the field of view, choose another --threshold-hu or a larger "
            "--closing-mm, or crop away the shoulders"
        )
    return enclosed


def _within(cavity: Mask, brain: Volume) -> Mask:
    """What of a mask of the brain is in the cavity."""
    inside = np.asarray(brain.array) > 0
    within = inside & cavity
    if 2 * np.count_nonzero(within) <= np.count_nonzero(inside):
        raise DataError("most of the mask of the brain is not in the cavity of the skull, or it is empty; check that it belongs to this CT")
    return within


def solid_layers(labels: Volume) -> dict[str, Volume]:
    """The layers as solids that lie in one another, for a surface around each.

    Returns
    -------
    dict
        Masks: ``scalp``, the whole head; ``bone``, all bone and the cavity in the skull; ``cavity``; and ``brain``, where there is one.
    """
    array = np.asarray(labels.array)
    solids = {
        "scalp": array != HeadLabel.OUTSIDE,
        "bone": np.isin(array, (*BONE, *CAVITY)),
        "cavity": np.isin(array, CAVITY),
        "brain": array == HeadLabel.BRAIN,
    }
    return {name: labels.with_array(solid, "mask") for name, solid in solids.items() if solid.any()}


def cut_layers(labels: Volume) -> list[str]:
    """The solids that reach the border of the grid, where a layer is not closed by the next."""
    solids = {name: np.asarray(solid.array) for name, solid in solid_layers(labels).items()}
    return [name for name, solid in solids.items() if any(solid.take(end, axis).any() for axis in range(3) for end in (0, -1))]


def _cavity(ct: Volume, soft: Mask) -> Mask:
    """The largest room in soft tissue for a ball that does not fit through the spinal canal, its recesses, and the islands in it."""
    from scipy.ndimage import binary_dilation, binary_fill_holes

    grid = isotropic_grid(ct.grid, _WORKING_MM)
    # A share of each voxel, of which most must be soft: no bone is too thin to part two rooms.
    coarse = np.asarray(resample(ct.with_array(soft.astype(np.float32), "map"), grid).array) > _MOSTLY
    core = _largest(_shrunk(coarse, _CANAL_MM, grid.spacing))
    rooms = binary_dilation(_grown(core, _CANAL_MM, grid.spacing) & coarse, iterations=_RECESS_STEPS, mask=coarse)
    found = np.asarray(resample(Volume(np.asarray(rooms), grid.affine, "mask"), ct.grid).array)
    return np.asarray(binary_fill_holes(_largest(_grown(found, _WORKING_MM, ct.spacing) & soft)))


def _largest(mask: Mask) -> Mask:
    """The largest piece of voxels that share faces; the mask itself where it is empty."""
    from scipy.ndimage import label

    pieces = np.empty(mask.shape, dtype=np.int32)
    label(mask, output=pieces)
    sizes = np.bincount(pieces.ravel())
    return pieces == 1 + sizes[1:].argmax() if len(sizes) > 1 else mask


def _closed(mask: Mask, mm: float, spacing: Spacing) -> Mask:
    return _shrunk(_grown(mask, mm, spacing), mm, spacing)


def _grown(mask: Mask, mm: float, spacing: Spacing) -> Mask:
    """All that is within a distance of a mask, and at least the voxels that share a face with it."""
    from scipy.ndimage import binary_dilation, distance_transform_edt

    if not mask.any():  # nothing to be distant from
        return mask
    near = np.asarray(distance_transform_edt(~mask, sampling=spacing)) <= mm
    return np.logical_or(near, binary_dilation(mask))


def _shrunk(mask: Mask, mm: float, spacing: Spacing) -> Mask:
    """What is left where all within a distance of the outside is taken off; the border of the grid is no outside."""
    return ~_grown(~mask, mm, spacing)
