"""Whole simulated heads for the tests of what looks at heads: of 3 mm, with air around them and the neck cut by the border."""

import numpy as np

from transmodal.core.volume import Grid, Volume
from transmodal.simulation.head import head_grid, simulate_anatomy
from transmodal.simulation.parameters import HeadConfig, draw_head

SPACING_MM, MARGIN_MM = 3.0, 15.0


def simulated_head(age_years: float, seed: int) -> Volume:
    """The tissues of a head drawn for an age."""
    config: HeadConfig = draw_head(np.random.default_rng(seed), age_years)
    shape = [int(np.ceil((side * scale + 2 * MARGIN_MM) / SPACING_MM)) for side, scale in zip((188, 233, 255), config.scale, strict=True)]
    grid = head_grid((shape[0], shape[1], shape[2]), config, SPACING_MM)
    affine = grid.affine.copy()
    affine[2, 3] += MARGIN_MM
    return simulate_anatomy(config, Grid(grid.shape, affine), seed)


def cut(scan: Volume, axis: int, start: int, stop: int) -> Volume:
    """A stretch of the field of view."""
    slices, corner = [slice(None)] * 3, np.zeros(3)
    slices[axis], corner[axis] = slice(start, stop), start
    affine = scan.affine.copy()
    affine[:3, 3] = scan.grid.to_world(corner)
    return Volume(scan.array[tuple(slices)], affine, scan.modality)
