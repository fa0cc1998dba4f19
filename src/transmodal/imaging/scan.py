"""Scans on disk: one way in and one way out, whatever the format."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from transmodal.core.errors import DataError, FileError, GeometryError
from transmodal.core.files import atomic_path, digest_files, sha256
from transmodal.core.volume import Affine, Array3D, Modality, Volume, whole_hu
from transmodal.imaging.grid import shear_mm
from transmodal.imaging.metaimage import metaimage_data, read_metaimage, write_metaimage
from transmodal.imaging.mgh import read_mgh, write_mgh
from transmodal.imaging.nifti import FORM_TOLERANCE_MM, read_nifti, write_nifti
from transmodal.imaging.nrrd import nrrd_data, read_nrrd, write_nrrd

T = TypeVar("T")

_READERS: dict[str, Callable[[Path], tuple[Array3D, Affine]]] = {
    ".nii.gz": read_nifti,
    ".nii": read_nifti,
    ".mgz": read_mgh,
    ".mgh": read_mgh,
    ".mha": read_metaimage,
    ".mhd": read_metaimage,
    ".nrrd": read_nrrd,
    ".nhdr": read_nrrd,
}
# A volume in two files (.mhd, .nhdr) cannot take the place of another in one step, so these are read only.
_WRITERS: dict[str, Callable[[Array3D, Affine, Path], None]] = {
    ".nii.gz": write_nifti,
    ".nii": write_nifti,
    ".mgz": write_mgh,
    ".mgh": write_mgh,
    ".mha": write_metaimage,
    ".nrrd": write_nrrd,
}
_IN_TWO_FILES = {".mhd": metaimage_data, ".nhdr": nrrd_data}
SCAN_SUFFIXES = tuple(_READERS)

# Voxels of a head scan; outside of this the unit of length is wrong.
_SPACING_RANGE_MM = (0.01, 50.0)


def read_scan(path: Path, modality: Modality) -> Volume:
    """Read a scan from any of the formats in `SCAN_SUFFIXES`.

    Parameters
    ----------
    path : Path
    modality : {"mr", "ct", "mask", "labels", "uncertainty", "dose", "map"}
        What the voxels mean. A mask comes back as bool, labels as unsigned integers, images in the type on disk after scaling
        where that is exact (an int16 CT stays int16), otherwise as float32 or float64.

    Returns
    -------
    Volume
        In RAS+ mm, on the file's own grid: nothing is resampled, flipped or reordered.

    Raises
    ------
    FileError
        If the file is absent, damaged, truncated or of another format.
    GeometryError
        If its orientation is absent, singular, contradictory, or its voxels are not of the size of those of a head scan.
    DataError
        If voxels are NaN or infinite, or are not those of a mask or of labels.
    """
    path = Path(path)
    array, affine = _by_suffix(_READERS, path, "read")(path)
    try:
        volume = Volume(array, affine, modality).require_finite(str(path))
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from error
    _require_head_sized(volume, path)
    return volume.with_array(_decode(volume.array, modality, path))


def write_scan(volume: Volume, path: Path) -> None:
    """Write a scan whole or not at all, in the format that the suffix names.

    CT is written as integer HU (int16, rounded and clipped), masks as uint8, labels as the smallest unsigned integers, MR as
    float32 unless it holds integers already. No scaling, and nothing in the header but the geometry.

    Parameters
    ----------
    volume : Volume
    path : Path
        Ends in ``.nii.gz``, ``.nii``, ``.mgz``, ``.mgh``, ``.mha`` or ``.nrrd``; the folder is made if need be.

    Raises
    ------
    FileError
        If the suffix is not one of these, or the file cannot be written.
    GeometryError
        If the grid is sheared, which most formats and programs cannot hold.
    DataError
        If voxels are NaN or infinite, or labels negative or not whole.
    """
    path = Path(path)
    write = _by_suffix(_WRITERS, path, "written")
    array = _encode(volume.require_finite(str(path)), path)
    require_unsheared(volume, path)
    with atomic_path(path) as temporary:
        write(array, volume.affine, temporary)


def scan_hash(path: Path) -> str:
    """SHA-256 of a scan's file; of one in two files, over the hashes of both."""
    data = next((find(path) for suffix, find in _IN_TWO_FILES.items() if path.name.lower().endswith(suffix)), path)
    return sha256(path) if data == path else digest_files([path, data])


def require_writable(path: Path) -> None:
    """Raise `FileError` unless the suffix names a format that scans can be written in; for asking before long work."""
    _by_suffix(_WRITERS, path, "written")


def find_scan(folder: Path, stem: str) -> Path | None:
    """Find the one scan in `folder` that is named `stem` plus a suffix of `SCAN_SUFFIXES`.

    Returns
    -------
    Path or None
        None if there is no such scan.

    Raises
    ------
    FileError
        If several files qualify.
    """
    found = [path for suffix in SCAN_SUFFIXES if (path := Path(folder) / f"{stem}{suffix}").is_file()]
    if len(found) > 1:
        raise FileError(f"{folder}: several scans are named {stem}: {', '.join(path.name for path in found)}; leave one")
    return found[0] if found else None


def strip_scan_suffix(name: str) -> str:
    """Take the suffix of its format off a file name: ``"mr.nii.gz"`` becomes ``"mr"``; other names are returned as they are."""
    suffix = _suffix(name)
    return name[: -len(suffix)] if suffix else name


def _suffix(name: str) -> str | None:
    return next((suffix for suffix in SCAN_SUFFIXES if name.lower().endswith(suffix)), None)


def _by_suffix(table: dict[str, T], path: Path, verb: str) -> T:
    suffix = _suffix(path.name)
    if suffix not in table:
        raise FileError(f"{path}: this format is not {verb}; the name must end in one of {', '.join(table)}")
    return table[suffix]


def _require_head_sized(volume: Volume, path: Path) -> None:
    low, high = _SPACING_RANGE_MM
    if min(volume.spacing) < low or max(volume.spacing) > high:
        raise GeometryError(f"{path}: voxels of {volume.spacing} mm are not those of a head scan; correct the unit of length in the header")


def require_unsheared(volume: Volume, path: Path) -> None:
    """Raise `GeometryError` if the grid is sheared, which most formats cannot hold; for asking before long work."""
    shear = shear_mm(volume.grid)
    if shear > FORM_TOLERANCE_MM:
        raise GeometryError(
            f"{path}: the grid is sheared by {shear:.3g} mm, which the format cannot hold; resample to an orthogonal grid first"
        )


def _decode(array: Array3D, modality: Modality, path: Path) -> Array3D:
    if modality == "mask":
        return _as_mask(array, path)
    return _as_labels(array, path) if modality == "labels" else array


def _as_mask(array: Array3D, path: Path) -> Array3D:
    """Nonzero voxels, of which all must have one value (1 or 255, say)."""
    mask = array != 0
    inside = array[mask]
    if inside.size and inside.min() != inside.max():
        raise DataError(f"{path}: not a mask: it holds values from {inside.min()} to {inside.max()} beside 0; threshold it first")
    return mask


def _as_labels(array: Array3D, path: Path) -> Array3D:
    """Take the smallest unsigned integers that hold the labels."""
    if array.min() < 0 or (array.dtype.kind == "f" and (array != np.rint(array)).any()):
        raise DataError(f"{path}: not a label map: labels are whole numbers from 0 up, and it holds {array.min()} to {array.max()}")
    return array.astype(np.min_scalar_type(int(array.max())), copy=False)


def _encode(volume: Volume, path: Path) -> Array3D:
    """Return the voxels as they go to disk."""
    array = volume.array
    if volume.modality == "mask":
        return _as_mask(array, path).astype(np.uint8)
    if volume.modality == "labels":
        return _as_labels(array, path)
    if volume.modality == "ct":
        return whole_hu(array)
    return array if array.dtype.kind in "iu" else array.astype(np.float32)
