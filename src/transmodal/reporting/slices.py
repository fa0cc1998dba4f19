"""Slices of a case in three planes: source, true image, synthetic image and signed error, in radiological convention."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from transmodal.core.volume import Volume
from transmodal.evaluation.metrics import mae
from transmodal.imaging.grid import canonical
from transmodal.reporting.figures import to_png
from transmodal.reporting.views import DPI, INK, Area, Cut, Inside, Plane, cut_through, make_sheet, outline, show_plane, unit_of, window

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Red where the synthetic image is too low (darker) and blue where it is too high, as the Light_U-Net paper draws differences; dark at
# zero, so that the eye goes to the errors, and told apart with any colour vision (Crameri et al. 2020).
ERROR_MAP = "berlin_r"
_ROUND = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0)
_BAR_MM = 44.0


@dataclass(frozen=True)
class CaseImages:
    """What is shown of a case: volumes on one grid; some may not be at hand, as the source that was made `again` of the prediction."""

    source: Volume | None
    reference: Volume | None
    prediction: Volume
    mask: Volume
    again: Volume | None = None
    uncertainty: Volume | None = None


@dataclass(frozen=True)
class Column:
    """One column of panels: a slice of each view, what black and white stand for (None: left to the figure), and their unit.

    Those of an `error` are in colours, and shown inside the mask only; `made` are the synthetic image and its error.
    """

    title: str
    planes: tuple[Plane, ...]
    limits: tuple[float, float] | None
    unit: str
    error: bool = False
    made: bool = False


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
    mean_absolute_error : float
        Mean absolute error inside the mask; 0 where it is empty, or there is no true image.
    """

    columns: tuple[Column, ...]
    insides: tuple[Inside, ...]
    sizes_mm: tuple[tuple[float, float], ...]
    mean_absolute_error: float


def cut_slices(images: CaseImages) -> CaseSlices:
    """Cut axial, coronal and sagittal slices through the centre of mass of the mask (of the image, where the mask is empty)."""
    mask = canonical(images.mask)
    inside = mask.array > 0
    cut = cut_through(mask)
    prediction = canonical(images.prediction)
    reference = canonical(images.reference) if images.reference is not None else None
    name, unit = prediction.modality.upper(), unit_of(prediction.modality)
    limits = window(prediction if reference is None else reference, mask)
    columns = [Column(f"Synthetic {name}", cut.planes(prediction.array), limits, unit, made=True)]
    if reference is not None:
        columns.insert(0, Column(name, cut.planes(reference.array), limits, unit))
        columns.append(error_column(f"Error (synthetic − true {name})", reference, prediction, cut))
    if images.source is not None:
        source = canonical(images.source)
        shown = window(source, mask)
        columns.insert(0, Column(source.modality.upper(), cut.planes(source.array), shown, unit_of(source.modality)))
        columns.extend(_cycle(source, canonical(images.again), cut, shown) if images.again is not None else [])
    return CaseSlices(
        columns=tuple(columns),
        insides=cut.planes(inside),
        sizes_mm=cut.sizes_mm,
        mean_absolute_error=0.0 if reference is None else mean_absolute_error(reference, prediction, mask),
    )


def error_column(title: str, reference: Volume, prediction: Volume, cut: Cut) -> Column:
    """Synthetic minus true image, of two upright volumes on one grid."""
    error = prediction.array.astype(np.float32) - reference.array
    return Column(title, cut.planes(error), None, unit_of(reference.modality), error=True, made=True)


def mean_absolute_error(reference: Volume, prediction: Volume, mask: Volume) -> float:
    """Mean absolute error inside a mask, by which colours are scaled; 0 where it is empty."""
    inside = np.asarray(mask.array > 0)
    return mae(reference.array, prediction.array, inside) if inside.any() else 0.0


def side_by_side(cases: Sequence[tuple[str, CaseSlices]]) -> CaseSlices:
    """What several methods made of one case in one figure: what they share once, then the image and the error of each by its name."""
    first = cases[0][1]
    shared = [column for column in first.columns if not column.made]
    own = [replace(column, title=_named(name, column)) for name, case in cases for column in case.columns if column.made]
    return replace(first, columns=(*shared, *own), mean_absolute_error=max(case.mean_absolute_error for _, case in cases))


def _named(name: str, column: Column) -> str:
    return f"{name}: error" if column.error else name


def _cycle(source: Volume, again: Volume, cut: Cut, limits: tuple[float, float]) -> list[Column]:
    """The source that was made again, and its error, on a scale of a quarter of the source's range."""
    name, unit, quarter = source.modality.upper(), unit_of(source.modality), (limits[1] - limits[0]) / 4
    error = again.array.astype(np.float32) - source.array
    return [
        Column(f"{name} made again", cut.planes(again.array), limits, unit),
        Column(f"Error of the cycle ({name})", cut.planes(error), (-quarter, quarter), unit, error=True),
    ]


def error_limit(cases: Sequence[CaseSlices]) -> float:
    """Choose one colour scale for all cases of a report: a round number of at least three times the largest mean absolute error."""
    largest = 3 * max((case.mean_absolute_error for case in cases), default=0.0)
    if largest == 0:
        return 1.0
    decade = 10.0 ** np.floor(np.log10(largest))
    return float(next(step for step in _ROUND if step * decade >= largest * (1 - 1e-9)) * decade)


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
    sheet = make_sheet(len(case.columns), case.sizes_mm, foot_mm=_BAR_MM)
    for position, column in enumerate(case.columns):
        image = None
        for row, axes in enumerate(sheet.panels(position, case.sizes_mm)):
            plane, inside = column.planes[row], case.insides[row]
            if column.error:
                image = show_plane(axes, np.ma.masked_where(~inside, plane), column.limits or (-limit, limit), ERROR_MAP)
                outline(axes, inside)
            else:
                assert column.limits is not None
                image = show_plane(axes, plane, column.limits)
        sheet.title(position, column.title)
        area = ((position + 0.12) * sheet.width, 0.6 * _BAR_MM, 0.76 * sheet.width, 0.11 * _BAR_MM)
        _bar(sheet.figure, image, column.unit, sheet.fractions(area))
    return to_png(sheet.figure, DPI)


def _bar(figure: "Figure", image: Any, unit: str, area: Area) -> None:
    bar = figure.colorbar(image, cax=figure.add_axes(area), orientation="horizontal", extend="both")
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.ax.tick_params(colors=INK, labelsize=8, length=2)
    bar.ax.locator_params(nbins=5)
    bar.set_label(unit, color=INK, fontsize=8, labelpad=1)
