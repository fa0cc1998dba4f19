"""Draw scans beside one another, and their difference from a true one, as a picture or in the terminal."""

import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from transmodal.core.errors import ConfigError
from transmodal.core.files import atomic_path
from transmodal.core.volume import Modality, Volume
from transmodal.imaging.grid import canonical, resample
from transmodal.imaging.masks import head_mask
from transmodal.imaging.scan import read_scan, strip_scan_suffix
from transmodal.reporting.slices import CaseSlices, Column, error_column, error_limit, mean_absolute_error, slice_figure
from transmodal.reporting.views import Cut, cut_through, unit_of, window

if TYPE_CHECKING:
    from PIL import Image
    from rich.text import Text

# A CT has air around or in the head, below any value of an MR.
_AIR_HU = -500.0
_BY_NAME: dict[str, Modality] = {"mr": "mr", "smr": "mr", "ct": "ct", "sct": "ct", "t1w": "mr", "t2w": "mr"}


def show(
    scans: Sequence[Path],
    out: Path | None = None,
    *,
    reference: Path | None = None,
    at: tuple[float, float, float] | None = None,
    limits: tuple[float, float] | None = None,
) -> None:
    """Draw three planes of each scan through one point of space, and where there is a reference the error of each.

    Parameters
    ----------
    scans : sequence of Path
        MRs and CTs in any format that is read, on any grids; they are shown on the grid of the first. Which are CTs is told by their
        names (``ct``, ``sct``, ``mr``, ...), or else by their values.
    out : Path, optional
        The PNG to write; by default the picture goes to the terminal.
    reference : Path, optional
        A true image; of every scan of its modality the error is drawn, in its head.
    at : tuple of float, optional
        The point that the planes meet in, in RAS+ mm; by default the middle of the first scan's head.
    limits : tuple of float, optional
        What black and white stand for, in CTs in HU; by default -600 and 1400.

    Raises
    ------
    ConfigError
        If the picture can go nowhere, the point lies outside the first scan, or black is not less than white.
    """
    _require_place(out)
    if limits and limits[0] >= limits[1]:
        raise ConfigError(f"--window {limits[0]:g} {limits[1]:g}: black comes first, and must be less than white")
    volumes = [_read(Path(path)) for path in ([reference] if reference else []) + list(scans)]
    paths = ([Path(reference)] if reference else []) + [Path(path) for path in scans]
    upright = canonical(volumes[0])
    aligned = [upright, *(resample(volume, upright.grid) for volume in volumes[1:])]
    mask = head_mask(upright)
    cut = _meeting_in(cut_through(mask), upright, at)
    true = aligned[0] if reference else None
    columns = [
        column for volume, title in zip(aligned, _titles(paths), strict=True) for column in _columns(volume, title, cut, limits, true)
    ]
    errors = [mean_absolute_error(true, volume, mask) for volume in aligned[1:] if true and volume.modality == true.modality]
    slices = CaseSlices(tuple(columns), cut.planes(mask.array), cut.sizes_mm, max(errors, default=0.0))
    picture = slice_figure(slices, error_limit([slices]))
    if out is None:
        _display(picture)
        return
    with atomic_path(Path(out)) as temporary:
        temporary.write_bytes(picture)


def _require_place(out: Path | None) -> None:
    if out is None and not sys.stdout.isatty():
        raise ConfigError("show: the output is no terminal; give a picture to write, such as --out head.png")
    if out is not None and Path(out).suffix.lower() != ".png":
        raise ConfigError(f"--out {out}: pictures are written as PNG; give a name that ends in .png")


def _read(path: Path) -> Volume:
    """A scan with the modality that its name says, or else its values."""
    stem = strip_scan_suffix(path.name).lower()
    named = _BY_NAME.get(stem) or _BY_NAME.get(stem.rsplit("_", 1)[-1])
    if named:
        return read_scan(path, named).require_finite(str(path))
    volume = read_scan(path, "mr").require_finite(str(path))
    return read_scan(path, "ct") if volume.array.min() < _AIR_HU else volume


def _titles(paths: Sequence[Path]) -> list[str]:
    """The names of the files, with their folders where two are called the same."""
    names = [strip_scan_suffix(path.name) for path in paths]
    return [name if names.count(name) == 1 else f"{path.parent.name}/{name}" for name, path in zip(names, paths, strict=True)]


def _meeting_in(cut: Cut, volume: Volume, at: tuple[float, float, float] | None) -> Cut:
    if at is None:
        return cut
    index = np.rint(volume.grid.to_voxel(np.array(at, dtype=np.float64))).astype(int)
    if (index < 0).any() or (index >= volume.shape).any():
        raise ConfigError(f"--at {' '.join(f'{value:g}' for value in at)}: not within the first scan: {volume.grid.describe()}")
    i, j, k = (int(value) for value in index)
    return replace(cut, centre=(i, j, k))


def _columns(volume: Volume, title: str, cut: Cut, limits: tuple[float, float] | None, true: Volume | None) -> list[Column]:
    is_ct = volume.modality == "ct"
    shown = limits if limits and is_ct else window(volume, volume.with_array(np.ones(volume.shape, dtype=bool), "mask"))
    column = Column(title, cut.planes(volume.array), shown, unit_of(volume.modality))
    if true is None or volume is true or volume.modality != true.modality:
        return [column]
    return [column, error_column(f"{title}: error", true, volume, cut)]


def _display(picture: bytes) -> None:
    """Show a picture in the terminal: sharp where it draws pictures and the package for that is installed, or else in blocks."""
    from PIL import Image
    from rich.console import Console

    console, image = Console(), Image.open(io.BytesIO(picture))
    sharp = _sharp()
    console.print(sharp(image) if sharp else blocks(image, console.width))


def _sharp() -> Any:
    """What draws a picture by the terminal's own graphics (sixel, or the protocol of Kitty); None where there is no such."""
    try:
        from textual_image import renderable  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    return renderable.Image if renderable.Image in (renderable.SixelImage, renderable.TGPImage) else None


def blocks(image: "Image.Image", columns: int) -> "Text":
    """A picture of so many columns in half blocks, two pixels a character, one above the other."""
    from rich.text import Text

    rows = max(round(image.height * columns / image.width / 2), 1)
    pixels = np.asarray(image.convert("RGB").resize((columns, 2 * rows)))
    text = Text()
    for uppers, lowers in zip(pixels[::2], pixels[1::2], strict=True):
        for upper, lower in zip(uppers, lowers, strict=True):
            text.append("▀", style=f"rgb({','.join(map(str, upper))}) on rgb({','.join(map(str, lower))})")
        text.append("\n")
    return text
