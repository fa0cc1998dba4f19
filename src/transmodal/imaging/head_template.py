"""The template of a head: how much of each tissue lies at each point of an average of simulated heads.

It is symmetric, so that left cannot be told from right.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import Literal, final

import numpy as np
from jaxtyping import Float

from transmodal.core.volume import Grid

Points = Float[np.ndarray, "n 3"]
Part = Literal["head", "brain"]

TISSUES = ("fat", "muscle", "bone", "fluid", "grey", "white")
_BRAIN = slice(3, 6)
TEMPLATE_NAME = "head_template.safetensors"
# The grid of the template, in mm: right, front and top of an average adult, the origin in the middle of the brain.
TEMPLATE_MM = 6.0
TEMPLATE_SHAPE = (32, 38, 42)
_TEMPLATE_CORNER = (-93.0, -117.0, -150.0)


@final
@dataclass(frozen=True, eq=False)
class Template:
    """The share of each of `TISSUES` at each point of an average head.

    Parameters
    ----------
    shares : ndarray, shape (x, y, z, tissue)
        In [0, 1]; what they lack to 1 is air.
    grid : Grid
    """

    shares: Float[np.ndarray, "x y z tissue"]
    grid: Grid

    def read(self, points: Points) -> Float[np.ndarray, "n tissue"]:
        """The shares at points in mm, linear between those of the grid and constant beyond its ends."""
        indices = np.clip(self.grid.to_voxel(points), 0, np.array(self.grid.shape) - 1.001).astype(np.float32).T
        base = indices.astype(np.intp)
        part = indices - base.astype(np.float32)
        x, y, z = np.stack([1 - part, part], axis=1)
        weights = (x[:, None, None] * y[:, None] * z).reshape(8, -1)
        cells = self._cells.take(np.ravel_multi_index(tuple(base), self.grid.shape), axis=0)
        return (weights.T[:, None] @ cells)[:, 0]

    @cached_property
    def _cells(self) -> Float[np.ndarray, "points 8 tissue"]:
        """The shares at the eight corners of the cell above each point of the grid, side by side, so that they are fetched at once."""
        padded = np.pad(self.shares, [(0, 1)] * 3 + [(0, 0)], mode="edge")
        cells = np.lib.stride_tricks.sliding_window_view(padded, (2, 2, 2), axis=(0, 1, 2))
        return np.ascontiguousarray(cells.reshape(-1, len(TISSUES), 8).swapaxes(1, 2))

    def points(self, part: Part) -> Points:
        """The points of the grid that are mostly of the head or of the brain (with the fluid around and in it), in mm."""
        return self.grid.to_world(np.argwhere(share_of(self.shares, part) > 0.5).astype(float))


@cache
def read_template() -> Template:
    """Read the template of the package, which ``benchmarks/guard.py template`` makes of simulated heads."""
    from safetensors.numpy import load_file

    with resources.as_file(resources.files("transmodal.imaging") / TEMPLATE_NAME) as path:
        right = load_file(path)["right"].astype(np.float32) / 255
    return Template(np.concatenate([right[::-1], right]), template_grid())


def template_grid() -> Grid:
    """The grid of the template."""
    affine = np.diag([TEMPLATE_MM, TEMPLATE_MM, TEMPLATE_MM, 1.0])
    affine[:3, 3] = _TEMPLATE_CORNER
    return Grid(TEMPLATE_SHAPE, affine)


def share_of(shares: Float[np.ndarray, "*points tissue"], part: Part) -> Float[np.ndarray, "*points"]:
    """How much of the head, or of the brain with the fluid around and in it, lies at each point, in [0, 1]."""
    return (shares[..., _BRAIN] if part == "brain" else shares).sum(axis=-1)
