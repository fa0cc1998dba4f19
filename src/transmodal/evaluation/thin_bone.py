"""What becomes of thin bone and of sutures, which a synthetic CT loses first, and whose loss the other numbers hardly show.

How thick bone is at a point of its surface is the diameter of the largest ball within it that touches the surface there (as Hildebrand
and Rüegsegger, J Microsc 1997;185:67, define the thickness of a structure). Of a plate that is its thickness, of a rod its diameter.
"""

import numpy as np
from jaxtyping import Bool, Float

from transmodal.core.volume import Volume
from transmodal.evaluation import metrics
from transmodal.evaluation.metrics import Mask
from transmodal.evaluation.protocol import Case, Found, MetricNote, Protocol, ProtocolNote
from transmodal.evaluation.surface import BONE_HU, TOLERANCE_MM, BoneSurface, bone_surface, deviation_mm
from transmodal.imaging.triangles import nearest, vertex_areas_mm2, vertex_normals

THIN_MM = 2.0
# How deep a triangulated, noisy surface may reach into the ball before the ball does not fit.
_SLACK_MM = 0.2


def thin_points(bone: BoneSurface, thin_mm: float = THIN_MM) -> Bool[np.ndarray, " n"]:
    """Find the points of a surface at which the bone below is thinner than `thin_mm`.

    A ball is laid under each point, along the normal, and does not fit if the surface reaches into it. Its centre is a tenth of a mm
    deeper and its radius a tenth smaller than half of `thin_mm`: on the other side of a plate that comes to the same, and on this
    side the surface may be rough.

    Parameters
    ----------
    bone : BoneSurface
        Where mask and grid cut it, it is taken to go on as it is. A point there that is of no whole face has no normal, and is not thin.
    thin_mm : float
        At least 0.5.

    Returns
    -------
    ndarray of bool, shape (n,)
        Also true where the bone has an edge sharper than the ball.
    """
    normals = vertex_normals(bone.uncut)
    centers = bone.surface.points - (thin_mm + _SLACK_MM) / 2 * normals
    return normals.any(axis=1) & (nearest(centers, bone.uncut)[0] < (thin_mm - _SLACK_MM) / 2)


def thin_voxels(bone: Volume, surface: BoneSurface, thin: Bool[np.ndarray, " n"]) -> Mask:
    """Choose the voxels of a mask of bone whose nearest measured point of the surface is among those marked in `thin`."""
    from scipy.spatial import KDTree

    voxels = np.argwhere(bone.array)
    near = np.asarray(KDTree(surface.surface.points[surface.measured]).query(bone.grid.to_world(voxels.astype(np.float64)))[1])
    result = np.zeros(bone.shape, dtype=bool)
    result[tuple(voxels[thin[surface.measured][near]].T)] = True
    return result


def _thin_bone(case: Case) -> Found:
    true = bone_surface(case.reference, case.mask)
    if true is None:
        return {metric.name: "the true CT has no bone inside the mask" for metric in _METRICS}
    bone, found = (case.inside & _is_bone(image) for image in (case.reference, case.prediction))
    thin = thin_points(true)
    thin_bone = thin_voxels(case.reference.with_array(bone, "mask"), true, thin)
    areas_mm2 = vertex_areas_mm2(true.uncut)[true.measured]
    missing, thin = _missing(case, true), thin[true.measured]
    return {
        "recall_thin_bone": metrics.recall(thin_bone, found),
        "recall_thick_bone": metrics.recall(bone & ~thin_bone, found),
        "missing_bone": _share(missing, areas_mm2),
        "missing_thin_bone": _share(missing[thin], areas_mm2[thin]),
        "thin_share": np.count_nonzero(thin_bone) / np.count_nonzero(bone),
    }


def _is_bone(image: Volume) -> Mask:
    return np.asarray(image.array > (0 if image.modality == "mask" else BONE_HU))


def _missing(case: Case, true: BoneSurface) -> Bool[np.ndarray, " n"]:
    """Which measured points of the true surface have no synthetic bone within 2 mm."""
    synthetic, points = bone_surface(case.prediction, case.mask), true.surface.points[true.measured]
    return np.ones(len(points), dtype=bool) if synthetic is None else deviation_mm(points, synthetic) > TOLERANCE_MM


def _share(marked: Bool[np.ndarray, " n"], areas_mm2: Float[np.ndarray, " n"]) -> float:
    """The share of the area that is marked; NaN where there is none."""
    return float(np.average(marked, weights=areas_mm2)) if areas_mm2.any() else float("nan")


_NO_THIN = f"the true bone is nowhere thinner than {THIN_MM:g} mm"
_METRICS = (
    MetricNote(name="recall_thin_bone", label="Recall, thin bone", unit="", better="higher", undefined=_NO_THIN),
    MetricNote(
        name="recall_thick_bone",
        label="Recall, thick bone",
        unit="",
        better="higher",
        undefined=f"the true bone is everywhere thinner than {THIN_MM:g} mm",
    ),
    MetricNote(name="missing_bone", label="Missing bone", unit="", better="lower", undefined="no face of the true bone is inside the mask"),
    MetricNote(name="missing_thin_bone", label="Missing thin bone", unit="", better="lower", undefined=_NO_THIN),
)
THIN_BONE = Protocol(
    ProtocolNote(
        name="thin-bone",
        title="Thin bone",
        modality="ct",
        mask=f"bone of the true CT inside the mask, thin where no ball of {THIN_MM:g} mm fits in below its surface; missing is "
        f"the share of its surface without synthetic bone within {TOLERANCE_MM:g} mm",
        clip=f"none; bone above {BONE_HU:g} HU",
        metrics=_METRICS,
    ),
    _thin_bone,
    takes_masks=True,
)
