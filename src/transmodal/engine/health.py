"""Is an adversarial training well? Numbers that tell as it trains, and what they mean in words.

The losses of a GAN do not say whether it learns: discriminators that have won give generators nothing to follow, and a generator can
make the same image of everything, or anatomy of its own that it takes back in the cycle. Each of these shows in a number of its own.
"""

import math
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from transmodal.losses.adversarial import Adversarial, Scores

# A score this near to its target leaves no more than a twentieth of the loss's slope.
_NEAR = 0.05
# Rows of the log that a judgement is made of; fewer say nothing.
WINDOW = 10
# Sides, in pixels, to which images are shrunk before their diversity is measured, and their edges: anatomy, not noise.
_THUMBNAIL, _OUTLINE = 16, 24
# Slopes, in network units a pixel, that count as none.
_FLAT = 0.02
_EPSILON = 1e-6

# In ``benchmarks/gan_health.py``, accuracies of 1 came with saturations from 0.5 on, collapsed generators had no diversity, and the edges
# of drifting ones, whose cycles were within 0.1, fell to 0.60. Sound trainings there, and of ``benchmarks/mrgan_ablation.py``, with its
# window of the brain, had accuracies up to 0.8, saturations up to 0.3, diversities from 0.8 on and edges from 0.71 on.
_WON_ACCURACY, _WON_SATURATION = 0.98, 0.5
_COLLAPSED_DIVERSITY = 0.2
_GOOD_CYCLE, _DRIFTED_EDGES = 0.1, 0.65

Images = Float[Tensor, "b 1 h w"]


def discriminator_health(name: str, kind: Adversarial, real: Scores, synthetic: Scores) -> dict[str, Tensor]:
    """How well a discriminator tells real from synthetic.

    Parameters
    ----------
    name : str
        Of the discriminator.
    kind : {"least_squares", "cross_entropy", "wasserstein"}
    real, synthetic : Tensor
        Its scores, or logits.

    Returns
    -------
    dict
        ``<name>_accuracy_real`` and ``<name>_accuracy_synthetic``: the shares of scores on the right side of one half.
        ``<name>_saturation``: the share of scores within 0.05 of what they should be. Of a critic, which has neither,
        ``<name>_distance``: by how much it scores real images higher.
    """
    real, synthetic = real.detach().float(), synthetic.detach().float()
    if kind == "wasserstein":
        return {f"{name}_distance": real.mean() - synthetic.mean()}
    if kind == "cross_entropy":
        real, synthetic = real.sigmoid(), synthetic.sigmoid()
    near = ((real - 1).abs() < _NEAR).float().mean() + (synthetic.abs() < _NEAR).float().mean()
    return {
        f"{name}_accuracy_real": (real > 0.5).float().mean(),
        f"{name}_accuracy_synthetic": (synthetic < 0.5).float().mean(),
        f"{name}_saturation": near / 2,
    }


class ImageHealth:
    """Watches what one generator makes.

    Parameters
    ----------
    name : str
        Of the generator.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._last: dict[str, Tensor] = {}

    @torch.no_grad()
    def measure(self, source: Images | None, synthetic: Images, real: Images, cycled: Images | None = None) -> dict[str, Tensor]:
        """Compare synthetic images with their sources and with real images, which may be of others.

        Parameters
        ----------
        source : Tensor, shape (b, 1, h, w), optional
            Where synthetic images are made of others.
        synthetic, real : Tensor, shape (b, 1, h, w)
        cycled : Tensor, shape (b, 1, h, w), optional
            The sources that another generator made of the synthetic images.

        Returns
        -------
        dict
            ``<name>_diversity``: how much synthetic images differ from one another, as a share of how much real ones do.
            ``<name>_histogram_distance``: the mean difference of their sorted intensities, in network units.
            ``<name>_edges``: the correlation of the edges of source and synthetic image, 0.7 to 0.85 where they lie at the same places.
            ``<name>_cycle``: the mean absolute error of the sources that were made again, in network units.
        """
        synthetic, real = synthetic.detach().float(), real.float()
        spread = self._differences("synthetic", synthetic) / self._differences("real", real).clamp(min=_EPSILON)
        found = {
            f"{self.name}_diversity": spread,
            f"{self.name}_histogram_distance": (_sorted(synthetic) - _sorted(real)).abs().mean(),
        }
        if source is not None:
            found[f"{self.name}_edges"] = _correlation(_edges(source.float()), _edges(synthetic))
        if source is not None and cycled is not None:
            found[f"{self.name}_cycle"] = (cycled.detach().float() - source.float()).abs().mean()
        return found

    def state(self) -> dict[str, Tensor]:
        """The last images, shrunk, that the next ones are compared with."""
        return {f"{self.name}_{kind}": image for kind, image in self._last.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        self._last = {kind: state[f"{self.name}_{kind}"] for kind in ("synthetic", "real") if f"{self.name}_{kind}" in state}

    def _differences(self, kind: str, images: Images) -> Float[Tensor, ""]:
        """Mean absolute difference between each image and the one before it, of this batch or the last."""
        small = adaptive_avg_pool2d(images, _THUMBNAIL)
        before = self._last.get(kind, small[:1]).to(small.device)
        self._last[kind] = small[-1:]
        return torch.cat([before, small]).diff(dim=0).abs().mean()


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a training: a short name of it, and a sentence on what it is and what to do."""

    kind: str
    message: str


def judge(means: Mapping[str, float]) -> list[Finding]:
    """What the means of logged metrics over some steps tell.

    Parameters
    ----------
    means : dict
        Metric to mean, with the names that `discriminator_health` and `ImageHealth` give.
    """
    findings = []
    for name in _having(means, "_saturation"):
        accuracy = min(means[f"{name}_accuracy_real"], means[f"{name}_accuracy_synthetic"])
        if accuracy > _WON_ACCURACY and means[f"{name}_saturation"] > _WON_SATURATION:
            findings.append(_won(name, accuracy, means[f"{name}_saturation"]))
    for name in _having(means, "_diversity"):
        if means[f"{name}_diversity"] < _COLLAPSED_DIVERSITY:
            findings.append(_collapsed(name, means[f"{name}_diversity"]))
        cycle, edges = means.get(f"{name}_cycle", math.inf), means.get(f"{name}_edges", math.inf)
        if cycle < _GOOD_CYCLE and edges < _DRIFTED_EDGES:
            findings.append(_drifted(name, cycle, edges))
    return findings


class HealthWatch:
    """Looks at every row of the training log, and tells of each fault once, when it has lasted for `WINDOW` rows."""

    def __init__(self) -> None:
        self._rows: deque[Mapping[str, float]] = deque(maxlen=WINDOW)
        self._told: set[str] = set()

    def look(self, row: Mapping[str, float]) -> list[Finding]:
        """Add a row; return what is wrong and was not told before."""
        self._rows.append(row)
        if len(self._rows) < WINDOW:
            return []
        new = [finding for finding in judge(mean_rows(self._rows)) if finding.kind not in self._told]
        self._told |= {finding.kind for finding in new}
        return new


def mean_rows(rows: Collection[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric over the rows that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    values = {name: [row[name] for row in rows if name in row] for name in names}
    return {name: sum(found) / len(found) for name, found in values.items()}


def _won(name: str, accuracy: float, saturation: float) -> Finding:
    return Finding(
        f"{name} has won",
        f"{name} has won: it knows {accuracy:.0%} of real and synthetic images, {saturation:.0%} of its scores are final, and the "
        "generator has nothing left to learn from it. Give it a lower learning rate or fewer iterations, or more weight to other losses",
    )


def _collapsed(name: str, diversity: float) -> Finding:
    return Finding(
        f"{name} has collapsed",
        f"{name} has collapsed: its images differ from one another by {diversity:.0%} of what real images do. It makes the same of "
        "everything; begin again with a lower learning rate, or more weight to the cycle",
    )


def _drifted(name: str, cycle: float, edges: float) -> Finding:
    return Finding(
        f"{name} drifts",
        f"{name} drifts: the cycle comes back to within {cycle:.3f}, but edges of source and synthetic image correlate by {edges:.2f} "
        "only. The anatomy is hidden in the image, not shown; do not trust its images, however real they look",
    )


def _having(means: Mapping[str, float], suffix: str) -> list[str]:
    """The networks that have a metric of this ending."""
    return [name.removesuffix(suffix) for name in means if name.endswith(suffix)]


def _sorted(images: Images) -> Float[Tensor, " n"]:
    """Intensities in order; of large images, those on a grid."""
    step = max(1, images.shape[-1] // 64)
    return images[..., ::step, ::step].flatten().sort().values


def _edges(images: Images) -> Float[Tensor, "b 1 y x"]:
    """The logarithm of the slope, of images shrunk to their outlines: modalities share the place of an edge more than its strength."""
    small = adaptive_avg_pool2d(images, _OUTLINE)
    across, down = small.diff(dim=-1)[..., :-1, :], small.diff(dim=-2)[..., :-1]
    return ((across.square() + down.square()).sqrt() + _FLAT).log()


def _correlation(first: Tensor, second: Tensor) -> Float[Tensor, ""]:
    """Pearson's coefficient over all pixels; 0 where one is constant."""
    a, b = first - first.mean(), second - second.mean()
    return (a * b).mean() / (a.square().mean() * b.square().mean()).sqrt().clamp(min=_EPSILON)
