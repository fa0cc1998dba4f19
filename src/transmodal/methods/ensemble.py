"""Several runs as one method: their mean, and how far they differ."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Shaped

from transmodal.contracts import Method
from transmodal.core.errors import ConfigError
from transmodal.core.jobs import HERE, Workers
from transmodal.core.volume import Volume, whole_hu
from transmodal.engine.moments import Moments
from transmodal.methods.runs import load_method


class Ensemble(Method):
    """The mean of what several methods make of a scan; of masks, the vote of at least half of them.

    Parameters
    ----------
    methods : sequence of Method
        That make the same of the same.

    Raises
    ------
    ConfigError
        If they do not.
    """

    def __init__(self, methods: Sequence[Method]) -> None:
        first = methods[0]
        self.methods, self.product, self.opinions = tuple(methods), first.product, len(methods)
        self.uses_brain = any(method.uses_brain for method in methods)
        self.directions = tuple(direction for direction in first.directions if all(direction in m.directions for m in methods))
        if not self.directions or any(method.product != self.product for method in methods):
            raise ConfigError("--model: the runs do not make the same thing; give runs of one direction, all of images or all of masks")

    def with_brain(self, mask: Volume) -> Method:
        """The same, with those told of it that use it."""
        return Ensemble([method.with_brain(mask) if method.uses_brain else method for method in self.methods])

    def synthesize(self, scan: Volume) -> Volume:
        """The mean of the methods, on the scan's own grid."""
        return _average(method.synthesize(scan) for method in self.methods)[0]

    def synthesize_with_uncertainty(self, scan: Volume) -> tuple[Volume, Volume]:
        """The same, and a standard deviation: of masks, over the votes of 0 and 1; of images, over all opinions of all methods.

        Its square is the variance between the methods and the mean of their own, by the law of total variance.
        """
        if self.product == "bone":
            return _average(method.synthesize(scan) for method in self.methods)
        own = Moments()
        mean, between = _average(_noting_variance(method, scan, own) for method in self.methods)
        return mean, between.with_array(np.sqrt(between.array**2 + own.mean))

    def cycle(self, scan: Volume) -> Volume:
        """The mean of the scans that each method makes again from its own result."""
        return _average(method.cycle(scan) for method in self.methods)[0]


def load_ensemble(folders: Sequence[Path], device: torch.device, workers: Workers = HERE) -> Method:
    """The method of one run, or the ensemble of several.

    Raises
    ------
    ConfigError
        If a run turns no scan into another, or not all make the same thing; see `load_method` for the rest.
    """
    methods = [load_method(folder, device, workers) for folder in folders]
    for folder, method in zip(folders, methods, strict=True):
        if not method.directions:
            raise ConfigError(f"--model {folder}: it turns no scan into another; the images that it makes are in {folder / 'previews'}")
    return Ensemble(methods) if len(methods) > 1 else methods[0]


def _noting_variance(method: Method, scan: Volume, variances: Moments) -> Volume:
    result, sd = method.synthesize_with_uncertainty(scan)
    variances.add(np.asarray(sd.array, dtype=np.float32) ** 2)
    return result


def _average(results: Iterable[Volume]) -> tuple[Volume, Volume]:
    """The mean of volumes of one modality on one grid, as such a volume, and their standard deviation."""
    found, volume = Moments(), None
    for volume in results:
        found.add(np.asarray(volume.array, dtype=np.float32))
    assert volume is not None, "there is at least one method"
    mean = volume.with_array(found.mean)
    return mean.with_array(_as_modality(mean)), volume.with_array(found.sd, "uncertainty")


def _as_modality(mean: Volume) -> Shaped[np.ndarray, "x y z"]:
    """A mean as what it is a mean of: integer HU, or a mask."""
    values: Float[np.ndarray, "x y z"] = mean.array
    if mean.modality == "mask":
        return values >= 0.5
    return whole_hu(values) if mean.modality == "ct" else values
