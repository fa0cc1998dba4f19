"""From a true or synthetic CT to a mesh of its bone, and how far that is from the bone of another CT."""

from pathlib import Path

import numpy as np

from transmodal.core.config import Config
from transmodal.core.errors import ConfigError, DataError, about
from transmodal.core.files import require_room, write_json
from transmodal.core.record import Record, make_record
from transmodal.core.volume import Volume, require_same_grid
from transmodal.evaluation.surface import BONE_HU, BoneSurface, bone_surface, compare_surfaces, surface_statistics
from transmodal.imaging.mesh import require_mesh_name, write_mesh
from transmodal.imaging.plausibility import require_plausible
from transmodal.imaging.scan import read_scan, scan_hash
from transmodal.imaging.triangles import vertex_areas_mm2, volume_mm3

_ROWS = {
    "mean_mm": "mean, mm",
    "sd_mm": "SD, mm",
    "min_mm": "least, mm",
    "max_mm": "greatest, mm",
    "iqr_mm": "IQR, mm",
    "within_2mm": "within 2 mm",
}


class SurfaceSummary(Config):
    """What a mesh is, and how far it is from its reference.

    Parameters
    ----------
    triangles : int
    area_mm2, volume_mm3 : float
        Of the bone, cuts by the mask and the grid included.
    deviation : dict or None
        As `transmodal.evaluation.surface.surface_statistics` gives it; None without a reference.
    record : Record
    """

    triangles: int
    area_mm2: float
    volume_mm3: float
    deviation: dict[str, float] | None
    record: Record


def surface(
    scan: Path,
    output: Path,
    *,
    reference: Path | None = None,
    mask: Path | None = None,
    threshold_hu: float = BONE_HU,
    specks_mm3: float = 0.0,
) -> SurfaceSummary:
    """Write the bone surface of a CT as STL or PLY, and beside it the summary as ``OUTPUT.json``.

    Parameters
    ----------
    scan : Path
        A true or synthetic CT; or a mask of bone, which is recognized by having no other values than 0 and one more.
    output : Path
        Ends in ``.stl`` or ``.ply``; the latter holds the deviation of each vertex as well.
    reference : Path, optional
        A CT, or a mask, to measure the deviation from: see `transmodal.evaluation.surface`.
    mask : Path, optional
        By default all of the image counts.
    threshold_hu : float
        Of CTs, above it is bone.
    specks_mm3 : float
        Pieces and cavities of less volume are left out, of the reference too.

    Raises
    ------
    ConfigError
        If `specks_mm3` is negative.
    GeometryError
        If the files do not lie on one grid.
    DataError
        If there is no bone.
    """
    require_mesh_name(output)
    require_room(output)
    if specks_mm3 < 0:
        raise ConfigError(f"--specks-mm3 {specks_mm3:g}: a volume is at least 0")
    image = _read(scan)
    head = read_scan(mask, "mask") if mask else image.with_array(np.ones(image.shape, dtype=bool), "mask")
    bone = _bone(image, head, scan, threshold_hu, specks_mm3)
    deviation, statistics = None, None
    if reference:
        other = _read(reference)
        require_same_grid(image.grid, other.grid, str(scan), str(reference))
        compared = compare_surfaces(bone, _bone(other, head, reference, threshold_hu, specks_mm3))
        deviation, statistics = np.full(len(bone.measured), np.nan), surface_statistics(compared)
        deviation[bone.measured] = compared.sct_to_ct
    write_mesh(bone.surface, output, deviation)
    inputs = {name: scan_hash(path) for name, path in {"ct": scan, "reference": reference, "mask": mask}.items() if path}
    settings = {"threshold_hu": threshold_hu, "specks_mm3": specks_mm3}
    summary = SurfaceSummary(
        triangles=len(bone.surface.faces),
        area_mm2=float(vertex_areas_mm2(bone.surface).sum()),
        volume_mm3=volume_mm3(bone.surface),
        deviation=statistics,
        record=make_record("surface", inputs=inputs, settings=settings),
    )
    write_json(output.with_name(f"{output.name}.json"), summary.model_dump(mode="json"))
    return summary


def print_summary(summary: SurfaceSummary, *, as_json: bool) -> None:
    """Print a summary for a person, or for a script."""
    if as_json:
        print(summary.model_dump_json(indent=2))
        return
    print(f"{summary.triangles} triangles, {summary.area_mm2 / 100:.1f} cm², {summary.volume_mm3 / 1000:.1f} cm³ of bone")
    if summary.deviation:
        _print_deviation(summary.deviation)


def _print_deviation(found: dict[str, float]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("deviation", "to the reference", "from the reference", box=None, header_style="bold")
    for name, label in _ROWS.items():
        table.add_row(label, *(_shown(name, found[f"{way}_{name}"]) for way in ("sct_to_ct", "ct_to_sct")))
    Console(highlight=False).print(table)
    print(f"HD95 {found['hd95_mm']:.2f} mm, mean distance {found['assd_mm']:.2f} mm, {found['within_2mm']:.1%} within 2 mm, both ways")
    print("Positive: the bone reaches beyond that of the reference.")


def _shown(name: str, value: float) -> str:
    return f"{value:.1%}" if name == "within_2mm" else f"{value:.2f}"


def _read(path: Path) -> Volume:
    """A CT, or a mask where all values but 0 are one."""
    image = read_scan(path, "ct")
    inside = image.array > 0
    values = image.array[inside]
    if values.size and values.min() == values.max() and not (image.array < 0).any():
        return image.with_array(inside, "mask")
    return require_plausible(image, str(path))


def _bone(image: Volume, head: Volume, path: Path, threshold_hu: float, specks_mm3: float) -> BoneSurface:
    with about(path):
        bone = bone_surface(image, head, threshold_hu, specks_mm3)
        if bone is None:
            raise DataError(f"no bone, which is what is above {threshold_hu:g} HU, is inside the mask; check the mask and the threshold")
    return bone
