"""Statistics over cases: summaries, intervals, and whether two methods differ by more than chance."""

import math
import statistics
import warnings
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float

from transmodal.core.config import Config

TOO_FEW = "fewer than two values"
TOO_FEW_TO_RESAMPLE = "fewer than five values, of which there are too few different samples"
NO_SPREAD = "all values are the same"
NO_DIFFERENCE = "the two are the same in every case"
CONSTANT_DIFFERENCE = "the difference is the same in every case"

LEVEL = 0.95
_RESAMPLES = 9999
# Of four values there are only 35 different samples to draw, of five 126.
_LEAST_RESAMPLED = 5
# Differences closer together than this share of the largest one are the same but for rounding.
_ROUNDING = 1e-12


class Summary(Config):
    """One metric over the cases.

    Parameters
    ----------
    cases : int
        How many values went in.
    left_out : int
        How many cases have no value.
    mean, sd, median : float or None
        None where too few values went in: one for mean and median, two for the standard deviation (of a sample, n − 1).
    """

    cases: int
    left_out: int
    mean: float | None
    sd: float | None
    median: float | None


def summarize(values: Iterable[float | None]) -> Summary:
    """Mean, standard deviation (n − 1) and median of the values that are not None."""
    given = list(values)
    kept = [value for value in given if value is not None]
    return Summary(
        cases=len(kept),
        left_out=len(given) - len(kept),
        mean=statistics.fmean(kept) if kept else None,
        sd=statistics.stdev(kept) if len(kept) > 1 else None,
        median=statistics.median(kept) if kept else None,
    )


class Interval(Config):
    """Where a quantity lies with a confidence of 95 %, or why that cannot be said."""

    low: float | None = None
    high: float | None = None
    reason: str = ""


def mean_interval(values: Sequence[float]) -> Interval:
    """The interval of the mean by Student's t: mean ± t(0.975, n − 1) s / √n.

    Parameters
    ----------
    values : sequence of float
        Finite, and independent of one another.
    """
    from scipy.stats import t

    if len(values) < 2:
        return Interval(reason=TOO_FEW)
    if _is_constant(np.asarray(values, dtype=np.float64)):
        return Interval(reason=NO_SPREAD)
    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return Interval(low=mean - half, high=mean + half)


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> Interval:
    """The interval of the mean by the bootstrap, bias-corrected and accelerated (BCa; Efron, JASA 1987), of 9999 resamples.

    Parameters
    ----------
    values : sequence of float
        Finite, and independent of one another; at least five.
    seed : int
        The same seed gives the same interval.
    """
    from scipy.stats import bootstrap

    if len(values) < _LEAST_RESAMPLED:
        return Interval(reason=TOO_FEW_TO_RESAMPLE)
    array = np.asarray(values, dtype=np.float64)
    if _is_constant(array):
        return Interval(reason=NO_SPREAD)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of samples that leave no interval, which are told by a NaN as well
        options = {"confidence_level": LEVEL, "n_resamples": _RESAMPLES, "method": "BCa", "rng": np.random.default_rng(seed)}
        found = bootstrap((array,), np.mean, **options).confidence_interval
    low, high = float(found.low), float(found.high)
    if not (math.isfinite(low) and math.isfinite(high)):
        return Interval(reason="the values are too few or too much alike for a bootstrap")
    return Interval(low=low, high=high)


class PairedComparison(Config):
    """Two methods on the same cases: first minus second.

    Parameters
    ----------
    cases : int
    difference : float or None
        The mean of the differences.
    interval : Interval
        Of that mean, by Student's t.
    bootstrap : Interval
        Of that mean, by the bootstrap.
    p_t : float or None
        Of the paired t test, two-sided.
    p_wilcoxon : float or None
        Of the Wilcoxon signed-rank test, two-sided, exact for up to 50 cases without ties. Cases without a difference are left out of it.
    cohen_dz : float or None
        Effect size: the mean of the differences over their standard deviation (n − 1).
    rank_biserial : float or None
        Effect size, from −1 to 1: the share of the sum of ranks that is positive less the share that is negative (Kerby 2014).
    reasons : dict
        Why a number is None, by its name.
    """

    cases: int
    difference: float | None = None
    interval: Interval = Interval()
    bootstrap: Interval = Interval()
    p_t: float | None = None
    p_wilcoxon: float | None = None
    cohen_dz: float | None = None
    rank_biserial: float | None = None
    reasons: dict[str, str] = {}


_OF_THE_MEAN, _OF_RANKS = ("p_t", "cohen_dz"), ("p_wilcoxon", "rank_biserial")


def compare(first: Sequence[float], second: Sequence[float], seed: int = 0) -> PairedComparison:
    """Test whether two methods differ on the cases that both have done, and measure by how much.

    Parameters
    ----------
    first, second : sequence of float
        One value a case, in the same order; the cases must be independent of one another.
    seed : int
        Of the bootstrap.
    """
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    values = [float(value) for value in differences]
    if len(values) < 2:
        lacking = dict.fromkeys((*_OF_THE_MEAN, *_OF_RANKS), TOO_FEW)
        none = Interval(reason=TOO_FEW)
        return PairedComparison(cases=len(values), difference=values[0] if values else None, interval=none, bootstrap=none, reasons=lacking)
    reasons: dict[str, str] = {}
    if _is_constant(differences):
        reasons |= dict.fromkeys(_OF_THE_MEAN, CONSTANT_DIFFERENCE)
    if not differences.any():
        reasons = dict.fromkeys((*_OF_THE_MEAN, *_OF_RANKS), NO_DIFFERENCE)
    return PairedComparison(
        cases=len(values),
        difference=statistics.fmean(values),
        interval=mean_interval(values),
        bootstrap=bootstrap_interval(values, seed=seed),
        **({} if "p_t" in reasons else _by_means(differences)),
        **({} if "p_wilcoxon" in reasons else _by_ranks(differences)),
        reasons=reasons,
    )


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p values for there being many, so that none is below α by chance with a probability above α (Holm 1979).

    Those that are None are of no test, and stay None.
    """
    from statsmodels.stats.multitest import multipletests

    known = [p for p in p_values if p is not None]
    adjusted = iter(np.asarray(multipletests(known, method="holm")[1]) if known else ())
    return [None if p is None else float(next(adjusted)) for p in p_values]


def _is_constant(values: Float[np.ndarray, " n"]) -> bool:
    return bool(np.ptp(values) <= _ROUNDING * np.abs(values).max())


def _by_means(differences: Float[np.ndarray, " n"]) -> dict[str, float]:
    from scipy.stats import ttest_1samp

    return {
        "p_t": float(ttest_1samp(differences, 0.0).pvalue),  # pyright: ignore[reportAttributeAccessIssue]
        "cohen_dz": float(differences.mean() / differences.std(ddof=1)),
    }


def _by_ranks(differences: Float[np.ndarray, " n"]) -> dict[str, float]:
    from scipy.stats import rankdata, wilcoxon

    changed = differences[differences != 0]
    ranks = rankdata(np.abs(changed))
    return {
        "p_wilcoxon": float(wilcoxon(changed).pvalue),  # pyright: ignore[reportAttributeAccessIssue]
        "rank_biserial": float((ranks * np.sign(changed)).sum() / ranks.sum()),
    }
