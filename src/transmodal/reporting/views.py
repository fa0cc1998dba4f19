"""Three planes through a head, as radiologists look at them, and panels of them in a figure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Shaped

from transmodal.core.volume import Modality, Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAPER, INK = "black", "#c3cbd6"
# Wide enough to tell air from tissue and to see into bone.
CT_WINDOW_HU = (-600.0, 1400.0)
MARGIN_MM = 8.0
TITLE_MM = 22.0
DPI = 100
_INCHES_PER_MM = 0.0125

Plane = Shaped[np.ndarray, "_rows _columns"]
Inside = Bool[np.ndarray, "_rows _columns"]
Box = tuple[slice, slice, slice]
Area = tuple[float, float, float, float]


@dataclass(frozen=True)
class View:
    """A plane: the axis it cuts (0, 1, 2 for x, y, z of RAS+), whether its columns are mirrored, and the letters at its edges."""

    axis: int
    mirrored: bool
    left: str
    right: str
    top: str
    bottom: str


# Radiological convention: the patient's right is on the viewer's left, and a sagittal head looks to the left.
VIEWS = (
    View(2, True, "R", "L", "A", "P"),
    View(1, True, "R", "L", "S", "I"),
    View(0, True, "A", "P", "S", "I"),
)


@dataclass(frozen=True)
class Cut:
    """Where three planes cut a grid whose axes are in RAS+ order.

    Parameters
    ----------
    box : tuple of slice
        What is shown along each axis.
    centre : tuple of int
        The voxel that the planes meet in.
    sizes_mm : tuple of (width, height)
        Of each view.
    """

    box: Box
    centre: tuple[int, int, int]
    sizes_mm: tuple[tuple[float, float], ...]

    def planes(self, array: Shaped[np.ndarray, "x y z"]) -> tuple[Plane, ...]:
        """Copy the slices as they are looked at: first row at the top, first column at the left."""
        return tuple(_plane(array, view, self.box, self.centre[view.axis]) for view in VIEWS)


def cut_through(mask: Volume) -> Cut:
    """Cut through the centre of mass of a mask, in the box around it with a margin; the whole image for an empty mask."""
    inside = np.argwhere(mask.array > 0)
    if not inside.size:
        inside = np.array([(0, 0, 0), [n - 1 for n in mask.shape]])
    margin = np.ceil(MARGIN_MM / np.array(mask.spacing)).astype(int)
    low = np.maximum(inside.min(axis=0) - margin, 0)
    high = np.minimum(inside.max(axis=0) + 1 + margin, mask.shape)
    x, y, z = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    i, j, k = (int(n) for n in np.rint(inside.mean(axis=0)))
    return Cut((x, y, z), (i, j, k), tuple(_size_mm(view, (x, y, z), mask.spacing) for view in VIEWS))


def window(volume: Volume, mask: Volume) -> tuple[float, float]:
    """What black and white stand for: fixed HU of a CT, percentiles inside the mask of an MR."""
    if volume.modality == "ct":
        return CT_WINDOW_HU
    inside = volume.array[mask.array > 0]
    return (float(np.percentile(inside, 0.5)), float(np.percentile(inside, 99.5))) if inside.size else (0.0, 1.0)


def unit_of(modality: Modality) -> str:
    """The unit of an image, in words."""
    return "HU" if modality == "ct" else "arbitrary units"


@dataclass(frozen=True)
class Sheet:
    """A dark figure with a column of three views for each title, and room for colour bars below.

    Parameters
    ----------
    figure : Figure
    total : (width, height)
        In mm.
    width : float
        Of a column, in mm.
    """

    figure: "Figure"
    total: tuple[float, float]
    width: float

    def panels(self, position: int, sizes_mm: Sequence[tuple[float, float]]) -> Iterator["Axes"]:
        """The axes of a column, from the top down, with the letters of the directions at their edges."""
        for view, area in zip(VIEWS, _areas(sizes_mm, position * self.width, self.width, self.total[1]), strict=True):
            axes = self.figure.add_axes(self.fractions(area), facecolor=PAPER)
            axes.set_axis_off()
            _letters(axes, view)
            yield axes

    def title(self, position: int, text: str) -> None:
        """Write the title of a column."""
        x, y = (position + 0.5) * self.width / self.total[0], 1 - 0.6 * TITLE_MM / self.total[1]
        self.figure.text(x, y, text, color="white", ha="center", fontsize=10, parse_math=False)

    def fractions(self, area: Area) -> Area:
        """Left, bottom, width and height in mm as parts of the figure."""
        left, bottom, width, height = area
        return left / self.total[0], bottom / self.total[1], width / self.total[0], height / self.total[1]


def make_sheet(columns: int, sizes_mm: Sequence[tuple[float, float]], foot_mm: float = 0.0) -> Sheet:
    """An empty sheet of so many columns, with `foot_mm` of room below them."""
    from matplotlib.figure import Figure

    width = max(size[0] for size in sizes_mm) + MARGIN_MM
    total = (width * columns, sum(size[1] for size in sizes_mm) + TITLE_MM + foot_mm)
    return Sheet(Figure(figsize=(total[0] * _INCHES_PER_MM, total[1] * _INCHES_PER_MM), facecolor=PAPER), total, width)


def show_plane(axes: "Axes", plane: Any, limits: tuple[float, float], colours: str = "gray") -> Any:
    """Fill a panel with a plane; what is masked in it stays dark."""
    rows, columns = plane.shape
    image = axes.imshow(plane, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto", interpolation="nearest")
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    return image


def outline(axes: "Axes", inside: Inside, colour: str = INK, width: float = 0.6) -> None:
    """Draw the outline of a region on a panel, if there is one."""
    if inside.any() and not inside.all():
        axes.contour(inside, levels=[0.5], colors=[colour], linewidths=width)


def _areas(sizes_mm: Sequence[tuple[float, float]], left: float, width: float, top: float) -> Iterator[Area]:
    """Left, bottom, width and height in mm of the panels of a column, from the top down."""
    top -= TITLE_MM
    for panel_width, height in sizes_mm:
        top -= height
        yield left + (width - panel_width) / 2, top, panel_width, height


def _size_mm(view: View, box: Box, spacing: tuple[float, float, float]) -> tuple[float, float]:
    width, height = ((box[axis].stop - box[axis].start) * spacing[axis] for axis in range(3) if axis != view.axis)
    return width, height


def _plane(array: Shaped[np.ndarray, "x y z"], view: View, box: Box, index: int) -> Plane:
    where: list[Any] = list(box)
    where[view.axis] = index
    plane = array[tuple(where)].T[::-1]
    return (plane[:, ::-1] if view.mirrored else plane).copy()


def _letters(axes: "Axes", view: View) -> None:
    for x, y, letter in ((0.02, 0.5, view.left), (0.98, 0.5, view.right), (0.5, 0.97, view.top), (0.5, 0.03, view.bottom)):
        axes.text(x, y, letter, transform=axes.transAxes, color=INK, fontsize=8, ha="center", va="center")
