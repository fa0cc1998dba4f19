"""The tissues of a simulated head, and what each is to a scanner."""

from enum import IntEnum
from functools import cache
from importlib import resources
from typing import Literal

from pydantic import Field

from transmodal.core.config import Config, read_toml, validate
from transmodal.core.errors import ConfigError

FieldStrength = Literal["1.5T", "3T"]


class Tissue(IntEnum):
    """Class numbers of a label volume that this package simulates or understands."""

    BACKGROUND = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    CORTICAL_BONE = 4
    DIPLOE = 5
    SINUS_AIR = 6
    MUCOSA = 7
    EYE = 8
    LENS = 9
    CSF = 10
    GREY_MATTER = 11
    WHITE_MATTER = 12
    TOOTH = 13
    CARTILAGE = 14


BONE = (Tissue.CORTICAL_BONE, Tissue.DIPLOE, Tissue.TOOTH)
BRAIN = (Tissue.GREY_MATTER, Tissue.WHITE_MATTER)


class TissueProperties(Config):
    """Relaxation, proton density and attenuation of one tissue.

    Parameters
    ----------
    t1_ms, t2_ms, t2_star_ms : dict
        Relaxation times in ms at each field strength.
    proton_density : float
        Relative to water, in [0, 1].
    hu, hu_texture : float
        Mean and standard deviation of its CT numbers in HU.
    """

    t1_ms: dict[FieldStrength, float]
    t2_ms: dict[FieldStrength, float]
    t2_star_ms: dict[FieldStrength, float]
    proton_density: float = Field(ge=0, le=1)
    hu: float = Field(ge=-1000, le=3071)
    hu_texture: float = Field(ge=0)


@cache
def tissue_table() -> dict[Tissue, TissueProperties]:
    """Return the properties of every tissue, read from ``tissues.toml`` (which names their sources)."""
    with resources.as_file(resources.files("transmodal.simulation") / "tissues.toml") as path:
        values = read_toml(path)
        return {tissue: validate(TissueProperties, values[tissue.name.lower()], f"{path.name}: {tissue.name.lower()}") for tissue in Tissue}


def tissue_by_name(name: str, where: str) -> Tissue:
    """Return the tissue of a lower-case name such as ``"grey_matter"``.

    Raises
    ------
    ConfigError
        If there is none of that name; the message lists those there are.
    """
    try:
        return Tissue[name.upper()]
    except KeyError:
        known = ", ".join(tissue.name.lower() for tissue in Tissue)
        raise ConfigError(f"{where}: there is no tissue {name!r}; choose one of {known}") from None
