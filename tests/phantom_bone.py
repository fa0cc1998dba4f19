"""Bone whose surface is known: CTs of a signed distance."""

import numpy as np

from transmodal.core.volume import Grid, Volume
from transmodal.evaluation.surface import BONE_HU

# Steeper than at the edge of real bone, and the same on both sides of it, so that the level lies where the distance is 0.
HU_PER_MM = 400.0


def places(grid: Grid) -> np.ndarray:
    """RAS+ mm of every voxel, shape (x, y, z, 3)."""
    return grid.to_world(np.moveaxis(np.indices(grid.shape, dtype=float), 0, -1))


def ct_of(distance_mm: np.ndarray, grid: Grid) -> Volume:
    """A CT of the bone from which each voxel is `distance_mm` away, negative inside."""
    return Volume(np.clip(BONE_HU - HU_PER_MM * distance_mm, -1000, 1500).astype(np.float32), grid.affine, "ct")


def all_of(volume: Volume) -> Volume:
    """A mask of every voxel."""
    return volume.with_array(np.ones(volume.shape, bool), "mask")
