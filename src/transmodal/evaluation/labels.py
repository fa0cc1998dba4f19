"""Overlap and distance of structures in given label maps, such as a segmentor makes of the true and of the synthetic CT."""

import numpy as np
from jaxtyping import Bool
from scipy.ndimage import binary_erosion, find_objects
from scipy.spatial import KDTree

from transmodal.evaluation import metrics
from transmodal.evaluation.protocol import Case, Companion, Found, MetricNote, Protocol, ProtocolNote

OtherMask = Bool[np.ndarray, "i j k"]
Box = tuple[slice, ...]

_NO_LABELS = "neither label map has a label"
_IN_ONE = "only one of the label maps has this label"


def hd95_mm(first: OtherMask, second: OtherMask, spacing: tuple[float, float, float]) -> float:
    """95th percentile of the distances between the surfaces of two masks, the greater of the two directions.

    Parameters
    ----------
    first, second : ndarray of bool, shape (i, j, k)
    spacing : tuple of float
        Voxel size along each axis in mm.

    Returns
    -------
    float
        In mm, from a voxel of one surface to the nearest of the other, at their centres; a voxel belongs to the surface if it has a
        neighbour of the six that is outside the mask or the array. NaN where a mask is empty.
    """
    if not (first.any() and second.any()):
        return float("nan")
    one, other = (np.argwhere(mask & np.logical_not(binary_erosion(mask))) * np.array(spacing) for mask in (first, second))
    return max(float(np.percentile(KDTree(goal).query(points)[0], 95)) for points, goal in ((one, other), (other, one)))


def _labels(case: Case) -> Found:
    true, found = (case.companions[side, "labels"].array for side in ("reference", "prediction"))
    names = np.union1d(true, found)
    names = names[names > 0]
    ranks = [np.where(array > 0, np.searchsorted(names, array) + 1, 0) for array in (true, found)]
    dices: dict[str, float] = {}
    distances: dict[str, float | str] = {}
    for rank, boxes in enumerate(zip(*(find_objects(array, len(names)) for array in ranks), strict=True), start=1):
        near = _around([box for box in boxes if box is not None])
        first, second = (array[near] == rank for array in ranks)
        distance = hd95_mm(first, second, case.reference.spacing)
        dices[f"dice_{names[rank - 1]}"] = metrics.dice(first, second)
        distances[f"hd95_{names[rank - 1]}_mm"] = _IN_ONE if np.isnan(distance) else distance
    known = [distance for distance in distances.values() if not isinstance(distance, str)]
    return {
        "dice_mean": float(np.mean(list(dices.values()))) if dices else float("nan"),
        "hd95_mean_mm": float(np.mean(known)) if known else float("nan"),
        "labels_in_one": float(len(distances) - len(known)) if distances else float("nan"),
        **dices,
        **distances,
    }


def _around(boxes: list[Box]) -> Box:
    """The least box that holds them all."""
    return tuple(slice(min(side.start for side in sides), max(side.stop for side in sides)) for sides in zip(*boxes, strict=True))


LABELS = Protocol(
    ProtocolNote(
        name="labels",
        title="Structures of label maps",
        modality="ct",
        mask="every voxel of the two label maps; the mask is not used",
        clip="none; a label that only one of the maps has counts with a Dice of 0, and has no distance",
        metrics=(
            MetricNote(name="dice_mean", label="Dice, mean over labels", unit="", better="higher", undefined=_NO_LABELS),
            MetricNote(
                name="hd95_mean_mm", label="HD95, mean over labels", unit="mm", better="lower", undefined="no label is in both maps"
            ),
            MetricNote(name="labels_in_one", label="Labels in one map only", unit="", better="lower", undefined=_NO_LABELS),
        ),
    ),
    _labels,
    companions=(Companion("labels", "labels", of="both"),),
)
