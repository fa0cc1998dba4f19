"""Whether a scan is what a model of heads was trained for: a whole head with its skull, of the right modality, turned as its header says.

The checks rest on one thing: how a template of the tissues of a head explains the scan (`transmodal.imaging.pose`). Where nothing is
explained, nothing more is asked. The limits are measured by ``benchmarks/guard.py``; docs/guard.md has the table.
"""

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, final

import numpy as np
from jaxtyping import Bool, Float

from transmodal.core.config import Config, read_toml, validate
from transmodal.core.errors import DataError
from transmodal.core.volume import Volume
from transmodal.imaging.head_search import Matrix
from transmodal.imaging.head_template import TISSUES, Points, read_template
from transmodal.imaging.pose import Fits, HeadFit, fit_head
from transmodal.imaging.working_copy import WorkingCopy

Outcome = Literal["proceed", "warn", "refuse"]

TYPICAL_NAME = "guard.toml"
# Distance of slices, and the larger side of the pixels, in mm: `any-mr` draws slices of up to 6 mm by default.
_SLICE_MM, _PIXEL_MM = (6.0, 12.0), (3.0, 6.0)
# Share of the variance that the template explains: 0.76 and more of real heads, next to nothing of noise.
_EXPLAINED = (0.72, 0.62)
# How much more another orientation explains than the stated one: at least 0.016 less in real heads.
_OTHER_ORIENTATION = (0.0, 0.005)
# Share of the brain and of the skull around it that is seen.
_SEEN = (0.9, 0.7)
# Share of scalp, face and neck that has signal: 0.45 and more in real scans with their fat suppressed, 0.03 in stripped ones.
_SCALP = (0.3, 0.15)
# Bone against the brightest of fat, muscle and brain: 1.4 and more in CT.
_BONE = (1.0, 1.2)

# Above this height of the template the head is cranium, in mm.
_SKULL_BASE_MM = -25.0
# Of the way from air to brain: signal of soft tissue begins at the first, that of the brain at the second.
_LIT, _LIT_BRAIN = 0.1, 0.25
# Shares of tissue in a point that are surely outside the head, in the brain, and in soft tissue around the skull.
_AIR_SHARE, _BRAIN_SHARE, _SOFT_SHARE = 0.02, 0.9, 0.6
_SOFT, _BONE_COLUMN, _BRAIN_COLUMNS = slice(0, 2), 2, slice(3, 6)

FEATURES = (
    *("width", "length", "height"),
    *("air", *TISSUES),
    *("mean", "spread", "slope", "asymmetry"),
)


class Typical(Config):
    """What `FEATURES` are like in the scans that a model of any MR is trained on.

    Parameters
    ----------
    mean : tuple of float
    covariance : tuple of tuples of float
    limit : float
        The Mahalanobis distance that one in two hundred of held-out scans of that kind exceeds.
    """

    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    limit: float

    def distance(self, features: Float[np.ndarray, " features"]) -> float:
        """Mahalanobis distance of the features of a scan."""
        off = features - np.array(self.mean)
        return float(np.sqrt(off @ np.linalg.solve(np.array(self.covariance), off)))


@cache
def read_typical() -> Typical:
    """Read what ``benchmarks/guard.py typical`` measured."""
    with resources.as_file(resources.files("transmodal.imaging") / TYPICAL_NAME) as path:
        return validate(Typical, read_toml(path), path.name)


@final
@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Parameters
    ----------
    name : str
    value : float
    limits : str
        What is warned of and what is refused, in words.
    outcome : {"proceed", "warn", "refuse"}
    words : str
        What is wrong if anything is, and what to do about it.
    """

    name: str
    value: float
    limits: str
    outcome: Outcome
    words: str


@final
@dataclass(frozen=True)
class GuardReport:
    """What was looked at in a scan, and what follows."""

    checks: tuple[Check, ...]

    @property
    def outcome(self) -> Outcome:
        """The worst of all checks."""
        found = {check.outcome for check in self.checks}
        return "refuse" if "refuse" in found else "warn" if "warn" in found else "proceed"

    def reasons(self, outcome: Outcome) -> list[str]:
        """What is said by the checks of one outcome."""
        return [check.words for check in self.checks if check.outcome == outcome]

    def record(self) -> dict[str, Any]:
        """Plain values for a record: each check with its value, limits and outcome, and the words of those that found something."""
        return {
            "outcome": self.outcome,
            "checks": {
                check.name: {"value": round(check.value, 3), "limits": check.limits, "outcome": check.outcome}
                | ({} if check.outcome == "proceed" else {"words": check.words})
                for check in self.checks
            },
        }


def guard(scan: Volume) -> GuardReport:
    """Look at a scan before a model does.

    Parameters
    ----------
    scan : Volume
        An MR of any contrast; or a CT in HU, of which the contrast is not judged.

    Raises
    ------
    DataError
        If it is constant, or has too little signal to be looked at.
    """
    resolution = _check_resolution(scan)
    fits = fit_head(scan)
    head = _check(
        "head", fits.best.explained, _EXPLAINED, "this does not look like a head: an anatomical template explains {value:.0%} of it"
    )
    if head.outcome == "refuse":
        return GuardReport((*resolution, head))
    measures = measure(fits.copy, fits.best)
    checks = [*resolution, head, _check_orientation(fits), *_check_completeness(measures)]
    if scan.modality == "mr":
        checks += [_check_bone(measures), _check_typical(measures)]
    return GuardReport(tuple(checks))


def require_head(scan: Volume, name: str, *, force: bool = False) -> GuardReport:
    """Look at a scan, and refuse what is not what a model of heads was trained for.

    Parameters
    ----------
    scan : Volume
    name : str
        The file, for the message.
    force : bool
        Refuse nothing.

    Raises
    ------
    DataError
        If the scan is refused, with the reasons and the remedies; or, force or not, if it is constant or has too little signal to be
        looked at.
    """
    report = guard(scan)
    if report.outcome == "refuse" and not force:
        raise DataError(f"{name}: {'; '.join(report.reasons('refuse'))}. To go on all the same: --force")
    return report


@final
@dataclass(frozen=True, eq=False)
class Measures:
    """What the checks and the distance from the usual look at.

    Parameters
    ----------
    seen : float
        Share of the brain, or of the skull around it if that is less, that is in the field of view and is not dark.
    scalp : float
        Share of scalp, face and neck in the field of view that has signal.
    bone : float
        Intensity of bone above air, relative to the brightest of fat, muscle, grey and white matter.
    features : ndarray
        The values of `FEATURES`.
    """

    seen: float
    scalp: float
    bone: float
    features: Float[np.ndarray, " features"]


def measure(copy: WorkingCopy, fit: HeadFit) -> Measures:
    """Measure a scan in the pose that was found for its head."""
    values = copy.values[copy.inside]
    shares = read_template().read(fit.pose.to_template(copy.points))
    air = _median(values[shares.sum(axis=1) < _AIR_SHARE])
    brain = _median(values[shares[:, _BRAIN_COLUMNS].sum(axis=1) > _BRAIN_SHARE])
    soft = shares[:, _SOFT].sum(axis=1) > _SOFT_SHARE
    scalp = float((values[soft] > air + _LIT * (brain - air)).mean()) if soft.any() else 0.0
    tissue = dict(zip(TISSUES, fit.levels[1:], strict=True))
    brightest = max(tissue[name] for name in ("fat", "muscle", "grey", "white"))
    return Measures(
        _seen(copy, fit, air + _LIT_BRAIN * (brain - air)),
        scalp,
        float(tissue["bone"] / max(brightest, 1e-3)),
        _features(copy, fit, shares.sum(axis=1) > 1 - _AIR_SHARE),
    )


def _median(values: Float[np.ndarray, " n"]) -> float:
    return float(np.median(values)) if values.size else 0.0


def _mean(values: Float[np.ndarray, " n"]) -> float:
    return float(values.mean()) if values.size else 0.0


def _seen(copy: WorkingCopy, fit: HeadFit, bright: float) -> float:
    template = read_template()
    head, brain = template.points("head"), template.points("brain")
    cranium = _read(copy, fit.pose.to_scan(head[head[:, 2] > _SKULL_BASE_MM]))[1]
    values, inside = _read(copy, fit.pose.to_scan(brain))
    return min(float(cranium.mean()), float((inside & (values > bright)).mean()))


def _read(copy: WorkingCopy, points: Points) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """The values at the voxels nearest to points, and which of the points are in the field of view."""
    indices = np.round(copy.volume.grid.to_voxel(points)).astype(int)
    within = ((indices >= 0) & (indices < copy.volume.shape)).all(axis=1)
    nearest = tuple(np.clip(indices, 0, np.array(copy.volume.shape) - 1).T)
    return copy.values[nearest], within & copy.inside[nearest]


def _features(copy: WorkingCopy, fit: HeadFit, head: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " features"]:
    points = copy.points[head]
    values = copy.values[copy.inside][head]
    slopes = np.linalg.norm(np.gradient(copy.values), axis=0)[copy.inside][head]
    mirrored, there = _read(copy, fit.pose.to_scan(fit.pose.to_template(points) * (-1, 1, 1)))
    mean = _mean(values)
    variance = _mean((values - mean) ** 2)
    asymmetry = _mean((values - mirrored)[there] ** 2) / (2 * max(variance, 1e-6))
    return np.array([*np.log(fit.pose.size), *fit.levels, mean, np.sqrt(variance), _mean(slopes), asymmetry])


def _check(name: str, value: float, limits: tuple[float, float], words: str) -> Check:
    """Judge a value: too small if the limit of what is refused is below that of what is warned of, otherwise too large."""
    warn, refuse = limits
    sign, side = (1, "above") if refuse > warn else (-1, "below")
    # Not a number is no reason to go on.
    outcome: Outcome = "proceed" if sign * value <= sign * warn else "warn" if sign * value <= sign * refuse else "refuse"
    refused = f", refused {side} {refuse:g}" if np.isfinite(refuse) else ""
    return Check(name, float(value), f"warned of {side} {warn:g}{refused}", outcome, words.format(value=value))


def _check_resolution(scan: Volume) -> list[Check]:
    _, pixel, distance = sorted(round(spacing, 3) for spacing in scan.spacing)
    coarse = "{value:.3g} mm {what}; the skull is thinner than that: give the scan as it was acquired, or a finer one"
    return [
        _check("slice distance", distance, _SLICE_MM, coarse.replace("{what}", "from slice to slice")),
        _check("pixel size", pixel, _PIXEL_MM, coarse.replace("{what}", "pixels")),
    ]


def _check_orientation(fits: Fits) -> Check:
    looks = _describe_turn(fits.other.pose.turn)
    words = f"{looks}; correct the orientation in the header (NIfTI: sform and qform), or give a head if this is none"
    return _check("orientation", fits.other.score - fits.stated.score, _OTHER_ORIENTATION, words)


def _describe_turn(turn: Matrix) -> str:
    """What the head looks like against what the header says, of front and top; of left and right nothing can be said."""
    looks = []
    for axis, name in ((1, "front"), (2, "top")):
        found = int(np.abs(turn[:, axis]).argmax())
        side = "a side" if found == 0 else {1: ("the back", "the front"), 2: ("the bottom", "the top")}[found][int(turn[found, axis] > 0)]
        if side != f"the {name}":
            looks.append(f"what the header calls the {name} looks like {side} of the head")
    return " and ".join(looks)


def _check_completeness(measures: Measures) -> list[Check]:
    cut = "{value:.0%} of the cranium is seen; what lies outside the field of view cannot be made: give the whole head"
    stripped = (
        "{value:.0%} of what should be scalp, face and neck has signal: the skull has been stripped off; give the scan before stripping"
    )
    return [_check("cranium seen", measures.seen, _SEEN, cut), _check("scalp", measures.scalp, _SCALP, stripped)]


def _check_bone(measures: Measures) -> Check:
    words = (
        "bone is {value:.2f} times as bright as the brightest soft tissue, as in a CT; give the MR, or a model and a --direction "
        "that start from CT"
    )
    return _check("bone", measures.bone, _BONE, words)


def _check_typical(measures: Measures) -> Check:
    typical = read_typical()
    words = (
        "size, contrast or symmetry are unlike those of the scans that the model was trained on (Mahalanobis distance {value:.1f}): "
        "look at the result with care"
    )
    return _check("distance", typical.distance(measures.features), (typical.limit, np.inf), words)
