"""Signed distances of simple solids: negative inside, in the unit of the coordinates.

Ellipsoids and smooth unions give first-order approximations, exact on the surface (Quilez, "Distance functions", 2008-2023).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

Distance: TypeAlias = Float[np.ndarray, "x y z"]
Points: TypeAlias = tuple[Distance, Distance, Distance]
# Written without decimal points, coordinates of anatomy are easier to read.
Number: TypeAlias = int | float
Triple: TypeAlias = tuple[Number, Number, Number]


def sphere(points: Points, center: Triple, radius: Number) -> Distance:
    """Exact signed distance to a sphere."""
    x, y, z = (p - np.float32(c) for p, c in zip(points, center, strict=True))
    return np.sqrt(x * x + y * y + z * z) - np.float32(radius)


def ellipsoid(points: Points, center: Triple, radii: Triple, exponent: Number = 2.0) -> Distance:
    """Approximate signed distance to an axis-aligned superellipsoid sum |x/r|^exponent = 1 (a plain ellipsoid for 2)."""
    scaled = [np.abs(p - np.float32(c)) * np.float32(1 / r) for p, c, r in zip(points, center, radii, strict=True)]
    if exponent == 2.0:
        level = np.sqrt(sum(s * s for s in scaled))
        slope = np.sqrt(sum((s * np.float32(1 / r)) ** 2 for s, r in zip(scaled, radii, strict=True)))
        return (level - np.float32(1)) * level / np.maximum(slope, np.float32(1e-6))
    raised = [s ** np.float32(exponent - 1) for s in scaled]
    total = sum(a * b for a, b in zip(raised, scaled, strict=True))
    level = np.asarray(total) ** np.float32(1 / exponent)
    slope = np.sqrt(sum((a * np.float32(1 / r)) ** 2 for a, r in zip(raised, radii, strict=True)))
    return (level - np.float32(1)) * level ** np.float32(exponent - 1) / np.maximum(slope, np.float32(1e-6))


def capsule(points: Points, start: Triple, end: Triple, radius: Number, end_radius: Number | None = None) -> Distance:
    """Signed distance to a rod with round ends, whose radius may change linearly from start to end."""
    along = np.subtract(end, start).astype(np.float32)
    offsets = [p - np.float32(c) for p, c in zip(points, start, strict=True)]
    position = np.clip(sum(o * a for o, a in zip(offsets, along, strict=True)) / np.float32(along @ along), 0, 1)
    distance = np.sqrt(sum((o - position * a) ** 2 for o, a in zip(offsets, along, strict=True)))
    return distance - np.float32(radius) - position * np.float32((radius if end_radius is None else end_radius) - radius)


def chain(points: Points, nodes: Sequence[Triple], radii: Sequence[Number]) -> Distance:
    """Union of the capsules between consecutive nodes."""
    result = capsule(points, nodes[0], nodes[1], radii[0], radii[1])
    for start, end, r0, r1 in zip(nodes[1:-1], nodes[2:], radii[1:-1], radii[2:], strict=True):
        result = np.minimum(result, capsule(points, start, end, r0, r1))
    return result


def arch(x: Distance, y: Distance, nodes: Sequence[tuple[Number, Number]]) -> tuple[Distance, Distance]:
    """Distance in a horizontal plane to a polyline, and the length along it of the nearest point.

    Parameters
    ----------
    x, y : ndarray
    nodes : sequence of (x, y)
        The polyline, from its start.
    """
    best = np.full(np.shape(x), np.inf, dtype=np.float32)
    arc = np.zeros(np.shape(x), dtype=np.float32)
    walked = 0.0
    for (ax, ay), (bx, by) in pairwise(nodes):
        length = float(np.hypot(bx - ax, by - ay))
        ux, uy = np.float32((bx - ax) / length), np.float32((by - ay) / length)
        dx, dy = x - np.float32(ax), y - np.float32(ay)
        position = np.clip(dx * ux + dy * uy, 0, np.float32(length))
        distance = np.hypot(dx - position * ux, dy - position * uy)
        arc = np.where(distance < best, position + np.float32(walked), arc)
        best = np.minimum(best, distance)
        walked += length
    return best, arc


def box(points: Points, center: Triple, half: Triple, rounding: Number = 0.0) -> Distance:
    """Exact signed distance to an axis-aligned box whose edges are rounded."""
    offsets = [np.abs(p - np.float32(c)) - np.float32(h - rounding) for p, c, h in zip(points, center, half, strict=True)]
    outside = np.sqrt(sum(np.maximum(o, 0) ** 2 for o in offsets))
    inside = np.minimum(np.maximum(np.maximum(offsets[0], offsets[1]), offsets[2]), 0)
    return outside + inside - np.float32(rounding)


def smooth_union(first: Distance, second: Distance, width: Number) -> Distance:
    """Union whose seam is rounded over about `width` (the quadratic polynomial minimum)."""
    blend = np.maximum(np.float32(width) - np.abs(first - second), 0)
    return np.minimum(first, second) - blend * blend * np.float32(0.25 / width)


def smooth_intersection(first: Distance, second: Distance, width: Number) -> Distance:
    """Intersection whose edge is rounded over about `width`."""
    return -smooth_union(-first, -second, width)
