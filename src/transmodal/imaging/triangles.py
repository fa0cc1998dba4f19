"""Geometry of surfaces of triangles: normals, areas, pieces, and the exact distance of points to them."""

from itertools import chain

import numpy as np
from jaxtyping import Float, Int

from transmodal.core.errors import DataError
from transmodal.imaging.surface import Surface

Points = Float[np.ndarray, "n 3"]

# How many points are looked at together: tens of megabytes of triangles near them, and some hundred where the surface is far away.
_AT_ONCE = 1 << 12
# More than distances are wrong by for the digits of a number.
_ROUNDING_MM = 1e-9


def face_normals(surface: Surface) -> Float[np.ndarray, "m 3"]:
    """The unit normal of each face, outwards; 0 for a face without area."""
    normals = _crosses(surface)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.finfo(np.float64).tiny)


def vertex_normals(surface: Surface) -> Points:
    """The outward unit normal at each point: the mean of those of its faces, weighted by their angles there; 0 for a point of no face."""
    corners = surface.points[surface.faces]
    ahead, behind = np.roll(corners, -1, axis=1) - corners, np.roll(corners, 1, axis=1) - corners
    angles = np.arctan2(np.linalg.norm(np.cross(ahead, behind), axis=2), (ahead * behind).sum(axis=2))
    weighted = angles[:, :, None] * face_normals(surface)[:, None]
    normals = np.stack([_gather(surface, weighted[:, :, axis]) for axis in range(3)], axis=1)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.finfo(np.float64).tiny)


def vertex_areas_mm2(surface: Surface) -> Float[np.ndarray, " n"]:
    """The share of each point in the area of the surface: a third of each of its faces, in mm²."""
    areas = np.linalg.norm(_crosses(surface), axis=1) / 6
    return _gather(surface, np.repeat(areas[:, None], 3, axis=1))


def volume_mm3(surface: Surface) -> float:
    """The volume that a closed surface holds, cavities left out, in mm³ (by the divergence theorem)."""
    return float(_cones_mm3(surface).sum())


def without_specks(surface: Surface, least_mm3: float) -> Surface:
    """Leave out small pieces of a closed surface, and the surfaces of small cavities.

    Parameters
    ----------
    surface : Surface
        Closed.
    least_mm3 : float
        Volume within a piece, or of a cavity, from which on it stays.

    Raises
    ------
    DataError
        If nothing is left.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(surface.points)
    along = (surface.faces.ravel(), np.roll(surface.faces, -1, axis=1).ravel())
    pieces, piece = connected_components(coo_array((np.ones(len(along[0]), bool), along), shape=(count, count)), directed=False)
    sizes = np.abs(np.bincount(piece[surface.faces[:, 0]], weights=_cones_mm3(surface), minlength=pieces))
    kept = (sizes >= least_mm3)[piece]
    if not kept.any():
        raise DataError(f"no piece of the surface holds {least_mm3:g} mm³, the largest {sizes.max():.3g} mm³; leave smaller pieces in")
    return Surface(surface.points[kept], (np.cumsum(kept) - 1)[surface.faces[kept[surface.faces[:, 0]]]])


def nearest(points: Points, surface: Surface) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Find the nearest face of a surface, exactly.

    The face whose centre is nearest gives a distance that can only be too great. A face is never nearer than its centre by more than the
    greatest distance of its corners from there, so the only others to look at are those whose centres are within that much more.

    Parameters
    ----------
    points : ndarray, shape (n, 3)
        RAS+ mm.
    surface : Surface
        Of at least one face.

    Returns
    -------
    distances_mm : ndarray, shape (n,)
        At least 0.
    faces : ndarray, shape (n,)
        Rows of ``surface.faces``.
    """
    from scipy.spatial import KDTree

    corners = surface.points[surface.faces]
    centers = corners.mean(axis=1)
    reaches = np.linalg.norm(corners - centers[:, None], axis=2).max(axis=1) + _ROUNDING_MM
    tree = KDTree(centers)
    faces = np.asarray(tree.query(points)[1], dtype=np.int64)
    distances = _distances(points, corners[faces])
    for start in range(0, len(points), _AT_ONCE):
        block = slice(start, start + _AT_ONCE)
        near = tree.query_ball_point(points[block], distances[block] + reaches.max(), return_sorted=False)
        rows = np.repeat(np.arange(len(near)), [len(found) for found in near]) + start
        candidates = np.fromiter(chain.from_iterable(near), dtype=np.int64, count=len(rows))
        may_be = np.linalg.norm(points[rows] - centers[candidates], axis=1) <= distances[rows] + reaches[candidates]
        rows, candidates = rows[may_be], candidates[may_be]
        apart = _distances(points[rows], corners[candidates])
        order = np.lexsort((apart, rows))
        found, first = np.unique(rows[order], return_index=True)
        faces[found], distances[found] = candidates[order[first]], apart[order[first]]
    return distances, faces


def signed_distances(points: Points, surface: Surface) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Distances to a closed surface: positive outside, negative inside.

    The side is that of the angle-weighted pseudonormal at the nearest point, which is right on edges and corners too (Bærentzen and Aanæs,
    IEEE TVCG 2005;11:243).

    Parameters
    ----------
    points : ndarray, shape (n, 3)
        RAS+ mm.
    surface : Surface
        Closed and oriented outwards, as `transmodal.imaging.surface.closed_surface` gives it.

    Returns
    -------
    distances_mm : ndarray, shape (n,)
    faces : ndarray, shape (n,)
        The nearest face of each, a row of ``surface.faces``.
    """
    distances, faces = nearest(points, surface)
    corners = surface.points[surface.faces[faces]]
    weights = _nearest_weights(points, corners)
    away = points - _blend(weights, corners)
    inside = (away * _pseudonormals(surface, faces, weights)).sum(axis=1) < 0
    return np.where(inside, -distances, distances), faces


def _pseudonormals(surface: Surface, faces: Int[np.ndarray, " n"], weights: Points) -> Points:
    """Normals of a closed surface at points of its faces: of the face, of the two faces at an edge, or at a corner of all around it."""
    normals, touching = face_normals(surface), weights > 0
    result = normals[faces]
    on_edge = np.flatnonzero(touching.sum(axis=1) == 2)
    across = _neighbours(surface, faces[on_edge], (touching[on_edge].argmin(axis=1) + 1) % 3)
    result[on_edge] += normals[across]
    on_corner = np.flatnonzero(touching.sum(axis=1) == 1)
    result[on_corner] = vertex_normals(surface)[surface.faces[faces[on_corner], touching[on_corner].argmax(axis=1)]]
    return result


def _neighbours(surface: Surface, faces: Int[np.ndarray, " n"], first: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The faces across an edge of each face, which begins at the corner `first`: there the edge runs the other way."""
    count = len(surface.points)
    edges = (surface.faces * np.int64(count) + np.roll(surface.faces, -1, axis=1)).ravel()
    order = np.argsort(edges)
    start, end = surface.faces[faces, first], surface.faces[faces, (first + 1) % 3]
    wanted = end * np.int64(count) + start
    found = order[np.minimum(np.searchsorted(edges, wanted, sorter=order), len(edges) - 1)]
    assert (edges[found] == wanted).all(), "an open surface has no inside"
    return found // 3


def _nearest_weights(points: Points, corners: Float[np.ndarray, "n 3 3"]) -> Points:
    """Find the barycentric weights of the point of each triangle that is nearest to a point.

    The squared distance is a quadratic form in the weights. It is least at the foot of the point, where that is in the triangle, and
    otherwise on one of the three edges, where one weight is exactly 0, or at a corner, where two are.
    """
    a, b, c = np.moveaxis(corners, 1, 0)
    u, v, w = b - a, c - a, points - a
    uu, uv, vv, uw, vw = (np.einsum("ni,ni->n", *pair) for pair in ((u, u), (u, v), (v, v), (u, w), (v, w)))
    on_ab, on_ac, on_bc = _share(uw, uu), _share(vw, vv), _share(uu - uv - uw + vw, uu - 2 * uv + vv)
    nothing = np.zeros_like(uu)
    edges = np.array([(1 - on_ab, on_ab, nothing), (1 - on_ac, nothing, on_ac), (nothing, 1 - on_bc, on_bc)])
    s, t = edges[:, 1], edges[:, 2]
    chosen = (s * (s * uu - 2 * uw + 2 * t * uv) + t * (t * vv - 2 * vw)).argmin(axis=0)
    weights = np.take_along_axis(edges, chosen[None, None], axis=0)[0]
    area = uu * vv - uv * uv
    foot = np.array([area - (vv * uw - uv * vw) - (uu * vw - uv * uw), vv * uw - uv * vw, uu * vw - uv * uw])
    within = (area > 0) & (foot >= 0).all(axis=0)
    return np.where(within, foot / np.where(area > 0, area, 1), weights).T


def _share(along: Float[np.ndarray, " n"], length2: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """How far along an edge the nearest point is, in [0, 1]; 0 on an edge without length."""
    return (along / np.where(length2 > 0, length2, 1)).clip(0, 1)


def _distances(points: Points, corners: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, " n"]:
    return np.linalg.norm(points - _blend(_nearest_weights(points, corners), corners), axis=1)


def _blend(weights: Points, corners: Float[np.ndarray, "n 3 3"]) -> Points:
    return np.einsum("nk,nki->ni", weights, corners)


def _gather(surface: Surface, values: Float[np.ndarray, "m 3"]) -> Float[np.ndarray, " n"]:
    """Sum the values at the corners of the faces up by point."""
    return np.bincount(surface.faces.ravel(), weights=values.ravel(), minlength=len(surface.points))


def _crosses(surface: Surface) -> Float[np.ndarray, "m 3"]:
    """Normals of the faces, twice as long as their areas."""
    a, b, c = np.moveaxis(surface.points[surface.faces], 1, 0)
    return np.cross(b - a, c - a)


def _cones_mm3(surface: Surface) -> Float[np.ndarray, " m"]:
    """The signed volume between each face and one point."""
    corners = surface.points[surface.faces] - surface.points.mean(axis=0)
    return (corners[:, 0] * np.cross(corners[:, 1], corners[:, 2])).sum(axis=1) / 6
