"""Statistics over cases."""

import statistics
from collections.abc import Iterable

from transmodal.core.config import Config


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
