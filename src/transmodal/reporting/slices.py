"""Slices of a case in three planes: source, true image, synthetic image and signed error, in radiological convention."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Shaped

from transmodal.core.volume import Modality, Volume
from transmodal.imaging.grid import canonical
from transmodal.reporting.figures import to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAPER, INK = "black", "#c3cbd6"
# Wide enough to tell air from tissue and to see into bone.
CT_WINDOW_HU = (-600.0, 1400.0)
# Dark at zero, so that the eye goes to the errors, and told apart with any colour vision (Crameri et al. 2020).
ERROR_MAP = "berlin"
_ROUND_LIMITS = (1, 2, 5, 10, 20, 50, 100, 150, 200, 300, 400, 500, 700, 1000, 1500, 2000, 3000, 4000)
_MARGIN_MM = 8.0
_INCHES_PER_MM = 0.0125
_BAR_MM = 44.0
_TITLE_MM = 22.0
_DPI = 100

Plane = Shaped[np.ndarray, "_rows _columns"]
Inside = Bool[np.ndarray, "_rows _columns"]
Box = tuple[slice, slice, slice]
Area = tuple[float, float, float, float]


@dataclass(frozen=True)
class CaseImages:
    """What is shown of a case: volumes on one grid; `source` is None where it is not at hand."""

    source: Volume | None
    reference: Volume
    prediction: Volume
    mask: Volume


@dataclass(frozen=True)
class Column:
    """One column of panels: a slice of each view, what black and white stand for (None: left to the figure), and their unit."""

    title: str
    planes: tuple[Plane, ...]
    limits: tuple[float, float] | None
    unit: str


@dataclass(frozen=True)
class CaseSlices:
    """The slices of a case, cut to the head.

    Parameters
    ----------
    columns : tuple of Column
    insides : tuple of ndarray of bool
        The mask in each view.
    sizes_mm : tuple of (width, height)
        Of each view.
    mean_error : float
        Mean absolute error inside the mask; 0 where it is empty.
    """

    columns: tuple[Column, ...]
    insides: tuple[Inside, ...]
    sizes_mm: tuple[tuple[float, float], ...]
    mean_error: float


@dataclass(frozen=True)
class _View:
    """A plane: the axis it cuts (0, 1, 2 for x, y, z of RAS+), whether its columns are mirrored, and the letters at its edges."""

    axis: int
    mirrored: bool
    left: str
    right: str
    top: str
    bottom: str


# Radiological convention: the patient's right is on the viewer's left, and a sagittal head looks to the left.
_VIEWS = (
    _View(2, True, "R", "L", "A", "P"),
    _View(1, True, "R", "L", "S", "I"),
    _View(0, True, "A", "P", "S", "I"),
)


def cut_slices(images: CaseImages) -> CaseSlices:
    """Cut axial, coronal and sagittal slices through the centre of mass of the mask (of the image, where the mask is empty)."""
    mask = canonical(images.mask)
    inside = mask.array > 0
    box, centre = _frame(mask)
    reference, prediction = canonical(images.reference), canonical(images.prediction)
    error = reference.with_array(prediction.array.astype(np.float32) - reference.array)

    def cut(array: Shaped[np.ndarray, "x y z"]) -> tuple[Plane, ...]:
        return tuple(_cut(array, view, box, centre[view.axis]) for view in _VIEWS)

    name, unit = reference.modality.upper(), _unit(reference.modality)
    limits = _window(reference, mask)
    columns = [
        Column(name, cut(reference.array), limits, unit),
        Column(f"Synthetic {name}", cut(prediction.array), limits, unit),
        Column(f"Error (synthetic − true {name})", cut(error.array), None, unit),
    ]
    if images.source is not None:
        source = canonical(images.source)
        columns.insert(0, Column(source.modality.upper(), cut(source.array), _window(source, mask), _unit(source.modality)))
    return CaseSlices(
        columns=tuple(columns),
        insides=cut(inside),
        sizes_mm=tuple(_size_mm(view, box, mask.spacing) for view in _VIEWS),
        mean_error=float(np.abs(error.array[inside]).mean()) if inside.any() else 0.0,
    )


def error_limit(cases: Sequence[CaseSlices]) -> float:
    """Choose one colour scale for all cases of a report: a round number of at least three times the largest mean absolute error."""
    largest = 3 * max((case.mean_error for case in cases), default=0.0)
    return float(next((limit for limit in _ROUND_LIMITS if limit >= largest), np.ceil(largest / 1000) * 1000))


def slice_figure(case: CaseSlices, limit: float) -> bytes:
    """Draw the slices, a row a view, with colour bars.

    Parameters
    ----------
    case : CaseSlices
    limit : float
        The end of the colour scale of the error, in the unit of the images.

    Returns
    -------
    bytes
        PNG. The error is shown inside the mask only, whose outline is drawn.
    """
    from matplotlib.figure import Figure

    width = max(size[0] for size in case.sizes_mm) + _MARGIN_MM
    total = (width * len(case.columns), sum(size[1] for size in case.sizes_mm) + _TITLE_MM + _BAR_MM)
    figure = Figure(figsize=(total[0] * _INCHES_PER_MM, total[1] * _INCHES_PER_MM), facecolor=PAPER)
    for position, column in enumerate(case.columns):
        left = position * width
        limits = column.limits or (-limit, limit)
        image = None
        for row, area in enumerate(_areas(case, left, width, total[1])):
            axes = figure.add_axes(_fractions(area, total), facecolor=PAPER)
            image = _panel(axes, column.planes[row], limits, case.insides[row] if column.limits is None else None)
            _letters(axes, _VIEWS[row])
        figure.text((left + width / 2) / total[0], 1 - 0.6 * _TITLE_MM / total[1], column.title, color="white", ha="center", fontsize=10)
        _bar(figure, image, column.unit, _fractions((left + 0.12 * width, 0.6 * _BAR_MM, 0.76 * width, 0.11 * _BAR_MM), total))
    return to_png(figure, _DPI)


def _areas(case: CaseSlices, left: float, width: float, top: float) -> Iterator[Area]:
    """Left, bottom, width and height in mm of the panels of a column, from the top down."""
    top -= _TITLE_MM
    for panel_width, height in case.sizes_mm:
        top -= height
        yield left + (width - panel_width) / 2, top, panel_width, height


def _fractions(area: Area, total: tuple[float, float]) -> Area:
    left, bottom, width, height = area
    return left / total[0], bottom / total[1], width / total[0], height / total[1]


def _unit(modality: Modality) -> str:
    return "HU" if modality == "ct" else "arbitrary units"


def _window(volume: Volume, mask: Volume) -> tuple[float, float]:
    if volume.modality == "ct":
        return CT_WINDOW_HU
    inside = volume.array[mask.array > 0]
    return (float(np.percentile(inside, 0.5)), float(np.percentile(inside, 99.5))) if inside.size else (0.0, 1.0)


def _frame(mask: Volume) -> tuple[Box, tuple[int, int, int]]:
    """Find the box around the mask with a margin, and the voxel at its centre of mass; the whole image for an empty mask."""
    inside = np.argwhere(mask.array > 0)
    if not inside.size:
        inside = np.array([(0, 0, 0), [n - 1 for n in mask.shape]])
    margin = np.ceil(_MARGIN_MM / np.array(mask.spacing)).astype(int)
    low = np.maximum(inside.min(axis=0) - margin, 0)
    high = np.minimum(inside.max(axis=0) + 1 + margin, mask.shape)
    x, y, z = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    i, j, k = (int(n) for n in np.rint(inside.mean(axis=0)))
    return (x, y, z), (i, j, k)


def _size_mm(view: _View, box: Box, spacing: tuple[float, float, float]) -> tuple[float, float]:
    width, height = ((box[axis].stop - box[axis].start) * spacing[axis] for axis in range(3) if axis != view.axis)
    return width, height


def _cut(array: Shaped[np.ndarray, "x y z"], view: _View, box: Box, index: int) -> Plane:
    """Copy the slice as it is looked at: first row at the top, first column at the left."""
    where: list[Any] = list(box)
    where[view.axis] = index
    plane = array[tuple(where)].T[::-1]
    return (plane[:, ::-1] if view.mirrored else plane).copy()


def _panel(axes: "Axes", plane: Plane, limits: tuple[float, float], inside: Inside | None) -> Any:
    """Draw a grey image, or (given the mask) an error in colours inside the mask."""
    rows, columns = plane.shape
    if inside is None:
        shown, colours = plane, "gray"
    else:
        shown, colours = np.ma.masked_where(~inside, plane), ERROR_MAP
        if inside.any() and not inside.all():
            axes.contour(inside, levels=[0.5], colors=[INK], linewidths=0.6)
    image = axes.imshow(shown, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto", interpolation="nearest")
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    axes.set_axis_off()
    return image


def _letters(axes: "Axes", view: _View) -> None:
    for x, y, letter in ((0.02, 0.5, view.left), (0.98, 0.5, view.right), (0.5, 0.97, view.top), (0.5, 0.03, view.bottom)):
        axes.text(x, y, letter, transform=axes.transAxes, color=INK, fontsize=8, ha="center", va="center")


def _bar(figure: "Figure", image: Any, unit: str, area: Area) -> None:
    bar = figure.colorbar(image, cax=figure.add_axes(area), orientation="horizontal", extend="both")
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.ax.tick_params(colors=INK, labelsize=8, length=2)
    bar.ax.locator_params(nbins=5)
    bar.set_label(unit, color=INK, fontsize=8, labelpad=1)
