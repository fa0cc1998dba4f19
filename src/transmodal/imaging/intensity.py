"""From a scanner's units to a network's and back.

A *setting* (`WindowIntensity`, `ZScoreIntensity`, `PercentileIntensity`) says how; fitted to the `IntensityStatistics` of one scan
it becomes an `IntensityMap`, which is the clipped straight line that is applied, inverted, and stored in the run.
"""

from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float, Real
from pydantic import Field, model_validator

from transmodal.core.config import Config
from transmodal.core.errors import DataError
from transmodal.core.volume import Volume

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
    """The straight line y = (x - shift) / scale, with x clipped to [lower, upper] first where they are given.

    Parameters
    ----------
    shift, scale : float
        In the scan's units; `scale` is positive.
    lower, upper : float, optional
        In the scan's units.
    """

    shift: float
    scale: float = Field(gt=0)
    lower: float | None = None
    upper: float | None = None

    def forward(self, values: Real[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Scanner units to network units, as float32."""
        values = np.asarray(values, dtype=np.float32)
        if self.lower is not None or self.upper is not None:
            values = np.clip(values, self.lower, self.upper)
        return (values - np.float32(self.shift)) / np.float32(self.scale)

    def inverse(self, values: Real[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Network units to scanner units, as float32; what lies outside [lower, upper] is clipped to it."""
        values = np.asarray(values, dtype=np.float32) * np.float32(self.scale) + np.float32(self.shift)
        if self.lower is not None or self.upper is not None:
            values = np.clip(values, self.lower, self.upper)
        return values


class WindowIntensity(Config):
    """Fixed window in the scan's own units, such as HU, to [-1, 1]: the same for every scan."""

    kind: Literal["window"] = "window"
    lower: float
    upper: float

    @model_validator(mode="after")
    def _ordered(self) -> "WindowIntensity":
        if self.lower >= self.upper:
            raise ValueError(f"lower ({self.lower:g}) must be less than upper ({self.upper:g})")
        return self

    def fit(self, statistics: IntensityStatistics) -> IntensityMap:
        """The map, which does not depend on the scan."""
        return _between(self.lower, self.upper)


class ZScoreIntensity(Config):
    """Subtract the mean and divide by the standard deviation inside the mask; no clipping."""

    kind: Literal["zscore"] = "zscore"

    def fit(self, statistics: IntensityStatistics) -> IntensityMap:
        """The map of the scan that has these statistics."""
        return IntensityMap(shift=statistics.mean, scale=statistics.sd)


class PercentileIntensity(Config):
    """Two percentiles inside the mask to [-1, 1], clipped: robust to bright vessels and spikes."""

    kind: Literal["percentile"] = "percentile"
    lower: float = Field(default=0.5, ge=0, le=100)
    upper: float = Field(default=99.5, ge=0, le=100)

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
        return _between(low, high)


Intensity = Annotated[WindowIntensity | ZScoreIntensity | PercentileIntensity, Field(discriminator="kind")]


def _between(lower: float, upper: float) -> IntensityMap:
    return IntensityMap(shift=(lower + upper) / 2, scale=(upper - lower) / 2, lower=lower, upper=upper)
