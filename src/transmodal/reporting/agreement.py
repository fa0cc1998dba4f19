"""Charts of how synthetic values agree with true ones: joint histogram, Bland-Altman plot, error along the true value."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from transmodal.evaluation.agreement import Agreement
from transmodal.reporting.figures import Chart, Theme, draw_chart, line_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SQUARE = (3.1, 2.9)
# Bins of the true value that a point of the error's curve holds, and the least share of all voxels that it is drawn for.
_WIDTH, _LEAST_SHARE = 4, 2e-5
# Halves of the range of the images that the differences of a Bland-Altman plot span.
_DIFFERENCE_BINS = 128


def joint_chart(found: Agreement, name: str, unit: str) -> Chart:
    """How often each true value comes with each synthetic one, on a logarithmic scale; on the diagonal they agree."""
    return draw_chart(_SQUARE, lambda axes, theme: _joint(axes, found, name, unit, theme))


def bland_altman_chart(found: Agreement, name: str, unit: str) -> Chart:
    """Difference over mean of the two values, with bias and limits of agreement (Bland and Altman, Lancet 1986;327:307)."""
    return draw_chart(_SQUARE, lambda axes, theme: _bland_altman(axes, found, name, unit, theme))


def error_chart(methods: Sequence[tuple[str, Agreement]], unit: str, absolute: bool) -> Chart:
    """Mean error, or mean absolute error, along the true value, a line a method."""
    return draw_chart((4.6, 2.9), lambda axes, theme: _errors(axes, methods, unit, absolute, theme))


def _joint(axes: "Axes", found: Agreement, name: str, unit: str, theme: Theme) -> None:
    _density(axes, found.counts.T, (found.edges[0], found.edges[-1]) * 2, theme)
    axes.axline((0, 0), slope=1, color=theme.ink, linewidth=0.6)
    axes.set_aspect("equal")
    axes.set_xlabel(f"true, {unit}", color=theme.ink)
    axes.set_ylabel(f"synthetic, {unit}", color=theme.ink)
    axes.set_title(name, color=theme.ink, fontsize=9)


def _bland_altman(axes: "Axes", found: Agreement, name: str, unit: str, theme: Theme) -> None:
    low, high = float(found.edges[0]), float(found.edges[-1])
    rows, columns = np.nonzero(found.counts)
    true, made = found.centers[rows], found.centers[columns]
    half = (high - low) / 2
    spans = ((low, high), (-half, half))
    density, _, _ = np.histogram2d((true + made) / 2, made - true, _DIFFERENCE_BINS, spans, weights=found.counts[rows, columns])
    _density(axes, density.T, (low, high, -half, half), theme)
    for value, style in ((found.bias, "-"), *((limit, "--") for limit in found.limits_of_agreement)):
        axes.axhline(value, color=theme.second, linewidth=1.1, linestyle=style)
        place = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
        axes.annotate(f"{value:+.0f}".replace("-", "−"), (1, value), color=theme.second, fontsize=7, **place)
    axes.set_xlabel(f"mean of both, {unit}", color=theme.ink)
    axes.set_ylabel(f"synthetic − true, {unit}", color=theme.ink)
    axes.set_title(name, color=theme.ink, fontsize=9)


def _density(axes: "Axes", counts: Any, extent: tuple[float, float, float, float], theme: Theme) -> None:
    from matplotlib.colors import LogNorm

    shown = np.ma.masked_equal(counts, 0)
    norm = LogNorm(vmin=1, vmax=max(float(counts.max()), 2))
    axes.imshow(shown, origin="lower", extent=extent, cmap=theme.density, norm=norm, aspect="auto", interpolation="nearest")
    axes.grid(visible=False)


def _errors(axes: "Axes", methods: Sequence[tuple[str, Agreement]], unit: str, absolute: bool, theme: Theme) -> None:
    for number, (name, found) in enumerate(methods):
        middles, errors, sizes = found.rebinned(_WIDTH)
        held = found.voxels.reshape(-1, _WIDTH).sum(axis=1)
        often = (held / held.sum() > _LEAST_SHARE)[held > 0]
        values = sizes if absolute else errors
        axes.plot(middles[often], values[often], linewidth=1.2, label=name, **line_style(theme, number))
    if not absolute:
        axes.axhline(0, color=theme.ink, linewidth=0.8)
    axes.set_xlabel(f"true value, {unit}", color=theme.ink)
    axes.set_title(f"{'Mean absolute error' if absolute else 'Mean error (bias)'}, {unit}", color=theme.ink, fontsize=9)
    if len(methods) > 1:
        axes.legend(frameon=False, labelcolor=theme.ink, fontsize=7)
