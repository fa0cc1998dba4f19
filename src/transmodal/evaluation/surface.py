"""How far the bone surface of a synthetic CT is from that of the true one.

The Light_U-Net paper takes the nearest point of the other surface for each point of one, as a signed distance, and reports mean, range,
standard deviation and interquartile range over all points, and the share within 2 mm, which is clinically acceptable. What it leaves
open is settled in docs/bone.md.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from jaxtyping import Bool, Float

from transmodal.core.volume import Volume, require_same_grid
from transmodal.evaluation.metrics import Mask
from transmodal.evaluation.protocol import Case, Found, MetricNote, Protocol, ProtocolNote
from transmodal.evaluation.tissue import Tissues
from transmodal.imaging.grid import AIR_HU
from transmodal.imaging.surface import Surface, closed_surface
from transmodal.imaging.triangles import Points, nearest, signed_distances, without_specks

BONE_HU = Tissues().bone_hu
TOLERANCE_MM = 2.0
# Less than a surface keeps from a voxel, and more than its coordinates are wrong by, in voxels.
_ON_VOXEL = 1e-5


@dataclass(frozen=True, eq=False)
class BoneSurface:
    """The surface of the bone inside a mask.

    Parameters
    ----------
    surface : Surface
        Closed: what is beyond the mask, or the grid, counts as air.
    measured : ndarray of bool, shape (n,)
        The points that are of the bone: all voxels around each are in the mask. The others are where the mask or the grid cuts it.
    """

    surface: Surface
    measured: Bool[np.ndarray, " n"]

    @cached_property
    def whole(self) -> Bool[np.ndarray, " m"]:
        """The faces of which all three points are measured."""
        return np.all(self.measured[self.surface.faces], axis=1)

    @cached_property
    def uncut(self) -> Surface:
        """The surface that is measured to: the whole faces, and as faces without area the measured points that are of none."""
        faces, alone = self.surface.faces[self.whole], self.measured.copy()
        alone[faces] = False
        return Surface(self.surface.points, np.concatenate([faces, np.repeat(np.flatnonzero(alone)[:, None], 3, axis=1)]))


@dataclass(frozen=True, eq=False)
class Deviations:
    """Signed distances in mm between two bone surfaces, positive wherever the synthetic bone reaches beyond the true one.

    Parameters
    ----------
    sct_to_ct : ndarray, shape (n,)
        From each measured point of the synthetic surface to the true one.
    ct_to_sct : ndarray, shape (m,)
        From each measured point of the true surface to the synthetic one.
    """

    sct_to_ct: Float[np.ndarray, " n"]
    ct_to_sct: Float[np.ndarray, " m"]


def bone_surface(image: Volume, mask: Volume, threshold_hu: float = BONE_HU, least_mm3: float = 0.0) -> BoneSurface | None:
    """Lay a surface around the bone of a CT.

    Parameters
    ----------
    image : Volume
        A true or synthetic CT; or a mask of bone, whose surface then has the steps of its voxels.
    mask : Volume
        Where bone is looked for, on the same grid. What is outside has no influence.
    threshold_hu : float
        The surface lies where the HU, linear between the voxels, are just this.
    least_mm3 : float
        Pieces and cavities of less volume are left out.

    Returns
    -------
    BoneSurface or None
        None where no bone is inside the mask.

    Raises
    ------
    GeometryError
        If the two do not lie on one grid.
    DataError
        If no piece is as large as `least_mm3`.
    """
    require_same_grid(image.grid, mask.grid, "the image", "the mask")
    inside = np.asarray(mask.array > 0)
    level, outside = (0.5, 0.0) if image.modality == "mask" else (threshold_hu, AIR_HU)
    seen = image.with_array(np.where(inside, np.asarray(image.array, dtype=np.float32), np.float32(outside)))
    if not (seen.array > level).any():
        return None
    surface = closed_surface(seen, level)
    if least_mm3 > 0:
        surface = without_specks(surface, least_mm3)
    measured = _surrounded(image.grid.to_voxel(surface.points), inside)
    return BoneSurface(surface, measured) if measured.any() else None


def _surrounded(points: Points, inside: Mask) -> Bool[np.ndarray, " n"]:
    """Whether all voxels around each point, of which a point on an edge of the grid has two, are inside; those beyond the grid are not."""
    padded = np.pad(inside, 1)
    ends = np.floor(points + _ON_VOXEL).astype(int) + 1, np.ceil(points - _ON_VOXEL).astype(int) + 1
    around = [tuple(ends[end][:, axis] for axis, end in enumerate(corner)) for corner in product((0, 1), repeat=3)]
    return np.all([padded[corner] for corner in around], axis=0)


def deviation_mm(points: Points, bone: BoneSurface) -> Float[np.ndarray, " n"]:
    """Signed distances of points to the surface of bone, positive outside of the bone.

    Distances are to the uncut surface; on which side a point is, the closed one tells.
    """
    deviation, faces = signed_distances(points, bone.surface)
    at_cut = ~bone.whole[faces]
    if at_cut.any():
        deviation[at_cut] = np.copysign(nearest(points[at_cut], bone.uncut)[0], deviation[at_cut])
    return deviation


def compare_surfaces(synthetic: BoneSurface, true: BoneSurface) -> Deviations:
    """Measure both ways between the bone of a synthetic and of the true CT."""
    return Deviations(
        sct_to_ct=deviation_mm(synthetic.surface.points[synthetic.measured], true),
        # A true point outside of the synthetic bone is where that falls short.
        ct_to_sct=-deviation_mm(true.surface.points[true.measured], synthetic),
    )


def surface_statistics(deviations: Deviations) -> dict[str, float]:
    """What the paper reports, each way, and what is the same both ways.

    Returns
    -------
    dict
        ``hd95_mm``, the greater of the 95th percentiles of the distances each way; ``assd_mm``, the mean distance over the points of
        both; ``within_2mm``, the share of them in [0, 1]. Then, after ``sct_to_ct_`` and ``ct_to_sct_``, of the signed distances:
        ``mean_mm``, ``sd_mm``, ``min_mm``, ``max_mm``, ``iqr_mm`` and ``within_2mm``.
    """
    ways = {"sct_to_ct": deviations.sct_to_ct, "ct_to_sct": deviations.ct_to_sct}
    distances = {way: np.abs(signed) for way, signed in ways.items()}
    both = np.concatenate(list(distances.values()))
    result = {
        "hd95_mm": max(float(np.percentile(distance, 95)) for distance in distances.values()),
        "assd_mm": float(both.mean()),
        "within_2mm": float(np.mean(both <= TOLERANCE_MM)),
    }
    for way, signed in ways.items():
        result |= {f"{way}_{name}": value for name, value in _one_way(signed).items()}
    return result


def _one_way(signed: Float[np.ndarray, " n"]) -> dict[str, float]:
    first, third = np.percentile(signed, (25, 75))
    return {
        "mean_mm": float(signed.mean()),
        "sd_mm": float(signed.std()),
        "min_mm": float(signed.min()),
        "max_mm": float(signed.max()),
        "iqr_mm": float(third - first),
        "within_2mm": float(np.mean(np.abs(signed) <= TOLERANCE_MM)),
    }


def _surface(case: Case) -> Found:
    synthetic, true = bone_surface(case.prediction, case.mask), bone_surface(case.reference, case.mask)
    if synthetic is None or true is None:
        lacking = "the true CT has" if true is None else "the prediction has"
        return {metric.name: f"{lacking} no bone inside the mask" for metric in _METRICS}
    return surface_statistics(compare_surfaces(synthetic, true))


def _one_way_notes(way: str, words: str) -> tuple[MetricNote, ...]:
    return (
        MetricNote(name=f"{way}_mean_mm", label=f"Mean, {words}", unit="mm", better="zero"),
        MetricNote(name=f"{way}_sd_mm", label=f"SD, {words}", unit="mm", better="lower"),
        MetricNote(name=f"{way}_min_mm", label=f"Least, {words}", unit="mm", better="zero"),
        MetricNote(name=f"{way}_max_mm", label=f"Greatest, {words}", unit="mm", better="zero"),
        MetricNote(name=f"{way}_iqr_mm", label=f"IQR, {words}", unit="mm", better="lower"),
        MetricNote(name=f"{way}_within_2mm", label=f"Within 2 mm, {words}", unit="", better="higher"),
    )


_METRICS = (
    MetricNote(name="hd95_mm", label="HD95", unit="mm", better="lower"),
    MetricNote(name="assd_mm", label="Mean distance", unit="mm", better="lower"),
    MetricNote(name="within_2mm", label="Within 2 mm", unit="", better="higher"),
    *_one_way_notes("sct_to_ct", "synthetic to true"),
    *_one_way_notes("ct_to_sct", "true to synthetic"),
)
SURFACE = Protocol(
    ProtocolNote(
        name="surface",
        title="Bone surface",
        modality="ct",
        mask="points of either bone surface with all voxels around them inside the mask; what is outside counts as air",
        clip=f"none; bone above {BONE_HU:g} HU; distances are positive where the synthetic bone reaches beyond the true one",
        metrics=_METRICS,
    ),
    _surface,
    takes_masks=True,
)
