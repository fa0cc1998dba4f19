"""From a true or synthetic CT to what is calculated with next: densities, attenuation of PET, acoustics, bone, a head in layers."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from transmodal.core.config import Config, validate
from transmodal.core.errors import ConfigError, DataError, about
from transmodal.core.files import read_json, require_apart, require_room, write_json
from transmodal.core.record import Record, make_record, require_replaceable
from transmodal.core.volume import Volume
from transmodal.evaluation.surface import BONE_HU
from transmodal.imaging.conversion import (
    AcousticTable,
    DensityTable,
    ElectronDensityTable,
    Mask,
    MuTable,
    acoustics,
    attenuation_511,
    by_points,
    choose_preset,
    choose_voltage,
    read_table,
)
from transmodal.imaging.dicom_files import is_dicom
from transmodal.imaging.head_model import HeadLabel, HeadModelSettings, cut_layers, head_model, solid_layers
from transmodal.imaging.layouts import ScanSource
from transmodal.imaging.layouts.dicom import series_source
from transmodal.imaging.layouts.subjects import Options
from transmodal.imaging.masks import head_mask
from transmodal.imaging.mesh import write_mesh
from transmodal.imaging.plausibility import require_plausible
from transmodal.imaging.scan import read_scan, require_unsheared, require_writable, scan_hash, strip_scan_suffix, write_scan
from transmodal.imaging.surface import closed_surface

Kind = Literal["density", "electron-density", "mu-map", "acoustic", "bone", "head-model"]
DEFAULT_KVP = 120
DEFAULT_PRESET = "aubry2003"
# What each option is for.
_OPTIONS: dict[str, tuple[Kind, ...]] = {
    "table": ("density", "electron-density", "mu-map", "acoustic"),
    "kvp": ("mu-map",),
    "preset": ("acoustic",),
    "threshold_hu": ("acoustic", "bone", "head-model"),
    "compact_hu": ("head-model",),
    "closing_mm": ("head-model",),
    "brain": ("head-model",),
    "surfaces": ("head-model",),
}


class ConvertedFile(Config):
    """A file, and what its values are."""

    file: str
    quantity: str
    unit: str


class Conversion(Config):
    """What was made of a CT; written beside it as JSON.

    Parameters
    ----------
    files : list of ConvertedFile
    labels : dict
        Of a head model, the name of each number.
    volumes_ml : dict
        Of a head model or bone, by name.
    enclosed_by_bone : float or None
        Of a head model, the share of what lies next to the cavity that was bone; see `transmodal.imaging.head_model.head_model`.
    cut : list of str
        Of a head model, the layers that the field of view cuts, and that are not closed there.
    record : Record
        Its settings hold all of the table that was used.
    """

    files: list[ConvertedFile]
    labels: dict[int, str] = {}
    volumes_ml: dict[str, float] = {}
    enclosed_by_bone: float | None = None
    cut: list[str] = []
    record: Record


@dataclass(frozen=True)
class _Written:
    """Voxels, and what they are."""

    volume: Volume
    quantity: str
    unit: str


@dataclass(frozen=True)
class _Made:
    """What is to be written: scans by the ending of their names, settings and facts for the record, solids to lay surfaces around."""

    scans: dict[str, _Written]
    settings: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    solids: dict[str, Volume] = field(default_factory=dict)


def convert(
    scan: Path,
    output: Path,
    to: Kind,
    *,
    table: Path | None = None,
    kvp: int | None = None,
    preset: str | None = None,
    threshold_hu: float | None = None,
    compact_hu: float | None = None,
    closing_mm: float | None = None,
    brain: Path | None = None,
    surfaces: bool = False,
    series: str | None = None,
    force_geometry: bool = False,
) -> Conversion:
    """Write what a CT is to another program, on the CT's own grid, and beside it ``<output>.json`` with units, table and record.

    Parameters
    ----------
    scan : Path
        A true or synthetic CT: a scan file, or a folder of DICOM files.
    output : Path
        A scan file. For ``acoustic`` ``_density``, ``_speed`` and ``_attenuation`` are added to its name.
    to : str
        ``density`` (g/cm3), ``electron-density`` (relative to water), ``mu-map`` (1/cm at 511 keV), ``acoustic`` (kg/m3, m/s and dB/cm),
        ``bone`` (a mask) or ``head-model`` (labels).
    table : Path, optional
        A table of one's own in place of the package's.
    kvp : int, optional
        Tube voltage of the CT, for ``mu-map``; by default 120.
    preset : str, optional
        Of the table for ``acoustic``; by default aubry2003.
    threshold_hu : float, optional
        Bone is above it; by default 250, or what the acoustic preset has.
    compact_hu, closing_mm : float, optional
        For ``head-model``; see `transmodal.imaging.head_model.HeadModelSettings`.
    brain : Path, optional
        For ``head-model``, a mask of the brain on the grid of the CT.
    surfaces : bool
        With ``head-model``, also write a surface around each layer, as ``<output>_<layer>.stl``.
    series : str, optional
        Of DICOM, the number or UID of the series, or a pattern of its description.
    force_geometry : bool
        Of DICOM, resample what is not on a regular grid instead of refusing it.

    Raises
    ------
    FileError
        If what is to be written is what is read, or a JSON that another program wrote.
    ConfigError
        If an option is not for what is made, or the table is none or lacks what is asked of it.
    DataError
        If the scan is no CT, or has no bone, or no skull that encloses a brain.
    """
    given = {"table": table, "kvp": kvp, "preset": preset, "threshold_hu": threshold_hu, "compact_hu": compact_hu}
    given |= {"closing_mm": closing_mm, "brain": brain, "surfaces": surfaces or None}
    given = {name: value for name, value in given.items() if value is not None}
    _require_fitting(to, given)
    require_writable(output)
    require_room(output)
    read = {name: path for name, path in {"ct": scan, "table": table, "brain": brain}.items() if path}
    require_apart([output], read.values())
    require_replaceable(output.with_name(f"{strip_scan_suffix(output.name)}.json"), "convert")
    make = _maker(to, given)
    source = _source(scan, series, force_geometry)
    with about(scan, *([brain] if brain else [])):
        ct = require_plausible(source.read("ct"), str(scan))
        require_unsheared(ct, scan)
        made = make(ct)
    targets = _targets(made, output)
    left_over = _written_before(targets["json"]) - set(targets.values())
    require_apart([*targets.values(), *left_over], read.values())
    inputs = {"ct": source.digest()} | {name: scan_hash(path) for name, path in read.items() if name != "ct"}
    for path in (*left_over, targets["json"]):
        path.unlink(missing_ok=True)
    return _write(made, targets, make_record("convert", inputs=inputs, settings={"to": to, **made.settings}))


def print_conversion(conversion: Conversion, output: Path, *, as_json: bool) -> None:
    """Print what was written, and what is to be known of it, for a person or for a script."""
    if as_json:
        print(conversion.model_dump_json(indent=2))
        return
    for made in conversion.files:
        print(f"{output.parent / made.file}: {made.quantity}, {made.unit}")
    if conversion.volumes_ml:
        print(", ".join(f"{name} {volume:.0f} ml" for name, volume in conversion.volumes_ml.items()))
    if conversion.enclosed_by_bone is not None:
        print(f"{conversion.enclosed_by_bone:.0%} of what lies next to the cavity was bone; the rest was closed with bone")
    if conversion.cut:
        print(f"transmodal: the field of view cuts {', '.join(conversion.cut)}: not closed there by the next layer", file=sys.stderr)


def _require_fitting(to: Kind, given: Mapping[str, Any]) -> None:
    """Refuse an option that would do nothing."""
    for name in given:
        if to not in _OPTIONS[name]:
            raise ConfigError(f"--{name.replace('_', '-')}: is for --to {', '.join(_OPTIONS[name])}, not for --to {to}; leave it out")


def _source(scan: Path, series: str | None, force_geometry: bool) -> ScanSource:
    if scan.is_dir() or is_dicom(scan):
        return series_source(scan, "ct", Options(ct_series=series, force_geometry=force_geometry, series_option="--series"))
    if series is not None or force_geometry:
        raise ConfigError(f"--series and --force-geometry are for DICOM, and {scan} is none")
    return ScanSource(scan)


def _maker(to: Kind, given: Mapping[str, Any]) -> Callable[[Volume], _Made]:
    """What makes it of a CT; tables are read and looked into before long work."""
    path = given.get("table")
    match to:
        case "density":
            return partial(_by_points, quantity="mass density", table=read_table(DensityTable, to, path))
        case "electron-density":
            return partial(_by_points, quantity="electron density", table=read_table(ElectronDensityTable, to, path))
        case "mu-map":
            table, kvp = read_table(MuTable, to, path), given.get("kvp", DEFAULT_KVP)
            choose_voltage(table, kvp)
            return partial(_mu_map, table=table, kvp=kvp)
        case "acoustic":
            table, name = read_table(AcousticTable, to, path), given.get("preset", DEFAULT_PRESET)
            return partial(_acoustic, table=table, name=name, bone_hu=given.get("threshold_hu", choose_preset(table, name).bone_hu))
        case "bone":
            return partial(_bone, bone_hu=given.get("threshold_hu", BONE_HU))
        case "head-model":
            chosen = {"bone_hu": given.get("threshold_hu"), "compact_hu": given.get("compact_hu"), "closing_mm": given.get("closing_mm")}
            settings = validate(HeadModelSettings, {key: value for key, value in chosen.items() if value is not None}, "--to head-model")
            return partial(_head_model, settings=settings, brain=given.get("brain"), surfaces="surfaces" in given)


def _by_points(ct: Volume, quantity: str, table: DensityTable | ElectronDensityTable) -> _Made:
    volume = ct.with_array(by_points(ct.array, table), "map")
    return _Made({"": _Written(volume, quantity, table.unit)}, {"table": table.model_dump(mode="json")})


def _mu_map(ct: Volume, table: MuTable, kvp: int) -> _Made:
    volume = ct.with_array(attenuation_511(ct.array, table, kvp), "map")
    settings = {"kvp": kvp, "table": table.model_dump(mode="json")}
    return _Made({"": _Written(volume, "linear attenuation at 511 keV", table.unit)}, settings)


def _acoustic(ct: Volume, table: AcousticTable, name: str, bone_hu: float) -> _Made:
    preset = choose_preset(table, name)
    maps = acoustics(ct.array, _thresholded(ct, bone_hu), preset, table.water)
    meanings = {
        "density": ("mass density", "kg/m3"),
        "speed": ("speed of sound", "m/s"),
        "attenuation": (f"attenuation at {preset.frequency_mhz:g} MHz", "dB/cm"),
    }
    written = {f"_{part}": _Written(ct.with_array(maps[part], "map"), *meanings[part]) for part in maps}
    used = {"water": table.water.model_dump(mode="json"), "preset": preset.model_dump(mode="json")}
    return _Made(written, {"preset": name, "threshold_hu": bone_hu, "table": used})


def _bone(ct: Volume, bone_hu: float) -> _Made:
    bone = ct.with_array(_thresholded(ct, bone_hu), "mask")
    facts = {"volumes_ml": {"bone": np.count_nonzero(bone.array) * _voxel_ml(ct)}}
    return _Made({"": _Written(bone, "bone", "0 or 1")}, {"threshold_hu": bone_hu}, facts)


def _thresholded(ct: Volume, bone_hu: float) -> Mask:
    """What is bone in the head, and not in what the head lies on."""
    bone = np.asarray(head_mask(ct).array) & (np.asarray(ct.array) > bone_hu)
    if not bone.any():
        raise DataError(f"no bone, which is what is above {bone_hu:g} HU, is in the head; choose another --threshold-hu")
    return bone


def _head_model(ct: Volume, settings: HeadModelSettings, brain: Path | None, surfaces: bool) -> _Made:
    labels, enclosed = head_model(ct, settings, read_scan(brain, "mask") if brain else None)
    names = {int(label): label.name.lower() for label in HeadLabel}
    counts = np.bincount(np.asarray(labels.array).ravel(), minlength=len(names))
    facts = {
        "labels": names,
        "volumes_ml": {name: counts[label] * _voxel_ml(ct) for label, name in names.items() if label and counts[label]},
        "enclosed_by_bone": enclosed,
        "cut": cut_layers(labels),
    }
    settings_used = {**settings.model_dump(mode="json"), "surfaces": surfaces}
    return _Made({"": _Written(labels, "layers of the head", "label")}, settings_used, facts, solid_layers(labels) if surfaces else {})


def _voxel_ml(volume: Volume) -> float:
    return abs(float(np.linalg.det(volume.affine[:3, :3]))) / 1000


def _targets(made: _Made, output: Path) -> dict[str, Path]:
    """The file of each scan, by its ending, of each surface, by its layer, and last, as ``json``, of what describes them."""
    stem = strip_scan_suffix(output.name)
    suffix = output.name[len(stem) :]
    scans = {ending: output.with_name(f"{stem}{ending}{suffix}") for ending in made.scans}
    return scans | {layer: output.with_name(f"{stem}_{layer}.stl") for layer in made.solids} | {"json": output.with_name(f"{stem}.json")}


def _write(made: _Made, targets: Mapping[str, Path], record: Record) -> Conversion:
    """Write the scans, then the surfaces, and last what describes them."""
    files = []
    for ending, written in made.scans.items():
        write_scan(written.volume, targets[ending])
        files.append(ConvertedFile(file=targets[ending].name, quantity=written.quantity, unit=written.unit))
    for layer, solid in made.solids.items():
        write_mesh(closed_surface(solid, 0.5), targets[layer])
        files.append(ConvertedFile(file=targets[layer].name, quantity=f"surface of {layer}", unit="RAS+ mm"))
    conversion = Conversion(files=files, **made.facts, record=record)
    write_json(targets["json"], conversion.model_dump(mode="json"))
    return conversion


def _written_before(note: Path) -> set[Path]:
    """The files of an earlier conversion, which are beside its note."""
    listed = read_json(note).get("files", []) if note.exists() else []
    return {note.with_name(Path(entry["file"]).name) for entry in listed}
