"""From a scanner's units to a network's and back.

A *setting* (`WindowIntensity`, `ZScoreIntensity`, `PercentileIntensity`, `SliceIntensity`) says how; fitted to the
`IntensityStatistics` of one scan it becomes an `IntensityMap`, which is the clipped line that is applied and inverted.
"""

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float, Real
from pydantic import Field, model_validator

from transmodal.core.config import Config
from transmodal.core.errors import DataError
from transmodal.core.volume import Volume

# Nearer to the lower limit the slope of a power of more than 1 is taken to rise no further.
_LEAST_WAY = 1e-3
# Up to this one the percentiles of a head are those of air, bone and fluid.
_DARK = 10.0
PERCENTILES = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.9, 100.0)


class IntensityStatistics(Config):
    """The intensities of one scan inside its head mask.

    Parameters
    ----------
    mean, sd : float
        In the scan's own units.
    percentiles : tuple of float
        The values at `PERCENTILES`.
    """

    mean: float
    sd: float
    percentiles: tuple[float, ...]

    def percentile(self, q: float) -> float:
        """The value at percentile `q` (0 to 100), interpolated between those that are stored."""
        return float(np.interp(q, PERCENTILES, self.percentiles))

    @property
    def floor(self) -> float:
        """The value that much of what is dark has in common, as in scans that were cut off from below; without one, the least."""
        dark = [value for q, value in zip(PERCENTILES, self.percentiles, strict=True) if q <= _DARK]
        return max((low for low, high in pairwise(dark) if low == high), default=dark[0])


def measure(volume: Volume, mask: Volume) -> IntensityStatistics:
    """The statistics of `volume` inside `mask`.

    Raises
    ------
    DataError
        If the mask is empty, or the image is constant inside it.
    """
    values = volume.array[mask.array > 0].astype(np.float64)
    if values.size == 0:
        raise DataError("the head mask is empty; check the scan, or give a mask")
    if values.min() == values.max():
        raise DataError(f"every voxel inside the head mask is {values[0]:g}; the image is constant")
    levels = np.percentile(values, PERCENTILES)
    return IntensityStatistics(mean=float(values.mean()), sd=float(values.std()), percentiles=tuple(float(v) for v in levels))


class IntensityMap(Config):
    """The straight line y = (x - shift) / scale, with x clipped to [lower, upper], and bent between them, first where they are given.

    Parameters
    ----------
    shift, scale : float
        In the scan's units; `scale` is positive.
    lower, upper : float, optional
        In the scan's units.
    levels : int, optional
        Grey levels that [lower, upper] is rounded to.
    by_slice : bool
        Whether the whole range of each slice is stretched to [lower, upper] before.
    power : float
        Of where x lies between `lower` and `upper`, as a share of the way: what is less than 1 spreads out what is dark.
    """

    shift: float
    scale: float = Field(gt=0)
    lower: float | None = None
    upper: float | None = None
    levels: int | None = Field(default=None, ge=2)
    by_slice: bool = False
    power: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _has_limits(self) -> "IntensityMap":
        limited = self.lower is not None and self.upper is not None
        bare = self.lower is self.upper is self.levels is None and not self.by_slice and self.power == 1
        assert limited or bare, "there must be two limits, or nothing that needs them"
        return self

    def forward(self, values: Real[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Scanner units to network units, as float32; the last two axes are those of slices where that matters."""
        values = np.asarray(values, dtype=np.float32)
        if self.lower is not None and self.upper is not None:
            if self.by_slice:
                values = _stretch(values, self.lower, self.upper)
            values = _round(np.clip(values, self.lower, self.upper), self.lower, self.upper, self.levels)
            values = _bend(values, self.lower, self.upper, self.power)
        return (values - np.float32(self.shift)) / np.float32(self.scale)

    def inverse(self, values: Real[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Network units to scanner units, as float32; what lies outside [lower, upper] is clipped to it."""
        values = np.asarray(values, dtype=np.float32) * np.float32(self.scale) + np.float32(self.shift)
        if self.lower is not None and self.upper is not None:
            values = _bend(np.clip(values, self.lower, self.upper), self.lower, self.upper, 1 / self.power)
        return values

    def inverse_sd(self, sd: Float[np.ndarray, "..."], values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Standard deviations of network units around `values` as those of scanner units, to first order."""
        sd = np.asarray(sd, dtype=np.float32) * np.float32(self.scale)
        if self.power == 1 or self.lower is None or self.upper is None:
            return sd
        way = (self.scale * np.asarray(values, dtype=np.float32) + self.shift - self.lower) / (self.upper - self.lower)
        return sd * np.clip(way, _LEAST_WAY, 1) ** np.float32(1 / self.power - 1) / np.float32(self.power)


def _stretch(values: Float[np.ndarray, "*n h w"], lower: float, upper: float) -> Float[np.ndarray, "*n h w"]:
    """Each slice with its least value at `lower` and its greatest at `upper`; a constant slice is all `lower`."""
    least, most = values.min(axis=(-2, -1), keepdims=True), values.max(axis=(-2, -1), keepdims=True)
    return np.float32(lower) + (values - least) * (np.float32(upper - lower) / np.where(most > least, most - least, 1))


def _round(values: Float[np.ndarray, "..."], lower: float, upper: float, levels: int | None) -> Float[np.ndarray, "..."]:
    if levels is None:
        return values
    step = np.float32((upper - lower) / (levels - 1))
    return np.float32(lower) + np.round((values - np.float32(lower)) / step) * step


def _bend(values: Float[np.ndarray, "..."], lower: float, upper: float, power: float) -> Float[np.ndarray, "..."]:
    if power == 1:
        return values
    width = np.float32(upper - lower)
    return np.float32(lower) + width * np.clip((values - np.float32(lower)) / width, 0, 1) ** np.float32(power)


class LimitedIntensity(Config, ABC):
    """What all settings with two limits have in common.

    Parameters
    ----------
    onto : tuple of float
        Network units of the lower and of the upper limit.
    levels : int, optional
        Grey levels between them, as images of 8 bits have 256; none by default.
    """

    onto: tuple[float, float] = (-1.0, 1.0)
    levels: int | None = Field(default=None, ge=2)

    @model_validator(mode="after")
    def _rising(self) -> "LimitedIntensity":
        if self.onto[0] >= self.onto[1]:
            raise ValueError(f"onto ({self.onto[0]:g}, {self.onto[1]:g}): the first number must be less than the second")
        return self

    @abstractmethod
    def fit(self, statistics: IntensityStatistics) -> IntensityMap:
        """The map of the scan that has these statistics."""

    def _between(self, lower: float, upper: float, *, by_slice: bool = False, power: float = 1.0) -> IntensityMap:
        scale = (upper - lower) / (self.onto[1] - self.onto[0])
        shift = lower - self.onto[0] * scale
        return IntensityMap(shift=shift, scale=scale, lower=lower, upper=upper, levels=self.levels, by_slice=by_slice, power=power)


def _require_order(lower: float, upper: float) -> None:
    if lower >= upper:
        raise ValueError(f"lower ({lower:g}) must be less than upper ({upper:g})")


class WindowIntensity(LimitedIntensity):
    """Fixed window in the scan's own units, such as HU: the same for every scan."""

    kind: Literal["window"] = "window"
    lower: float
    upper: float

    @model_validator(mode="after")
    def _ordered(self) -> "WindowIntensity":
        _require_order(self.lower, self.upper)
        return self

    def fit(self, statistics: IntensityStatistics) -> IntensityMap:
        """The map, which does not depend on the scan."""
        return self._between(self.lower, self.upper)


class ZScoreIntensity(Config):
    """Subtract the mean and divide by the standard deviation inside the mask; no clipping."""

    kind: Literal["zscore"] = "zscore"

    def fit(self, statistics: IntensityStatistics) -> IntensityMap:
        """The map of the scan that has these statistics."""
        return IntensityMap(shift=statistics.mean, scale=statistics.sd)


class PercentileIntensity(LimitedIntensity):
    """Two percentiles inside the mask, clipped: robust to bright vessels and spikes.

    Where a scan was cut off from below, at a value that some hundredths of the head share, nothing is darker than that: a background that
    was blanked below it would tell the air in the head from the air around it.

    Parameters
    ----------
    lower, upper : float
        The percentiles.
    black_point : float
        Share of the way between their values, or from the floor to the upper one, up to which everything is as dark as what is darkest:
        the noise of air in a scan that has little of it.
    power : float
        See `IntensityMap`.
    """

    kind: Literal["percentile"] = "percentile"
    lower: float = Field(default=0.5, ge=0, le=100)
    upper: float = Field(default=99.5, ge=0, le=100)
    black_point: float = Field(default=0.0, ge=0, lt=1)
    power: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> "PercentileIntensity":
        _require_order(self.lower, self.upper)
        return self

    def fit(self, statistics: IntensityStatistics) -> IntensityMap:
        """The map of the scan that has these statistics.

        Raises
        ------
        DataError
            If both percentiles have the same value.
        """
        low, high = statistics.percentile(self.lower), statistics.percentile(self.upper)
        if low >= high:
            raise DataError(f"percentiles {self.lower:g} and {self.upper:g} inside the mask are both {low:g}; the image has no contrast")
        darkest = statistics.floor if low < statistics.floor < high else low
        return self._between(darkest + self.black_point * (high - darkest), high, power=self.power)


class SliceIntensity(LimitedIntensity):
    """The whole range of each slice, as the paper on Light_U-Net takes it for MRs; for slices that are seen whole."""

    kind: Literal["slice"] = "slice"

    def fit(self, statistics: IntensityStatistics) -> IntensityMap:
        """The map; backwards it gives the whole range of the scan that has these statistics."""
        return self._between(statistics.percentile(0), statistics.percentile(100), by_slice=True)


Intensity = Annotated[WindowIntensity | ZScoreIntensity | PercentileIntensity | SliceIntensity, Field(discriminator="kind")]
