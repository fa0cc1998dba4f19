"""Other people's label maps: their classes as our tissues, and what their segmentations leave out."""

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from pydantic import Field

from transmodal.core.config import Config, read_toml, validate
from transmodal.core.errors import ConfigError, DataError
from transmodal.core.volume import Volume
from transmodal.simulation.tissues import BRAIN, Tissue, tissue_by_name

# Sulci narrower than twice this belong to the mask of a brain, as skull stripping draws it.
_SULCI_MM = 4.0
# The spinal cord, which does not, is thinner than twice this.
_CORD_MM = 8.0


class LabelMapping(Config):
    """How the classes of a label map become tissues.

    Parameters
    ----------
    classes : dict
        Class number to the name of a tissue; 0 is the background unless it is listed.
    table_mm : float
        Bone deeper than this below its surface becomes diploe; 0 leaves bone whole.
    skin_mm, fat_mm : float
        Soft tissue (the tissue ``muscle``) within this depth of the outside becomes skin, and below it fat; 0 leaves it whole.
    """

    classes: dict[int, str]
    table_mm: float = Field(default=0.0, ge=0)
    skin_mm: float = Field(default=0.0, ge=0)
    fat_mm: float = Field(default=0.0, ge=0)


def mapping_names() -> list[str]:
    """Return the names of the built-in mappings."""
    return sorted(Path(entry.name).stem for entry in _folder().iterdir() if entry.name.endswith(".toml"))


def read_mapping(source: str | Path) -> LabelMapping:
    """Read a mapping: a built-in one by its name, or a TOML file by its path.

    Raises
    ------
    ConfigError
        If there is none of that name, the file is not a mapping, or it names an unknown tissue.
    """
    if str(source) in mapping_names():
        with resources.as_file(_folder() / f"{source}.toml") as path:
            return _read(path)
    if not Path(source).is_file():
        raise ConfigError(f"--mapping {source}: neither a TOML file nor one of the built-in {', '.join(mapping_names())}")
    return _read(Path(source))


def _folder() -> Traversable:
    return resources.files("transmodal.simulation") / "mappings"


def _read(path: Path) -> LabelMapping:
    mapping = validate(LabelMapping, read_toml(path), str(path))
    for number, name in mapping.classes.items():
        tissue_by_name(name, f"{path}: class {number}")
    return mapping


def map_labels(labels: Volume, mapping: LabelMapping) -> Volume:
    """Turn the classes of a label map into tissues.

    Background that is enclosed by tissue becomes internal air.

    Parameters
    ----------
    labels : Volume
        Class numbers of any convention.
    mapping : LabelMapping

    Returns
    -------
    Volume
        `Tissue` numbers on the same grid.

    Raises
    ------
    DataError
        If the volume holds a class that the mapping does not list.
    """
    tissues = _translate(np.asarray(labels.array), mapping)
    head = _filled(tissues != Tissue.BACKGROUND)
    tissues[head & (tissues == Tissue.BACKGROUND)] = Tissue.SINUS_AIR
    if mapping.skin_mm or mapping.fat_mm:
        depth = _distance(head, labels)
        soft = tissues == Tissue.MUSCLE
        tissues[soft & (depth <= mapping.skin_mm + mapping.fat_mm)] = Tissue.FAT
        tissues[soft & (depth <= mapping.skin_mm)] = Tissue.SKIN
    if mapping.table_mm:
        bone = tissues == Tissue.CORTICAL_BONE
        tissues[bone & (_distance(bone, labels) > mapping.table_mm)] = Tissue.DIPLOE
    return labels.with_array(tissues, "labels")


def _translate(numbers: np.ndarray, mapping: LabelMapping) -> UInt8[np.ndarray, "x y z"]:
    classes = {0: "background"} | mapping.classes
    found, inverse = np.unique(numbers, return_inverse=True)
    unknown = [int(number) for number in found if number not in classes]
    if unknown:
        raise DataError(
            f"the label map holds the classes {unknown}, which the mapping (of {sorted(mapping.classes)}) does not list; "
            "add them to its [classes]"
        )
    table = np.array([Tissue[classes[int(number)].upper()] for number in found], dtype=np.uint8)
    return table[inverse].reshape(numbers.shape)


def head_mask(tissues: Volume) -> Volume:
    """Return the mask of everything inside the skin, internal air included."""
    return tissues.with_array(_filled(np.asarray(tissues.array) != Tissue.BACKGROUND), "mask")


def brain_mask(tissues: Volume) -> Volume:
    """Return the mask of the brain as skull stripping draws it: with the fluid in its ventricles and sulci, without the spinal cord."""
    brain = np.isin(tissues.array, BRAIN)
    if not brain.any():
        return tissues.with_array(brain, "mask")
    reached = _distance(~brain, tissues) <= _SULCI_MM
    closed = _distance(reached, tissues) > _SULCI_MM
    filled = brain | (closed & (np.asarray(tissues.array) == Tissue.CSF))
    thick = _distance(filled, tissues) > _CORD_MM
    return tissues.with_array(filled & (_distance(~thick, tissues) <= _CORD_MM + _SULCI_MM) if thick.any() else filled, "mask")


def _filled(mask: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """Fill what the outside cannot reach (by faces; the border of the grid is outside)."""
    from scipy import ndimage

    pieces = np.empty(mask.shape, dtype=np.int32)
    count = ndimage.label(~mask, output=pieces)
    outside = np.zeros(int(count) + 1, dtype=bool)  # pyright: ignore[reportArgumentType]
    for axis in range(3):
        outside[np.take(pieces, (0, -1), axis=axis)] = True
    outside[0] = False
    return ~outside[pieces]


def _distance(mask: Bool[np.ndarray, "x y z"], volume: Volume) -> Float[np.ndarray, "x y z"]:
    """Distance in mm from each voxel of a mask to the nearest outside it; the border of the grid is no outside."""
    from scipy import ndimage

    return np.asarray(ndimage.distance_transform_edt(mask, sampling=volume.spacing), dtype=np.float32)
