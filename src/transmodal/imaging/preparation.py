"""What is done to a scan before any method sees it, in training and in prediction alike.

The settings travel with the dataset into the run, so that a new scan is prepared as the training scans were.
"""

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from transmodal.core.config import Config
from transmodal.core.volume import Grid, Volume
from transmodal.imaging.grid import canonical, isotropic_grid, resample
from transmodal.imaging.intensity import IntensityStatistics, measure
from transmodal.imaging.masks import head_mask

# What lies outside the head: air, and no signal.
BACKGROUND = {"ct": -1000.0, "mr": 0.0}


class Preparation(Config):
    """The preparation steps, in the order in which they are done.

    Parameters
    ----------
    spacing_mm : float, optional
        Isotropic voxel size after resampling along axes that run most nearly to the right, the front and the top; None keeps
        the scan's own voxels and only orders the axes.
    """

    spacing_mm: float | None = Field(default=1.0, gt=0)


@dataclass(frozen=True, eq=False)
class PreparedScan:
    """A scan on its working grid: what lies outside the mask is background; the statistics are those inside."""

    volume: Volume
    mask: Volume
    statistics: IntensityStatistics


def prepare_scan(scan: Volume, settings: Preparation, mask: Volume | None = None) -> PreparedScan:
    """Order the axes, resample, mask and measure one scan.

    Parameters
    ----------
    scan : Volume
        An MR or a CT, on any grid.
    settings : Preparation
    mask : Volume, optional
        Head mask on any grid; by default it is found in the scan.

    Raises
    ------
    DataError
        If no head is found, or the image is constant inside the mask.
    """
    mask = head_mask(scan) if mask is None else mask
    ordered = canonical(scan)
    grid = ordered.grid if settings.spacing_mm is None else isotropic_grid(ordered.grid, settings.spacing_mm)
    return place_scan(ordered, mask, grid)


def place_scan(scan: Volume, mask: Volume, grid: Grid) -> PreparedScan:
    """Resample a scan and its mask onto `grid`, blank what lies outside the mask, and measure what lies inside."""
    volume, mask = resample(scan, grid), resample(mask, grid)
    inside = mask.array > 0
    masked = volume.with_array(np.where(inside, volume.array, np.float32(BACKGROUND[scan.modality])).astype(np.float32))
    return PreparedScan(masked, mask.with_array(inside), measure(volume, mask))
