"""Charts: one small figure a metric, drawn once for a light page and once for a dark one."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from transmodal.evaluation.protocol import MetricNote
from transmodal.reporting.curves import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Under this many values a box says less than the points.
_LEAST_FOR_BOX = 5
_FONTS = ["DejaVu Sans"]


@dataclass(frozen=True)
class Theme:
    """Colours of a chart: text and axes, faint lines, lines that are told apart with any colour vision, and a map of few to many."""

    ink: str
    faint: str
    lines: tuple[str, ...]
    density: str

    @property
    def first(self) -> str:
        """The colour of what there is only one of."""
        return self.lines[0]

    @property
    def second(self) -> str:
        """The colour of what stands beside it."""
        return self.lines[1]


LIGHT = Theme("#414a57", "#d9dee5", ("#0b6e99", "#c2570c", "#5b3f9e", "#3d7a2c", "#a8326e", "#6b5b1e"), "viridis_r")
DARK = Theme("#b6c0cc", "#353c46", ("#5cb8e0", "#f0a35e", "#b6a3f0", "#93d07e", "#f08cbf", "#d9c56a"), "viridis")
_DASHES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Chart:
    """One chart as two SVG files."""

    light: bytes
    dark: bytes


def strip_chart(metric: MetricNote, groups: Sequence[tuple[str, Sequence[float]]]) -> Chart:
    """Every case as a point, with a box from the first to the third quartile and a line at the median.

    Parameters
    ----------
    metric : MetricNote
    groups : sequence of (name, values)
        One strip a method; names are shown where there are several.
    """
    return draw_chart((1.7 + 0.6 * (len(groups) - 1), 2.5), lambda axes, theme: _strips(axes, metric, groups, theme))


def curve_chart(name: str, curves: dict[str, Curve]) -> Chart:
    """One metric along the training: ``train`` as a line, ``validation`` as points on a line."""
    return draw_chart((4.6, 2.6), lambda axes, theme: _curves(axes, name, curves, theme))


def line_style(theme: Theme, number: int) -> dict[str, Any]:
    """Colour and dashes of the line with this number, so that neither alone tells it from the others."""
    return {"color": theme.lines[number % len(theme.lines)], "linestyle": _DASHES[number % len(_DASHES)]}


def draw_chart(inches: tuple[float, float], draw: Callable[["Axes", Theme], None]) -> Chart:
    """Draw a figure of one panel, once for each theme."""
    return Chart(_draw(inches, draw, LIGHT), _draw(inches, draw, DARK))


def to_png(figure: "Figure", dpi: int) -> bytes:
    """Encode the figure as PNG, without a date or the version of the program in it."""
    stream = io.BytesIO()
    figure.savefig(
        stream, format="png", dpi=dpi, facecolor=figure.get_facecolor(), metadata={"Software": None}, pil_kwargs={"optimize": True}
    )
    return stream.getvalue()


def to_jpeg(figure: "Figure", dpi: int) -> bytes:
    """Encode the figure as JPEG, a fifth of the size of a PNG where noise fills the picture."""
    stream = io.BytesIO()
    figure.savefig(stream, format="jpg", dpi=dpi, facecolor=figure.get_facecolor(), pil_kwargs={"quality": 85, "optimize": True})
    return stream.getvalue()


def _draw(inches: tuple[float, float], draw: Callable[["Axes", Theme], None], theme: Theme) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {"svg.hashsalt": "transmodal", "font.size": 8, "font.family": _FONTS, "axes.unicode_minus": True, "text.parse_math": False}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=inches, layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(theme.faint)
        axes.tick_params(colors=theme.ink, length=2)
        axes.locator_params(axis="y", nbins=5)
        axes.grid(axis="y", color=theme.faint, linewidth=0.6)
        axes.set_axisbelow(True)
        draw(axes, theme)
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def _strips(axes: "Axes", metric: MetricNote, groups: Sequence[tuple[str, Sequence[float]]], theme: Theme) -> None:
    for position, (_, values) in enumerate(groups):
        _strip(axes, position, np.asarray(values, dtype=np.float64), theme)
    if metric.better == "zero":
        axes.axhline(0, color=theme.ink, linewidth=0.8)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    names = [name for name, _ in groups] if len(groups) > 1 else []
    axes.set_xticks(range(len(names)), names)
    axes.set_title(f"{metric.label} ({metric.unit})" if metric.unit else metric.label, color=theme.ink, fontsize=9, wrap=True)


def _strip(axes: "Axes", position: int, values: np.ndarray, theme: Theme) -> None:
    if not values.size:
        return
    if values.size >= _LEAST_FOR_BOX:
        low, high = np.percentile(values, (25, 75))
        axes.bar(position, high - low, 0.5, bottom=low, color=theme.first, alpha=0.16, linewidth=0)
    axes.hlines(np.median(values), position - 0.25, position + 0.25, color=theme.first, linewidth=1.6)
    offsets = np.random.default_rng(0).uniform(-0.14, 0.14, values.size)
    axes.scatter(position + offsets, values, s=11, color=theme.first, alpha=0.75, linewidths=0)


def _curves(axes: "Axes", name: str, curves: dict[str, Curve], theme: Theme) -> None:
    for split, curve in curves.items():
        validation = split == "validation"
        axes.plot(
            curve.steps,
            curve.values,
            color=theme.second if validation else theme.first,
            marker="o" if validation else None,
            markersize=3,
            linewidth=1.2,
            label=split,
        )
    axes.set_xlabel("step", color=theme.ink)
    axes.set_title(name, color=theme.ink, fontsize=9)
    axes.legend(frameon=False, labelcolor=theme.ink)
