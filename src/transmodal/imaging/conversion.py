"""From HU to what others calculate with: densities, attenuation at 511 keV, and what bone is to ultrasound.

All numbers are in tables (``conversions/*.toml``), which name their sources, and which a user may copy, edit and give back. The
functions here are pure: HU in, one value a voxel out, in the unit of the table.
"""

from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Bool, Float, Real
from pydantic import AfterValidator, Field, model_validator

from transmodal.core.config import Config, ConfigT, read_toml, validate
from transmodal.core.errors import ConfigError

Image = Real[np.ndarray, "*axes"]
Map = Float[np.ndarray, "*axes"]
Mask = Bool[np.ndarray, "*axes"]

# The HU of nothing at all.
_VACUUM_HU = -1000.0


def _monotonic(points: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    if len(points) < 2:
        raise ValueError("two points of HU and value are the least")
    for (hu, value), (next_hu, next_value) in pairwise(points):
        if next_hu <= hu:
            raise ValueError(f"HU must rise from point to point, and {next_hu:g} comes after {hu:g}")
        if next_value < value:
            raise ValueError(f"values must not fall, and at {next_hu:g} HU {next_value:g} comes after {value:g}")
    if points[0][1] < 0:
        raise ValueError(f"values must not be negative, and at {points[0][0]:g} HU there is {points[0][1]:g}")
    return points


# HU and value: two points at the least, of rising HU and of values that are not negative and do not fall.
Points = Annotated[tuple[tuple[float, float], ...], AfterValidator(_monotonic)]


class PointTable(Config):
    """A quantity by HU, linear between points.

    Parameters
    ----------
    source : str
        Where the numbers are from.
    points : tuple of pairs
        HU and value, of rising HU and of values that are not negative and do not fall.
    """

    source: str
    points: Points


class DensityTable(PointTable):
    """Mass density by HU."""

    unit: Literal["g/cm3"]


class ElectronDensityTable(PointTable):
    """Electron density by HU."""

    unit: Literal["relative to water"]


class BoneLine(Config):
    """Attenuation above the break: ``slope (HU + 1000) + intercept``, both in 1/cm."""

    slope: float = Field(gt=0)
    intercept: float = Field(gt=0)


class MuTable(Config):
    """Attenuation at 511 keV by HU (Carney et al., Med Phys 2006;33:976), in 1/cm.

    Parameters
    ----------
    source : str
    unit : {"1/cm"}
    soft_slope : float
        Per HU above -1000, up to the break: a thousandth of the attenuation of water.
    kvp : dict
        The line above the break, by the tube voltage of the CT in kV; less steep than below.
    """

    source: str
    unit: Literal["1/cm"]
    soft_slope: float = Field(gt=0)
    kvp: dict[int, BoneLine] = Field(min_length=1)

    @model_validator(mode="after")
    def _less_steep(self) -> "MuTable":
        for voltage, line in self.kvp.items():
            if line.slope >= self.soft_slope:
                raise ValueError(f"at {voltage} kV the slope {line.slope:g} is not below the soft_slope, so the lines never cross")
        return self


class Medium(Config):
    """What a medium is to ultrasound: density in kg/m3, speed of sound in m/s, attenuation in dB/cm."""

    density: float = Field(gt=0)
    speed: float = Field(gt=0)
    attenuation: float = Field(ge=0)


class BoneAttenuation(Config):
    """Attenuation of bone in dB/cm: ``dense + (porous - dense) porosity**exponent``.

    The porosity is 0 from `dense_hu` on and 1 up to `porous_hu`, and linear between.
    """

    dense: float = Field(ge=0)
    porous: float = Field(ge=0)
    exponent: float = Field(gt=0)
    dense_hu: float
    porous_hu: float

    @model_validator(mode="after")
    def _denser_is_brighter(self) -> "BoneAttenuation":
        if self.dense_hu <= self.porous_hu:
            raise ValueError(f"dense_hu ({self.dense_hu:g}) must be above porous_hu ({self.porous_hu:g})")
        return self


class AcousticPreset(Config):
    """A published way from HU to what the skull is to ultrasound.

    Parameters
    ----------
    source : str
    bone_hu : float
        Bone is above it.
    frequency_mhz : float
        That the attenuation is for.
    density, speed : tuple of pairs
        HU and kg/m3 or m/s: as in a `PointTable`, but constant beyond the last point.
    attenuation : BoneAttenuation
    """

    source: str
    bone_hu: float
    frequency_mhz: float = Field(gt=0)
    density: Points
    speed: Points
    attenuation: BoneAttenuation


class AcousticTable(Config):
    """Presets by name, and the medium of all that is not bone."""

    water: Medium
    presets: dict[str, AcousticPreset] = Field(min_length=1)


def read_table(kind: type[ConfigT], name: str, path: Path | None = None) -> ConfigT:
    """Read a table: that of the package, or a user's.

    Parameters
    ----------
    kind : type
        `DensityTable`, `ElectronDensityTable`, `MuTable` or `AcousticTable`.
    name : str
        Of the package's table.
    path : Path, optional
        A TOML file to read in its place.

    Raises
    ------
    ConfigError
        If the file cannot be read, lacks a key or has one too many, is in another unit, or is not monotonic.
    """
    if path is not None:
        return validate(kind, read_toml(path), str(path))
    with resources.as_file(resources.files("transmodal.imaging") / "conversions" / f"{name}.toml") as own:
        return validate(kind, read_toml(own), own.name)


def by_points(hu: Image, table: PointTable) -> Map:
    """A quantity by HU, in the unit of the table.

    Parameters
    ----------
    hu : ndarray
        Below the first point of the table the value is that of the first; above the last, the last line goes on.
    table : PointTable

    Returns
    -------
    ndarray
        float32, at least 0.
    """
    knots, values = np.array(table.points).T
    slope = (values[-1] - values[-2]) / (knots[-1] - knots[-2])
    beyond = np.maximum(np.asarray(hu, dtype=np.float64) - knots[-1], 0)
    return (np.interp(hu, knots, values) + slope * beyond).astype(np.float32)


def choose_voltage(table: MuTable, kvp: int) -> BoneLine:
    """Return the line of a tube voltage, or raise `ConfigError` with the voltages there are."""
    if kvp not in table.kvp:
        raise ConfigError(f"--kvp {kvp}: the table is for {', '.join(str(known) for known in sorted(table.kvp))} kV; choose one of these")
    return table.kvp[kvp]


def attenuation_511(hu: Image, table: MuTable, kvp: int) -> Map:
    """Linear attenuation at 511 keV, in 1/cm.

    The lower of the two lines of Carney et al. is the one that counts at every HU, so that the break is where they cross.

    Parameters
    ----------
    hu : ndarray
        Of a CT of the tube voltage `kvp`; below -1000 nothing attenuates.
    table : MuTable
    kvp : int
        In kV.

    Returns
    -------
    ndarray
        float32, at least 0.

    Raises
    ------
    ConfigError
        If the table has no such voltage.
    """
    line = choose_voltage(table, kvp)
    above = np.maximum(np.asarray(hu, dtype=np.float64) - _VACUUM_HU, 0)
    return np.minimum(table.soft_slope * above, line.slope * above + line.intercept).astype(np.float32)


def choose_preset(table: AcousticTable, name: str) -> AcousticPreset:
    """Return the preset of a name, or raise `ConfigError` with those there are."""
    if name not in table.presets:
        raise ConfigError(f"--preset {name}: the table has {', '.join(table.presets)}; choose one of these")
    return table.presets[name]


def acoustics(hu: Image, bone: Mask, preset: AcousticPreset, water: Medium) -> dict[str, Map]:
    """Density in kg/m3, speed of sound in m/s and attenuation in dB/cm, at the frequency of the preset.

    Parameters
    ----------
    hu : ndarray
    bone : ndarray of bool
        Where the preset holds; elsewhere is water.
    preset : AcousticPreset
    water : Medium

    Returns
    -------
    dict
        ``density``, ``speed`` and ``attenuation``, each float32.
    """
    law = preset.attenuation
    porosity = np.clip((law.dense_hu - np.asarray(hu, dtype=np.float64)) / (law.dense_hu - law.porous_hu), 0, 1)
    of_bone = {
        "density": np.interp(hu, *np.array(preset.density).T),
        "speed": np.interp(hu, *np.array(preset.speed).T),
        "attenuation": law.dense + (law.porous - law.dense) * porosity**law.exponent,
    }
    return {name: np.where(bone, values, getattr(water, name)).astype(np.float32) for name, values in of_bone.items()}
