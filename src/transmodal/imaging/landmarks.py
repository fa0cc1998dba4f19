"""Alignment from points that a person has marked in both scans."""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from transmodal.core.errors import DataError, FileError
from transmodal.imaging.registration import Kind, Transform

Point = Float[np.ndarray, "3"]

_FEWEST = {"rigid": 3, "affine": 4}


def fit_landmarks(fixed: Float[np.ndarray, "n 3"], moving: Float[np.ndarray, "n 3"], kind: Kind = "affine") -> Transform:
    """The transform that brings fixed points nearest to moving ones, in the least squares sense.

    Rigid: Umeyama, IEEE Trans Pattern Anal Mach Intell 1991;13:376, without scaling.

    Parameters
    ----------
    fixed, moving : ndarray, shape (n, 3)
        RAS+ mm; row i of both is the same landmark.
    kind : {"rigid", "affine"}

    Raises
    ------
    DataError
        If there are fewer than 3 (rigid) or 4 (affine) points, or they lie on a line (rigid) or in a plane (affine).
    """
    needed = _FEWEST[kind]
    spread = np.linalg.svd(fixed - fixed.mean(axis=0), compute_uv=False) if len(fixed) else np.zeros(3)
    if len(fixed) < needed or np.count_nonzero(spread > 1e-3 * max(spread.max(), 1e-12)) < needed - 1:
        place = "on a line" if kind == "rigid" else "in a plane"
        raise DataError(f"{len(fixed)} landmarks: {kind} alignment needs at least {needed} that do not lie {place}")
    middle_fixed, middle_moving = fixed.mean(axis=0), moving.mean(axis=0)
    if kind == "affine":
        linear = np.linalg.lstsq(fixed - middle_fixed, moving - middle_moving, rcond=None)[0].T
    else:
        left, _, right = np.linalg.svd((moving - middle_moving).T @ (fixed - middle_fixed))
        linear = left @ np.diag([1, 1, np.sign(np.linalg.det(left @ right))]) @ right
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = middle_moving - linear @ middle_fixed
    return Transform(matrix)


def register_landmarks(fixed: Path, moving: Path, kind: Kind = "affine") -> tuple[Transform, float]:
    """Align by two files of landmarks, paired by their names.

    Returns
    -------
    transform : Transform
    residual_mm : float
        How far the landmarks are apart afterwards, on average.

    Raises
    ------
    FileError
        If a file is not as `read_landmarks` wants it, or a landmark stands in one of the two only.
    DataError
        If the landmarks do not determine the transform; see `fit_landmarks`.
    """
    first, second = read_landmarks(fixed), read_landmarks(moving)
    for path, points, others in ((fixed, first, second), (moving, second, first)):
        if missing := [name for name in others if name not in points]:
            raise FileError(f"{path}: the landmarks {', '.join(missing)} of the other scan are missing; mark them, or remove them there")
    rows, others = _as_rows(first, first), _as_rows(second, first)
    transform = fit_landmarks(rows, others, kind)
    return transform, float(np.linalg.norm(transform.apply(rows) - others, axis=1).mean())


def _as_rows(points: dict[str, Point], names: Iterable[str]) -> Float[np.ndarray, "n 3"]:
    return np.array([points[name] for name in names], dtype=np.float64).reshape(-1, 3)


def read_landmarks(path: Path) -> dict[str, Point]:
    """Read ``name,x,y,z`` lines (RAS+ mm); a first line of words is a header.

    Raises
    ------
    FileError
        If the file cannot be read, a line is not a name and three numbers, or a name stands twice.
    """
    points: dict[str, Point] = {}
    try:
        rows = list(csv.reader(Path(path).read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path}: cannot be read ({error})") from error
    for number, row in enumerate(rows, 1):
        try:
            name, (x, y, z) = row[0].strip(), (float(value) for value in row[1:])
        except (ValueError, IndexError) as error:
            if number == 1:
                continue
            raise FileError(f"{path}, line {number}: {','.join(row)!r} is not a name and three numbers, such as nasion,0,85,-40") from error
        if name in points or not np.isfinite((x, y, z)).all():
            raise FileError(f"{path}, line {number}: the landmark {name!r} stands twice, or is not finite")
        points[name] = np.array([x, y, z])
    return points
