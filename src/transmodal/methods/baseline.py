"""What any method must beat: synthetic CTs that know almost nothing.

``constant`` gives the whole head the one value with the least mean absolute error over the training subjects, their median.
``threshold`` divides the MR inside the head into three classes by Otsu's two thresholds (bone and air are both dark) and gives each
class the median HU that it has in the training subjects.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Integer, Shaped
from skimage.filters import threshold_multiotsu

from transmodal.contracts import FittedMethod
from transmodal.core.config import Config
from transmodal.core.errors import CheckpointError
from transmodal.core.volume import Volume
from transmodal.data.store import Dataset
from transmodal.engine.predict import Setting, place_result, prepare_source

CLASSES = {"constant": 1, "threshold": 3}
HISTOGRAM_BINS = 256


class BaselineSettings(Config):
    """The ``[method]`` table of a baseline recipe."""

    name: Literal["baseline"] = "baseline"
    kind: Literal["constant", "threshold"] = "constant"


class Baseline(FittedMethod):
    """One median per class of source intensity.

    Parameters
    ----------
    settings : BaselineSettings
    setting : Setting
        Direction and preparation.
    """

    Settings = BaselineSettings

    def __init__(self, settings: BaselineSettings, setting: Setting) -> None:
        self.settings, self.setting = settings, setting
        self.directions = (setting.direction,)
        self._medians = np.zeros(CLASSES[settings.kind], dtype=np.float32)

    def fit(self, dataset: Dataset, subjects: Sequence[str]) -> None:
        """Take the median target value of each class over all voxels of all subjects."""
        source, target = self.setting.source, self.setting.target
        values: list[list[np.ndarray]] = [[] for _ in self._medians]
        for subject in subjects:
            inside = dataset.read_all(subject, f"{source}_mask") > 0
            labels = self._classify(dataset.read_all(subject, source)[inside].astype(np.float32))
            targets = dataset.read_all(subject, target)[inside].astype(np.float32)
            for k, collected in enumerate(values):
                collected.append(targets[labels == k])
        self._medians = np.array([np.median(np.concatenate(collected)) for collected in values], dtype=np.float32)

    def state(self) -> dict[str, Shaped[np.ndarray, "..."]]:
        """The medians."""
        return {"medians": self._medians}

    def load_state(self, state: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
        """Take back the medians; `CheckpointError` if they are not those of so many classes."""
        medians = state.get("medians", np.empty(0))
        if medians.shape != self._medians.shape:
            raise CheckpointError(f"the weights belong to another architecture: medians of {self._medians.size} classes are wanted")
        self._medians = np.asarray(medians, dtype=np.float32)

    def synthesize(self, scan: Volume) -> Volume:
        """The class medians, on the scan's own grid."""
        prepared = prepare_source(scan, self.setting)
        values = np.zeros(prepared.volume.shape, dtype=np.float32)
        inside = prepared.mask.array
        values[inside] = self._medians[self._classify(prepared.volume.array[inside])]
        return place_result(values, prepared, scan, self.setting.target)

    def _classify(self, values: Float[np.ndarray, " n"]) -> Integer[np.ndarray, " n"]:
        """Class number of each intensity; clipped at the 99.5th percentile, so that a few bright voxels do not take a class."""
        if self.settings.kind == "constant":
            return np.zeros(values.shape, dtype=np.int64)
        clipped = np.minimum(values, np.percentile(values, 99.5))
        return np.digitize(clipped, threshold_multiotsu(clipped, classes=CLASSES["threshold"], nbins=HISTOGRAM_BINS))
