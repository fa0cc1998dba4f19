"""Whether a stated uncertainty is true: how often the error stays within it, and whether it is large where the error is."""

from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from transmodal.core.errors import DataError
from transmodal.evaluation.protocol import EMPTY_MASK, Case, Companion, Found, MetricNote, Protocol, ProtocolNote


def half_width(level: float) -> float:
    """Half the width of the central interval that holds a share `level` of a normal distribution, in standard deviations."""
    return NormalDist().inv_cdf((1 + level) / 2)


def spearman_r(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> float:
    """Spearman's rank correlation, in [-1, 1]; NaN where there are under two values or all of one are the same."""
    from scipy.stats import rankdata

    if first.size < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1].clip(-1, 1))


def _uncertainty(case: Case) -> Found:
    if not case.inside.any():
        return {metric.name: EMPTY_MASK for metric in _METRICS}
    sd = case.companions["prediction", "uncertainty"].array[case.inside].astype(np.float64)
    if sd.min() < 0:
        raise DataError(f"the uncertainty of the synthetic CT is {sd.min():g} HU in a voxel; a standard deviation is not below 0")
    error = np.abs(case.prediction.array[case.inside].astype(np.float64) - case.reference.array[case.inside])
    covered_68, covered_95 = (float(np.mean(error <= half_width(level) * sd)) for level in (0.68, 0.95))
    return {
        "coverage_excess_68": covered_68 - 0.68,
        "coverage_excess_95": covered_95 - 0.95,
        "width_95_hu": 2 * half_width(0.95) * float(sd.mean()),
        "spearman_r": spearman_r(sd, error),
        "coverage_68": covered_68,
        "coverage_95": covered_95,
    }


_METRICS = (
    MetricNote(name="coverage_excess_68", label="Coverage of the 68 % interval, less 0.68", unit="", better="zero"),
    MetricNote(name="coverage_excess_95", label="Coverage of the 95 % interval, less 0.95", unit="", better="zero"),
    MetricNote(name="width_95_hu", label="Mean width of the 95 % interval", unit="HU", better="lower"),
    MetricNote(
        name="spearman_r",
        label="Rank correlation with the error",
        unit="",
        better="higher",
        undefined="the uncertainty or the error is the same in every voxel of the mask",
    ),
)
UNCERTAINTY = Protocol(
    ProtocolNote(
        name="uncertainty",
        title="Stated uncertainty",
        modality="ct",
        mask="inside the mask",
        clip="none; the intervals are those of a normal distribution around the synthetic CT",
        metrics=_METRICS,
    ),
    _uncertainty,
    companions=(Companion("uncertainty", "uncertainty", of="prediction"),),
)
