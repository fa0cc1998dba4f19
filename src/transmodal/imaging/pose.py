"""Where the head lies in a scan of any contrast: the pose in which a template of tissues explains the scan best.

The template holds, at each point of an average head, the share of each tissue. Laid over a scan it explains the intensities by one
number a tissue, found by least squares: whatever the contrast, a pose is the better the more of the variance it explains. The method
is that of separable least squares (Golub & Pereyra, SIAM J Numer Anal 1973;10:413): the intensities are solved for at every pose.
"""

import itertools
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float

from transmodal.core.volume import Volume
from transmodal.imaging.head_search import HeadSearch, Matrix
from transmodal.imaging.head_template import Part, Points, Template, read_template
from transmodal.imaging.working_copy import WorkingCopy, working_copy

# Three shifts in mm, three logarithms of sizes, three angles in radians about the axes of the template.
Parameters = Float[np.ndarray, "9"]

# What of the template is looked for first, and the size at which: heads of children and of adults, brains without a head.
_STARTS: tuple[tuple[Part, float], ...] = (("head", 0.75), ("head", 0.95), ("brain", 0.95))
# Points of the scan that are looked at when a turn is tried, and when the few best are compared.
_TRIED_POINTS, _COMPARED_POINTS = 1500, 5000
_COMPARED_TURNS = 3
# Steps of the numerical derivative: half a voxel, in each of the parameters.
_STEPS = np.array([3.0] * 3 + [0.03] * 3 + [0.05] * 3)
_BOUNDS = np.array([250.0] * 3 + [0.45] * 3 + [0.6, 0.35, 0.45])
# How heads differ: standard deviations of the logarithm of the size, of that of each axis against it, and of the angles.
_SIZE_SD, _AXIS_SD, _ANGLE_SD = 0.15, 0.06, np.array([0.25, 0.15, 0.2])
# A pose one standard deviation from the usual must explain this share more of the standard deviation of the image.
_PRIOR = 0.05
# Holds the intensities of tissues of which the scan shows nothing near the background.
_RIDGE = 1e-5


@final
@dataclass(frozen=True, eq=False)
class Pose:
    """From the scan, in RAS+ mm, to the template: turn by right angles, shift, rotate, and divide by the size.

    Parameters
    ----------
    turn : ndarray, shape (3, 3)
        A proper rotation by right angles; the identity if the scan is oriented as its header says.
    center : ndarray, shape (3,)
        What the turn is about: the middle of the field of view.
    parameters : ndarray, shape (9,)
    """

    turn: Matrix
    center: Float[np.ndarray, "3"]
    parameters: Parameters

    @property
    def size(self) -> Float[np.ndarray, "3"]:
        """Size of the head along the axes of the template, relative to it."""
        return np.exp(self.parameters[3:6])

    def to_template(self, points: Points) -> Points:
        """Points of the scan to those of the template."""
        turned = (points - self.center) @ self.turn.T - self.parameters[:3]
        return (turned @ _rotation(self.parameters[6:])) / self.size

    def to_scan(self, points: Points) -> Points:
        """Points of the template to those of the scan."""
        turned = (points * self.size) @ _rotation(self.parameters[6:]).T + self.parameters[:3]
        return turned @ self.turn + self.center


@final
@dataclass(frozen=True, eq=False)
class HeadFit:
    """How well the template explains a scan in one pose.

    Parameters
    ----------
    pose : Pose
    explained : float
        Share of the variance of the scan that the template explains, at most 1.
    score : float
        The same, less what an unusual pose costs.
    levels : ndarray, shape (1 + tissue,)
        Intensity of air, and what each of `TISSUES` adds to it; 0 to 1 is the range of the scan.
    """

    pose: Pose
    explained: float
    score: float
    levels: Float[np.ndarray, " levels"]


@final
@dataclass(frozen=True, eq=False)
class Fits:
    """The best poses in the orientation that the header states, and in any other.

    Parameters
    ----------
    copy : WorkingCopy
    stated, other : HeadFit
    """

    copy: WorkingCopy
    stated: HeadFit
    other: HeadFit

    @property
    def best(self) -> HeadFit:
        """The one of the higher score."""
        return max(self.stated, self.other, key=lambda fit: fit.score)


def right_angle_turns() -> list[Matrix]:
    """The 24 proper rotations by right angles, the identity first."""
    signed = (
        np.eye(3)[list(order)] * np.array(signs)[:, None]
        for order in itertools.permutations(range(3))
        for signs in itertools.product((1.0, -1.0), repeat=3)
    )
    return [matrix for matrix in signed if np.linalg.det(matrix) > 0]


def fit_head(scan: Volume) -> Fits:
    """Lay the template over a scan in each of 24 orientations.

    Parameters
    ----------
    scan : Volume
        An MR of any contrast, or a CT in HU; of any grid and field of view, with or without what lies outside the head.

    Raises
    ------
    DataError
        If the scan is constant at the resolution that it is looked at.
    """
    copy = working_copy(scan)
    template, center = read_template(), copy.volume.grid.center
    sample, search = _sample(copy), HeadSearch(copy, template)
    tried = []
    for turn in right_angle_turns():
        problem = _Problem(template, turn, center, *(part[:_TRIED_POINTS] for part in sample))
        first = min((_unturned(search.shift(turn, part, size), size) for part, size in _STARTS), key=problem.cost)
        tried.append(problem.improve(first, 4))
    finalists = [tried[0], *sorted(tried[1:], key=lambda fit: -fit.score)[:_COMPARED_TURNS]]
    compared = []
    for fit in finalists:
        problem = _Problem(template, fit.pose.turn, center, *(part[:_COMPARED_POINTS] for part in sample))
        compared.append(problem.improve(fit.pose.parameters, 10))
    return Fits(copy, compared[0], max(compared[1:], key=lambda fit: fit.score))


@final
@dataclass(frozen=True, eq=False)
class _Problem:
    """The least squares of one orientation."""

    template: Template
    turn: Matrix
    center: Float[np.ndarray, "3"]
    points: Points
    values: Float[np.ndarray, " n"]

    def residuals(self, parameters: Parameters) -> Float[np.ndarray, " m"]:
        """What is left of the image at the points, and how unusual the pose is."""
        size = parameters[3:6].mean()
        unusual = np.concatenate([[size / _SIZE_SD], (parameters[3:6] - size) / _AXIS_SD, parameters[6:] / _ANGLE_SD])
        return np.concatenate([self._solve(parameters)[1], unusual * _PRIOR * np.sqrt(len(self.values)) * self.values.std()])

    def cost(self, parameters: Parameters) -> float:
        """Sum of the squared residuals."""
        left = self.residuals(parameters)
        return float(left @ left)

    def improve(self, parameters: Parameters, rounds: int) -> HeadFit:
        """Take a few steps of a trust region downhill."""
        from scipy.optimize import least_squares

        start = np.clip(parameters, -0.99 * _BOUNDS, 0.99 * _BOUNDS)
        limits: dict[str, Any] = {"bounds": (-_BOUNDS, _BOUNDS), "max_nfev": rounds, "ftol": 1e-4, "xtol": 1e-3}
        found = least_squares(self.residuals, start, **{"jac": self._slopes, "x_scale": _STEPS, **limits})
        levels, left = self._solve(found.x)
        spread = len(self.values) * float(self.values.var())
        pose = Pose(self.turn, self.center, found.x)
        return HeadFit(pose, 1 - float(left @ left) / spread, 1 - float(found.fun @ found.fun) / spread, levels)

    def _slopes(self, parameters: Parameters) -> Float[np.ndarray, "m 9"]:
        here = self.residuals(parameters)
        return np.stack([(self.residuals(parameters + step) - here) / step.sum() for step in np.diag(_STEPS)], axis=1)

    def _solve(self, parameters: Parameters) -> tuple[Float[np.ndarray, " levels"], Float[np.ndarray, " n"]]:
        """The intensities of air and tissues that fit best, and what they leave."""
        shares = self.template.read(Pose(self.turn, self.center, parameters).to_template(self.points))
        return solve_levels(shares, self.values)


def solve_levels(
    shares: Float[np.ndarray, "n tissue"], values: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " levels"], Float[np.ndarray, " n"]]:
    """Solve for the intensity of air and what each tissue adds to it.

    Returns
    -------
    ndarray, shape (1 + tissue,)
        The intensities.
    ndarray, shape (n,)
        What they leave of the values.
    """
    columns = np.concatenate([np.ones((len(shares), 1)), shares], axis=1)
    ridge = _RIDGE * len(values) * np.diag([0.0] + [1.0] * shares.shape[1])
    levels = np.linalg.solve(columns.T @ columns + ridge, columns.T @ values)
    return levels, values - columns @ levels


def _unturned(shift: Float[np.ndarray, "3"], size: float) -> Parameters:
    """A head of that size along all axes, upright."""
    return np.concatenate([shift, np.full(3, np.log(size)), np.zeros(3)])


def _rotation(angles: Float[np.ndarray, "3"]) -> Matrix:
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", angles).as_matrix()


def _sample(copy: WorkingCopy) -> tuple[Points, Float[np.ndarray, " n"]]:
    """Points in and around what is bright, in an order in which any number of the first ones is spread evenly, and their values."""
    bright = np.argwhere(copy.inside & (copy.values > 0.15))
    low, high = bright.min(axis=0) - 3, bright.max(axis=0) + 3
    indices = np.argwhere(copy.inside)
    indices = indices[((indices >= low) & (indices <= high)).all(axis=1)]
    np.random.default_rng(0).shuffle(indices)
    return copy.volume.grid.to_world(indices.astype(float)), copy.values[tuple(indices.T)].astype(np.float64)
