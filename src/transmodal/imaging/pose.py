"""Where the head lies in a scan of any contrast: the pose in which a template of tissues explains the scan best.

The template holds, at each point of an average head, the share of each tissue. Laid over a scan it explains the intensities by one
number a tissue, found by least squares: whatever the contrast, a pose is the better the more of the variance it explains. The method
is that of separable least squares (Golub & Pereyra, SIAM J Numer Anal 1973;10:413): the intensities are solved for at every pose.

The template is symmetric, so that left cannot be told from right.
"""

import itertools
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import Any, Literal, final

import numpy as np
from jaxtyping import Bool, Complex, Float

from transmodal.core.errors import DataError
from transmodal.core.volume import Grid, Volume
from transmodal.imaging.grid import isotropic_grid, resample

Points = Float[np.ndarray, "n 3"]
Matrix = Float[np.ndarray, "3 3"]
Image = Float[np.ndarray, "x y z"]
Mask = Bool[np.ndarray, "x y z"]
# Three shifts in mm, three logarithms of sizes, three angles in radians about the axes of the template.
Parameters = Float[np.ndarray, "9"]
Part = Literal["head", "brain"]

TISSUES = ("fat", "muscle", "bone", "fluid", "grey", "white")
_BRAIN = slice(3, 6)
TEMPLATE_NAME = "head_template.safetensors"
# The grid of the template, in mm: right, front and top of an average adult, the origin in the middle of the brain.
TEMPLATE_MM = 6.0
TEMPLATE_SHAPE = (32, 38, 42)
_TEMPLATE_CORNER = (-93.0, -117.0, -150.0)

# The scan is fitted at this resolution, and the first shift is searched for at the second.
_WORKING_MM, _SEARCH_MM = 8.0, 16.0
# Voxels are averaged down to no more than this before they are interpolated, which is quick.
_AVERAGED_MM = 4.0
# The HU between which CTs of heads differ from each other least: air, soft tissue and bone count, metal and tables hardly.
_CT_RANGE = (-300.0, 800.0)
# Constant planes at the border are padding if the plane next to them holds this share of what the fullest one does.
_CUT_SHARE = 0.35
# What of the template is looked for first, and the size at which: heads of children and of adults, brains without a head.
_STARTS: tuple[tuple[Part, float], ...] = (("head", 0.75), ("head", 0.95), ("brain", 0.95))
# Points of the scan that are looked at when a turn is tried, and when the few best are compared.
_TRIED_POINTS, _COMPARED_POINTS = 1500, 5000
_COMPARED_TURNS = 3
# A silhouette that varies less than this over the field of view tells nothing of where it lies.
_LEAST_SPREAD = 0.02
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
        return self.grid.to_world(np.argwhere(_share_of(self.shares, part) > 0.5).astype(float))


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
class WorkingCopy:
    """A scan as it is fitted: coarse, upright, its intensities stretched to 0 to 1.

    Parameters
    ----------
    volume : Volume
    inside : ndarray, shape (x, y, z)
        Where the scan has voxels that are no padding.
    """

    volume: Volume
    inside: Mask

    @property
    def values(self) -> Image:
        """The intensities, from 0 to 1."""
        return np.asarray(self.volume.array)

    @property
    def points(self) -> Points:
        """Where the voxels inside are, in mm."""
        return self.volume.grid.to_world(np.argwhere(self.inside).astype(float))


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
    copy = _working_copy(scan)
    template, center = read_template(), copy.volume.grid.center
    sample, search = _sample(copy), _Search(copy, template)
    tried = []
    for turn in right_angle_turns():
        problem = _Problem(template, turn, center, *(part[:_TRIED_POINTS] for part in sample))
        first = min((search.start(turn, part, size) for part, size in _STARTS), key=problem.cost)
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


def _rotation(angles: Float[np.ndarray, "3"]) -> Matrix:
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", angles).as_matrix()


def _working_copy(scan: Volume) -> WorkingCopy:
    seen = _without_padding(_averaged(scan))
    if scan.modality == "ct":
        seen = seen.with_array(np.clip(seen.array, *_CT_RANGE))
    grid = isotropic_grid(seen.grid, _WORKING_MM, upright=True)
    inside = _field_of_view(seen.grid, grid)
    values = np.asarray(resample(seen, grid).array)
    if min(grid.shape) < 2 or not inside.any():
        raise DataError("too little of a scan to find a head in; give the whole of it")
    low, high = np.percentile(values[inside], (1, 99))
    if high <= low:
        raise DataError("nothing can be seen in it: it has one intensity, but for specks; export it again")
    return WorkingCopy(Volume(np.clip((values - low) / (high - low), 0, 1), grid.affine, "mr"), inside)


def _averaged(scan: Volume) -> Volume:
    """Average blocks of voxels that are finer than what is needed."""
    blocks = [max(1, int(_AVERAGED_MM / spacing + 1e-6)) for spacing in scan.spacing]
    counts = [max(1, n // block) for n, block in zip(scan.shape, blocks, strict=True)]
    blocks = [min(block, n) for block, n in zip(blocks, scan.shape, strict=True)]
    kept = np.asarray(scan.array)[tuple(slice(n * block) for n, block in zip(counts, blocks, strict=True))]
    (a, b, c), (i, j, k) = counts, blocks
    affine = scan.affine.copy()
    affine[:3, :3] *= blocks
    affine[:3, 3] = scan.grid.to_world((np.array(blocks) - 1) / 2)
    return Volume(kept.reshape(a, i, b, j, c, k).mean(axis=(1, 3, 5), dtype=np.float32), affine, scan.modality)


def _without_padding(scan: Volume) -> Volume:
    """Take off constant planes in which the head ends abruptly: they lie beyond what was scanned, and say nothing of what is there."""
    values = np.asarray(scan.array)
    low, high = float(values.min()), float(np.percentile(values, 99))
    lit = values > low + 0.1 * (high - low)
    kept, corner = [], []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        varied = np.flatnonzero(values.max(axis=others) > values.min(axis=others))
        area = lit.sum(axis=others)
        first, last = (int(varied[0]), int(varied[-1])) if len(varied) else (0, scan.shape[axis] - 1)
        # The planes next to the border may hold an average of the head and the padding.
        start = first if area[min(first + 1, last)] > _CUT_SHARE * area.max() else 0
        stop = last + 1 if area[max(last - 1, first)] > _CUT_SHARE * area.max() else scan.shape[axis]
        kept.append(slice(start, stop))
        corner.append(start)
    affine = scan.affine.copy()
    affine[:3, 3] = scan.grid.to_world(np.array(corner, dtype=float))
    left = values[tuple(kept)]
    return Volume(left, affine, scan.modality) if left.min() < left.max() else scan


def _field_of_view(source: Grid, grid: Grid) -> Mask:
    """Which points of a grid lie within another."""
    indices = source.to_voxel(grid.to_world(np.moveaxis(np.indices(grid.shape, dtype=float), 0, -1)))
    return np.all((indices > -0.5) & (indices < np.array(source.shape) - 0.5), axis=-1)


def _sample(copy: WorkingCopy) -> tuple[Points, Float[np.ndarray, " n"]]:
    """Points in and around what is bright, in an order in which any number of the first ones is spread evenly, and their values."""
    bright = np.argwhere(copy.inside & (copy.values > 0.15))
    low, high = bright.min(axis=0) - 3, bright.max(axis=0) + 3
    indices = np.argwhere(copy.inside)
    indices = indices[((indices >= low) & (indices <= high)).all(axis=1)]
    np.random.default_rng(0).shuffle(indices)
    return copy.volume.grid.to_world(indices.astype(float)), copy.values[tuple(indices.T)].astype(np.float64)


@final
class _Search:
    """Where a silhouette lies in a scan: at the shift of the largest correlation within the field of view.

    The sums over the field of view are taken at all shifts at once, by Fourier transform.
    """

    def __init__(self, copy: WorkingCopy, template: Template) -> None:
        self.template = template
        self.grid = isotropic_grid(copy.volume.grid, _SEARCH_MM, upright=True)
        inside = _field_of_view(copy.volume.grid, self.grid)
        values = np.where(inside, resample(copy.volume, self.grid).array, 0)
        self.total, self.count = float(values.sum()), int(inside.sum())
        largest = np.multiply(template.grid.shape, template.grid.spacing).max()
        self.side = int(np.ceil(largest / _SEARCH_MM))
        self.shape = tuple(-(-(n + self.side) // 8) * 8 for n in self.grid.shape)  # lengths that transform quickly
        self.values, self.inside = self._transform(values), self._transform(inside.astype(float))

    def start(self, turn: Matrix, part: Part, size: float) -> Parameters:
        """The parameters of a pose without rotation."""
        middle = self.template.grid.center
        offsets = _SEARCH_MM * (np.indices((self.side,) * 3).reshape(3, -1).T - (self.side - 1) / 2)
        silhouette = _share_of(self.template.read(middle + offsets @ turn.T / size), part).reshape((self.side,) * 3)
        once, squared = np.conj(self._transform(silhouette)), np.conj(self._transform(silhouette**2))
        spectra = (self.values * once, self.inside * once, self.inside * squared)
        product, there, squares = (np.fft.irfftn(spectrum, self.shape, axes=(0, 1, 2)) for spectrum in spectra)
        spread = np.maximum(squares - there**2 / self.count, _LEAST_SPREAD * self.count)
        best = np.unravel_index(np.argmax((product - self.total * there / self.count) / np.sqrt(spread)), self.shape)
        corner = np.where(np.array(best) < self.grid.shape, best, np.subtract(best, self.shape))
        place = self.grid.to_world(corner + (self.side - 1) / 2)
        shift = turn @ (place - self.grid.center) - size * middle
        return np.concatenate([shift, np.full(3, np.log(size)), np.zeros(3)])

    def _transform(self, image: Image) -> Complex[np.ndarray, "u v w"]:
        return np.fft.rfftn(image, self.shape, axes=(0, 1, 2))


def _share_of(shares: Float[np.ndarray, "*points tissue"], part: Part) -> Float[np.ndarray, "*points"]:
    return (shares[..., _BRAIN] if part == "brain" else shares).sum(axis=-1)
