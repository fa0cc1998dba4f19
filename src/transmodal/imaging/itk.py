"""Volumes as SimpleITK images and back: LPS to RAS, and (z, y, x) to (x, y, z)."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transmodal.core.errors import FileError
from transmodal.core.volume import Affine, Array3D

if TYPE_CHECKING:
    import SimpleITK

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])

# Bytes a voxel of the types that MetaImage and NRRD share with SimpleITK, by numpy's names.
ITEMSIZE = {name: np.dtype(name).itemsize for name in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")}


def to_itk(array: Array3D, affine: Affine) -> "SimpleITK.Image":
    """Copy voxels and geometry into a SimpleITK image; bool becomes uint8."""
    import SimpleITK

    image = SimpleITK.GetImageFromArray(array.view(np.uint8).T if array.dtype == bool else array.T)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((_LPS_TO_RAS @ affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin((_LPS_TO_RAS @ affine[:3, 3]).tolist())
    return image


def from_itk(image: "SimpleITK.Image") -> tuple[Array3D, Affine]:
    """Copy the voxels of a three-dimensional SimpleITK image, and its geometry as an affine to RAS+ mm."""
    import SimpleITK

    affine = np.eye(4)
    affine[:3, :3] = _LPS_TO_RAS @ np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = _LPS_TO_RAS @ image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image).T, affine


def read_itk(path: Path, reader: str, shape: tuple[int, int, int]) -> tuple[Array3D, Affine]:
    """Read a file whose bounds have been checked.

    Parameters
    ----------
    path : Path
    reader : str
        SimpleITK's name for the format, such as ``"NrrdImageIO"``.
    shape : tuple of int
        What the check has found in the header; SimpleITK must find the same.
    """
    import SimpleITK

    try:
        image = SimpleITK.ReadImage(str(path), imageIO=reader)
    except RuntimeError as error:
        raise FileError(f"{path}: cannot be read ({_reason(error)})") from error
    if image.GetSize() != shape or image.GetNumberOfComponentsPerPixel() != 1:
        found = f"{image.GetSize()} with {image.GetNumberOfComponentsPerPixel()} values a voxel"
        raise FileError(f"{path}: not a volume with one value a voxel: its size is {found}")
    return from_itk(image)


def write_itk(array: Array3D, affine: Affine, path: Path, writer: str, check: Callable[[Path], object]) -> None:
    """Write a compressed file in the named format, and check that it is whole; `OSError` if it is not."""
    import SimpleITK

    try:
        SimpleITK.WriteImage(to_itk(array, affine), str(path), useCompression=True, imageIO=writer)
        check(path)
    except (RuntimeError, FileError) as error:
        raise OSError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """Return the last line of ITK's message, which says what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
