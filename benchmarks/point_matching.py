"""Match the surfaces of simulated heads, and compare with coherent point drift (pycpd): python benchmarks/point_matching.py [--rounds 5].

The first table is of one head's skin, sampled twice without a point in common and moved by affine transforms of 20 degrees, 30 mm, up to
15 % along each axis and shear: the mean error over the whole surface, and how often it is below 2 mm. Both spread as many points evenly
over the surfaces; coherent point drift is told how many of the moving ones have no counterpart. The times are of interleaved rounds. The
second table is of the brains of different heads: mean distances between the surfaces by centres of gravity, and by matching.
"""

import argparse
import itertools
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from transmodal.core.volume import Volume
from transmodal.imaging.point_matching import PointMatching, match_points
from transmodal.imaging.registration import Transform
from transmodal.imaging.surface import extract_surface, spread_evenly
from transmodal.simulation.head import head_grid, simulate_anatomy
from transmodal.simulation.labels import head_mask
from transmodal.simulation.parameters import draw_head
from transmodal.simulation.tissues import BRAIN, Tissue

with warnings.catch_warnings():
    warnings.simplefilter("ignore", SyntaxWarning)  # of pycpd 2.0
    from pycpd import AffineRegistration

SPACING_MM = 3.0
HEADS = 4
POINTS = 500
MOST_ITERATIONS = 300
Match = Callable[[np.ndarray, np.ndarray, float], Transform]


def surfaces(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points on the skin and on the brain of a head."""
    config = draw_head(np.random.default_rng(seed))
    covered = head_grid((64, 64, 64), config)
    x, y, z = (int(n) for n in np.ceil(64 * np.array(covered.spacing) / SPACING_MM))
    labels = simulate_anatomy(config, head_grid((x, y, z), config, SPACING_MM), seed)
    brain = Volume(np.isin(labels.array, (*BRAIN, Tissue.CSF)), labels.affine, "mask")
    return extract_surface(head_mask(labels)).points, extract_surface(brain).points


def draw(seed: int, centre: np.ndarray) -> Transform:
    rng = np.random.default_rng(seed)
    axis, direction = (vector / np.linalg.norm(vector) for vector in rng.normal(size=(2, 3)))
    sheared = np.eye(3)
    sheared[np.triu_indices(3, 1)] = rng.uniform(-0.1, 0.1, 3)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec(np.deg2rad(20) * axis).as_matrix() @ np.diag(rng.uniform(0.85, 1.15, 3)) @ sheared
    affine[:3, 3] = centre - affine[:3, :3] @ centre + 30 * direction
    return Transform(affine)


def ours(fixed: np.ndarray, moving: np.ndarray, _: float) -> Transform:
    return match_points(fixed, moving, PointMatching(points=POINTS))


def by_default(fixed: np.ndarray, moving: np.ndarray, _: float) -> Transform:
    return match_points(fixed, moving)


def drift(fixed: np.ndarray, moving: np.ndarray, outliers: float) -> Transform:
    """In units in which the points have unit variance, as its authors have it: the share of outliers means nothing in others."""
    thin = [points[spread_evenly(points, POINTS)[0]] for points in (moving, fixed)]
    aim, middle = (points.mean(axis=0) for points in thin)
    scale = (thin[0] - aim).std()
    found = AffineRegistration(X=(thin[0] - aim) / scale, Y=(thin[1] - middle) / scale, w=outliers, max_iterations=MOST_ITERATIONS)
    _, (linear, offset) = found.register()
    affine = np.eye(4)
    affine[:3, :3] = linear.T
    affine[:3, 3] = aim + scale * np.ravel(offset) - linear.T @ middle
    return Transform(affine)


MATCHERS: dict[str, Match] = {f"transmodal, {POINTS} points": ours, "transmodal, by default": by_default, f"pycpd, {POINTS} points": drift}
# Which part of the moving points has no counterpart.
CASES = {"whole": 0.0, "noise and outliers": 0.3, "half of fixed": 0.5, "half of moving": 0.0}


def pair(case: str, skin: np.ndarray, true: Transform, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng, fixed, moving = np.random.default_rng(seed), skin[::2], true.apply(skin[1::2])
    if case == "noise and outliers":
        stray = rng.uniform(moving.min(axis=0) - 20, moving.max(axis=0) + 20, (int(len(moving) * 3 / 7), 3))
        return fixed, np.concatenate([moving + rng.normal(0, 1, moving.shape), stray])
    axis, side = seed % 3, 1 - 2 * (seed // 3 % 2)
    if case == "half of fixed":
        return half(fixed, axis, side), moving
    return (fixed, half(moving, axis, side)) if case == "half of moving" else (fixed, moving)


def half(points: np.ndarray, axis: int, side: int) -> np.ndarray:
    return points[side * (points[:, axis] - (points[:, axis].min() + points[:, axis].max()) / 2) > 0]


def known_transforms(skin: np.ndarray, rounds: int) -> None:
    print("| case | matched by | error, median mm | 90th percentile | below 2 mm | s | time, of pycpd's |\n|---|---|---|---|---|---|---|")
    for case, outliers in CASES.items():
        errors: dict[str, list[float]] = {name: [] for name in MATCHERS}
        seconds: dict[str, list[float]] = {name: [] for name in MATCHERS}
        for seed in range(rounds):
            true = draw(seed, skin.mean(axis=0))
            fixed, moving = pair(case, skin, true, seed)
            for name, match in MATCHERS.items():
                start = time.perf_counter()
                found = match(fixed, moving, outliers)
                seconds[name].append(time.perf_counter() - start)
                errors[name].append(float(np.linalg.norm(found.apply(skin) - true.apply(skin), axis=1).mean()))
        theirs = seconds[f"pycpd, {POINTS} points"]
        for name in MATCHERS:
            ratio = statistics.median(mine / other for mine, other in zip(seconds[name], theirs, strict=True))
            off = np.array(errors[name])
            print(
                f"| {case} | {name} | {np.median(off):.2f} | {np.quantile(off, 0.9):.2f} | {(off < 2).sum()} of {rounds} "
                f"| {statistics.median(seconds[name]):.2f} | {ratio:.2f} |"
            )


def different_heads(brains: list[np.ndarray]) -> None:
    print("\n| heads | centres of gravity, mm | matched, mm | s |\n|---|---|---|---|")
    for first, second in itertools.combinations(range(len(brains)), 2):
        fixed, moving = brains[first], brains[second]
        still = np.eye(4)
        still[:3, 3] = moving.mean(axis=0) - fixed.mean(axis=0)
        start = time.perf_counter()
        found = match_points(fixed, moving)
        seconds = time.perf_counter() - start
        print(f"| {first}, {second} | {apart(Transform(still), fixed, moving):.2f} | {apart(found, fixed, moving):.2f} | {seconds:.2f} |")


def apart(found: Transform, fixed: np.ndarray, moving: np.ndarray) -> float:
    """Mean distance of the points of each surface from the nearest of the other, in mm."""
    there, back = cKDTree(moving).query(found.apply(fixed))[0], cKDTree(fixed).query(found.inverse().apply(moving))[0]
    return float((there.mean() + back.mean()) / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6, help="known transforms a case; six cut every side of the head once")
    rounds = parser.parse_args().rounds
    heads = [surfaces(seed) for seed in range(HEADS)]
    known_transforms(heads[0][0], rounds)
    different_heads([brain for _, brain in heads])


if __name__ == "__main__":
    main()
