"""Where results of `synthesize` go, with their notes and what else is made beside them, and what may not be written over."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from transmodal.core.files import read_json, require_apart
from transmodal.core.record import RECORD_NAME, require_replaceable
from transmodal.core.volume import Direction, Product
from transmodal.imaging.layouts import Layout, ScanSource
from transmodal.imaging.scan import strip_scan_suffix
from transmodal.workflows.derivative import cycle_path, derivative_paths, uncertainty_path

Extra = Literal["uncertainty", "cycle"]

OUTPUT_NAMES: dict[Direction, str] = {"mr2ct": "sct", "ct2mr": "smr"}
EXTRAS: tuple[Extra, ...] = get_args(Extra)
_BONE_NAME = "bone"


def is_scan_file(output: Path) -> bool:
    """Whether a name is that of a scan in a file; otherwise it is a folder."""
    return strip_scan_suffix(output.name) != output.name


@dataclass(frozen=True)
class Place:
    """Where a result goes, the note beside it, and what else may be made."""

    target: Path
    note: Path
    extras: dict[Extra, Path]

    @property
    def as_series(self) -> bool:
        """Whether the result is a DICOM series."""
        return not is_scan_file(self.target)

    def require_free(self, read: list[Path], extras: list[Extra]) -> None:
        """Refuse to write over or to remove what is read, and to write over a note that is not ours."""
        require_replaceable(self.note, "synthesize", "segment")
        require_apart([self.target, self.note, *(self.extras[extra] for extra in extras), *self._left_over(extras)], read)

    def clear(self, extras: list[Extra]) -> None:
        """Remove what an earlier result had beside it, and last its note, without which it is not taken for finished."""
        for path in self._left_over(extras):
            path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def _left_over(self, extras: list[Extra]) -> list[Path]:
        """What was made beside an earlier result, and will not be made anew."""
        before = record_in(self.note).get("settings", {}) if self.note.exists() else {}
        return [path for extra, path in self.extras.items() if before.get(extra) and extra not in extras]


def record_in(note: Path) -> dict[str, Any]:
    """The record that a note is, or has among the metadata of an image."""
    found = read_json(note)
    return found.get("Record", found)


def beside(target: Path, note: Path) -> Place:
    """A result and its note, with what else is made called after the result."""
    name = strip_scan_suffix(target.name)
    return Place(target, note, {extra: target.with_name(f"{name}_{extra}.nii.gz") for extra in EXTRAS})


def place_of(case: str, scan: ScanSource, layout: Layout, output: Path, direction: Direction, product: Product) -> Place:
    """Where the result of one of several subjects goes, by the layout that its scan came in."""
    if layout == "bids":
        target, note = derivative_paths(scan.path, output, direction, product)
        return Place(target, note, {"uncertainty": uncertainty_path(target), "cycle": cycle_path(scan.path, target)})
    if product == "bone":  # which is no CT series, and may lie beside a synthetic CT and its record
        return beside(output / case / f"{_BONE_NAME}.nii.gz", output / case / f"{_BONE_NAME}.json")
    if scan.series is not None:
        return beside(output / case, output / f"{case}.json")
    return beside(output / case / f"{OUTPUT_NAMES[direction]}.nii.gz", output / case / RECORD_NAME)
