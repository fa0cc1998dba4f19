"""Training curves: what a run wrote into ``metrics.csv``."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transmodal.core.errors import FileError
from transmodal.engine.logs import read_metrics

# As many points as a small chart can show; longer curves are averaged over stretches of steps.
_MOST_POINTS = 250


@dataclass(frozen=True)
class Curve:
    """One metric along the steps of a training."""

    steps: tuple[float, ...]
    values: tuple[float, ...]


def read_curves(path: Path) -> dict[str, dict[str, Curve]]:
    """Read ``metrics.csv`` into metric, then split (``train``, ``validation``), to curve; values that are not finite are left out.

    Raises
    ------
    FileError
        If a cell is not a number.
    """
    points: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for number, row in enumerate(read_metrics(path), start=2):
        for metric in row.keys() - {"step", "split"}:
            point = _point(row.get("step", ""), row[metric], f"{path}, line {number}, {metric}")
            points.setdefault(metric, {}).setdefault(row.get("split", "train"), []).append(point)
    return {metric: {split: _thin(points[metric][split]) for split in sorted(points[metric])} for metric in sorted(points)}


def _point(step: str, value: str, where: str) -> tuple[float, float]:
    try:
        return float(step), float(value)
    except ValueError as error:
        raise FileError(f"{where}: {value!r} at step {step!r} is not a pair of numbers; the file is damaged") from error


def _thin(points: list[tuple[float, float]]) -> Curve:
    finite = np.array([point for point in points if math.isfinite(point[1])], dtype=np.float64).reshape(-1, 2)
    stretches = np.array_split(finite, min(len(finite), _MOST_POINTS)) if len(finite) else []
    means = [stretch.mean(axis=0) for stretch in stretches]
    return Curve(tuple(float(mean[0]) for mean in means), tuple(float(mean[1]) for mean in means))
