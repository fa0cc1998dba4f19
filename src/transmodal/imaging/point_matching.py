"""Robust point matching: the affine transform between two surfaces, each of which may lack a part that the other has.

Correspondence is soft and becomes harder as a temperature falls; a row and a column for outliers take what has no counterpart (Gold et
al., Pattern Recognit 1998;31:1019; Chui and Rangarajan, Comput Vis Image Underst 2003;89:114; for brains, Papademetris et al., MICCAI
2003, LNCS 2879:788). Two things are added. A half of a head lies far from where its centre of gravity puts it, so that matching begins
from several places. And matched points slide along smooth surfaces very slowly, so that the distances along the normals are minimised
in the end (Rusinkiewicz, ACM Trans Graph 2019;38:85).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field, model_validator

from transmodal.core.config import Config
from transmodal.core.errors import DataError
from transmodal.core.volume import Affine
from transmodal.imaging.registration import Transform
from transmodal.imaging.surface import spread_evenly

if TYPE_CHECKING:
    from scipy.spatial import KDTree

Points = Float[np.ndarray, "n 3"]
Targets = Float[np.ndarray, "m 3"]

_FEWEST = 100
# Pairs below which twelve parameters are not to be trusted.
_FEWEST_PAIRS = 20
# Points that are matched softly: the matrix of all pairs is dense.
_SOFT = 400
# To choose among the places that matching began from.
_TRIED = 500
# The temperature falls by this factor, as often as it takes, and at each the transform is found anew so many times.
_COOLING, _UPDATES = 0.8, 2
# The entries for outliers: at the least, a pair counts for more than none up to three standard deviations, where exp(-9 / 2) = slack^2.
_SLACK = np.exp(-9 / 4)
_SINKHORN_STEPS = 5
# Times the square of the temperature, this holds the affine transform to a rotation. A head spreads over some 40 mm: at 15 mm, hot, it
# may hardly change its size, at 4 mm by three quarters of what the points want.
_DAMPING = 30.0
# Points that make a normal, the point itself among them; where their middle is further off than this part of their reach, it is a rim.
_NEIGHBOURS, _RIM = 9, 0.3
_POLISHES = 10
# Weight of the distance across the normal, which holds what the normals leave open.
_ACROSS = 1e-3


class PointMatching(Config):
    """How surfaces are matched.

    Parameters
    ----------
    points : int
        How many points of a surface, evenly spread over it, seek their counterparts among all of the other. (The first 400 do so softly.)
    start_mm, end_mm : float
        Temperatures of the annealing, as the standard deviation of the distance of a pair.
    reach_mm : float
        No pair is further apart than this in the end.
    """

    points: int = Field(default=1500, ge=_FEWEST, le=20_000)
    start_mm: float = Field(default=15.0, gt=0)
    end_mm: float = Field(default=4.0, gt=0)
    reach_mm: float = Field(default=8.0, gt=0)

    @model_validator(mode="after")
    def _cools(self) -> "PointMatching":
        if self.end_mm > self.start_mm:
            raise ValueError(f"end_mm = {self.end_mm:g} is above start_mm = {self.start_mm:g}; the temperature can only fall")
        return self


def match_points(fixed: Points, moving: Targets, settings: PointMatching | None = None) -> Transform:
    """Find the affine transform that lays one surface on another.

    Measured on the skin of a simulated head of 3 mm, sampled twice without a point in common and moved by 20 degrees, 30 mm, up to 15 %
    along each axis and shear (``benchmarks/point_matching.py``, median of 6): 0.07 mm is left on average over the surface; with a half
    of one of them cut away, 0.16 and 0.19 mm, over the missing half, too.

    Parameters
    ----------
    fixed, moving : ndarray, shape (n, 3)
        Points on the surfaces, in RAS+ mm, in roughly the same pose; such as `transmodal.imaging.surface.extract_surface` gives.
    settings : PointMatching, optional

    Returns
    -------
    Transform
        Fixed points to moving points, without deformation, as `transmodal.imaging.registration.register` gives it. It never mirrors.

    Raises
    ------
    DataError
        If a surface has fewer than 100 points, or some that are not finite, or all of them in a plane, or nothing matches.
    """
    settings = settings or PointMatching()
    first, second = _Cloud.of(fixed, "fixed", settings.points), _Cloud.of(moving, "moving", settings.points)
    annealed = (_anneal(first, second, start, settings) for start in _starts(first.points, second.points))
    polished = [_polish(first, second, guess, settings.reach_mm, _TRIED) for guess in annealed]
    guesses = [guess for guess in polished if guess is not None]
    if not guesses:
        raise DataError(
            "the surfaces do not match anywhere; check that both show the same part of a head, in mm and in about the same pose"
        )
    best = min(guesses, key=lambda guess: _distance(first, second, guess, settings.reach_mm / 2))
    final = _polish(first, second, best, settings.reach_mm, settings.points)
    return Transform(best if final is None else final)


@dataclass(frozen=True, eq=False)
class _Cloud:
    """All points of a surface, and some that are spread evenly over it."""

    points: Points
    chosen: np.ndarray
    gaps: np.ndarray

    @classmethod
    def of(cls, points: Points, name: str, count: int) -> "_Cloud":
        points = np.asarray(points, dtype=np.float64)
        if len(points) < _FEWEST:
            raise DataError(f"the {name} surface has {len(points)} points; matching needs {_FEWEST} at least")
        if bad := int((~np.isfinite(points)).any(axis=1).sum()):
            raise DataError(f"{bad} of the {len(points)} points of the {name} surface are NaN or infinite; leave them out")
        spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
        if spread[2] < 1e-3 * spread[0]:
            raise DataError(f"the points of the {name} surface lie in a plane, which determines no affine transform")
        return cls(points, *spread_evenly(points, count))

    @cached_property
    def tree(self) -> "KDTree":
        from scipy.spatial import KDTree

        return KDTree(self.points)

    @cached_property
    def spacing(self) -> float:
        """The distance of the furthest neighbour that makes a normal, in mm; the median over the surface."""
        return float(np.median(self._neighbourhoods[2]))

    @property
    def normals(self) -> Points:
        """At all points, of unit length and any sign."""
        return self._neighbourhoods[0]

    @property
    def rim(self) -> Bool[np.ndarray, " n"]:
        """Which points lie at the edge of an open surface, where a normal is not to be trusted."""
        return self._neighbourhoods[1]

    @cached_property
    def _neighbourhoods(self) -> tuple[Points, Bool[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        distances, neighbours = self.tree.query(self.points, k=_NEIGHBOURS)
        around = self.points[neighbours]
        middle = around.mean(axis=1, keepdims=True)
        scatter = np.einsum("nki,nkj->nij", around - middle, around - middle)
        rim = np.linalg.norm(middle[:, 0] - self.points, axis=1) > _RIM * distances[:, -1]
        return np.linalg.eigh(scatter)[1][:, :, 0], rim, distances[:, -1]

    def spread(self, gap: float) -> Points:
        """Points that are at least so far apart."""
        return self.points[self.chosen[self.gaps >= gap]]


def _starts(fixed: Points, moving: Targets) -> Iterator[Affine]:
    """The centres of gravity on one another; or, along one axis, the lower ends or the upper ends, for a part may be missing."""
    centred = moving.mean(axis=0) - fixed.mean(axis=0)
    yield _shift(centred)
    for ends in (moving.min(axis=0) - fixed.min(axis=0), moving.max(axis=0) - fixed.max(axis=0)):
        for axis in range(3):
            yield _shift(np.where(np.arange(3) == axis, ends, centred))


def _shift(offset: Float[np.ndarray, "3"]) -> Affine:
    affine = np.eye(4)
    affine[:3, 3] = offset
    return affine


def _move(affine: Affine, points: Points) -> Points:
    return points @ affine[:3, :3].T + affine[:3, 3]


def _anneal(fixed: _Cloud, moving: _Cloud, affine: Affine, settings: PointMatching) -> Affine:
    """Match softly while the temperature falls."""
    steps = 1 + int(np.ceil(np.log(settings.start_mm / settings.end_mm) / -np.log(_COOLING)))
    for temperature in np.geomspace(settings.start_mm, settings.end_mm, steps):
        # A part of a surface has a part of the points of the whole, not as many: one point has one counterpart.
        size = np.cbrt(np.linalg.det(affine[:3, :3]))
        gap = max(size * fixed.gaps[:_SOFT][-1], moving.gaps[:_SOFT][-1])
        points, targets = fixed.spread(gap / size), moving.spread(gap)
        for _ in range(_UPDATES):
            matches = _soft_assign(_move(affine, points), targets, temperature)
            if not matches.any():
                return affine
            affine = _damped_affine(points, targets, matches, _DAMPING * temperature**2)
    return affine


def _soft_assign(points: Points, targets: Targets, temperature: float) -> Float[np.ndarray, "n m"]:
    """How much of each point goes to each target: with what is left for the outliers, all rows and columns sum to 1 (Sinkhorn)."""
    from scipy.spatial.distance import cdist

    closeness = np.exp(cdist(points, targets, "sqeuclidean") / (-2 * temperature**2))
    rows, columns = np.ones(len(points)), np.ones(len(targets))
    for _ in range(_SINKHORN_STEPS):
        rows = 1 / (closeness @ columns + _SLACK)
        columns = 1 / (rows @ closeness + _SLACK)
    return rows[:, None] * closeness * columns


def _damped_affine(points: Points, targets: Targets, matches: Float[np.ndarray, "n m"], damping_mm2: float) -> Affine:
    """The least squares of matched points, with `damping_mm2` times the squared distance of the linear part from the best rotation."""
    shares = matches / matches.sum()
    middle, aim = shares.sum(axis=1) @ points, shares.sum(axis=0) @ targets
    across = (targets - aim).T @ shares.T @ (points - middle)
    along = (points - middle).T @ (shares.sum(axis=1)[:, None] * (points - middle))
    left, _, right = np.linalg.svd(across)
    rotation = left @ np.diag([1, 1, np.sign(np.linalg.det(left @ right))]) @ right
    affine = np.eye(4)
    affine[:3, :3] = (across + damping_mm2 * rotation) @ np.linalg.inv(along + damping_mm2 * np.eye(3))
    affine[:3, 3] = aim - affine[:3, :3] @ middle
    return affine


def _polish(fixed: _Cloud, moving: _Cloud, affine: Affine, reach_mm: float, count: int) -> Affine | None:
    """Minimise the distance between the surfaces, undamped; None if few points have a counterpart, or it would mirror them."""
    chosen = fixed.chosen[:count][~fixed.rim[fixed.chosen[:count]]]
    for _ in range(_POLISHES):
        moved = _move(affine, fixed.points[chosen])
        distances, nearest = (np.asarray(found) for found in moving.tree.query(moved))
        directions = _between(fixed.normals[chosen] @ np.linalg.inv(affine[:3, :3]), moving.normals[nearest])
        along = np.abs(((moved - moving.points[nearest]) * directions).sum(axis=1))
        beside = np.sqrt(np.maximum(distances**2 - along**2, 0))
        # The nearest to what is missing lies beside it, not below.
        kept = (distances < reach_mm) & (beside < moving.spacing + along / 2) & ~moving.rim[nearest]
        if kept.sum() < _FEWEST_PAIRS:
            return None
        affine = _least_squares(fixed.points[chosen[kept]], moving.points[nearest[kept]], directions[kept])
        if np.linalg.det(affine[:3, :3]) <= 0:
            return None
    return affine


def _between(first: Points, second: Points) -> Points:
    """The directions in the middle of two normals each: on a sphere, the chord between two points is at a right angle to it."""
    first = first / np.linalg.norm(first, axis=1, keepdims=True)
    total = first + second * np.sign((first * second).sum(axis=1, keepdims=True))
    return total / np.linalg.norm(total, axis=1, keepdims=True)


def _least_squares(points: Points, targets: Points, directions: Points) -> Affine:
    """The affine transform with the least squared distances along the directions, and a little across them."""
    scale = np.abs(points).max()  # so that all twelve unknowns are of one size
    terms = np.column_stack([points / scale, np.ones(len(points))])
    weights = np.einsum("ni,nj->nij", directions, directions) + _ACROSS * np.eye(3)
    normal = np.einsum("nij,nk,nl->ikjl", weights, terms, terms, optimize=True).reshape(12, 12)
    right = np.einsum("nij,nj,nk->ik", weights, targets, terms, optimize=True).ravel()
    affine = np.eye(4)
    affine[:3] = np.linalg.lstsq(normal, right, rcond=None)[0].reshape(3, 4)
    affine[:3, :3] /= scale
    return affine


def _distance(fixed: _Cloud, moving: _Cloud, affine: Affine, most_mm: float) -> float:
    """Squared distance of each surface from the other, in mm^2, with the distances cut off at a limit."""
    size = np.cbrt(np.linalg.det(affine[:3, :3]))
    there = moving.tree.query(_move(affine, fixed.points[fixed.chosen[:_TRIED]]))[0]
    back = size * fixed.tree.query(_move(np.linalg.inv(affine), moving.points[moving.chosen[:_TRIED]]))[0]
    return float(sum((np.minimum(distances, most_mm) ** 2).mean() for distances in (there, back)))
