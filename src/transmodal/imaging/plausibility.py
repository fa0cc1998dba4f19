"""Whether the voxels of a scan can be what they are said to be: a CT in Hounsfield units, or an MR, of some of a head."""

import numpy as np
from jaxtyping import Shaped

from transmodal.core.errors import DataError, GeometryError
from transmodal.core.volume import Volume

Values = Shaped[np.ndarray, "x y z"]

# Less than this along any axis shows no head: a single slice, a navigator, a crop that went wrong.
_LEAST_EXTENT_MM = 20.0
# From soft tissue to bone or to air it is further than this, in a CT of whatever part of a head.
_LEAST_RANGE_HU = 500.0
# Fat, air cells and the noise of water are below this in at least a thousandth of a CT in HU, however it is cropped.
_FAT_HU, _LEAST_FAT = -20.0, 1e-3
# Air around and in a head, in a CT that has any: it lies near -1000 HU even in an average or a resampled image.
_AIR_HU = (-1100.0, -850.0)
_LEAST_AIR = 0.01
# A CT that is stored with 1000 or 1024 added has its soft tissue here, little between that and air, and nothing where fat and air are.
_SHIFTED_TISSUE, _SHIFTED_BETWEEN, _SHIFTED_NOTHING = (900.0, 1200.0), (300.0, 800.0), (-1100.0, -100.0)


def require_plausible(volume: Volume, name: str) -> Volume:
    """Return the volume itself, or raise if it cannot be a scan of its modality.

    A CT must have values on both sides of water and further apart than soft tissues are; one with 1000 or 1024 added to its HU is
    recognized by its soft tissue. An MR must not have air near -1000. What passes may still be wrong: a CT with an offset that
    is given as an MR looks like one.

    Parameters
    ----------
    volume : Volume
        Of finite values. Masks and label maps pass.
    name : str
        The file, for the message.

    Raises
    ------
    GeometryError
        If it is a single slice, or less than 20 mm along an axis.
    DataError
        If the values are not those of the modality.
    """
    if volume.modality in ("mr", "ct"):
        _require_extent(volume, name)
        _require_contrast(np.asarray(volume.array), name)
    if volume.modality == "ct":
        _require_hounsfield(np.asarray(volume.array), name)
    if volume.modality == "mr":
        _require_no_air(np.asarray(volume.array), name)
    return volume


def _require_extent(volume: Volume, name: str) -> None:
    extent = np.multiply(volume.shape, volume.spacing)
    if min(volume.shape) < 2 or extent.min() < _LEAST_EXTENT_MM:
        raise GeometryError(
            f"{name}: {volume.grid.describe()}: too little of a head; give the whole scan, at least {_LEAST_EXTENT_MM:g} mm along each axis"
        )


def _require_contrast(values: Values, name: str) -> None:
    if values.min() == values.max():
        raise DataError(f"{name}: the image is constant: every voxel is {values.min():g}; export the scan again")


def _require_hounsfield(values: Values, name: str) -> None:
    low, high = float(values.min()), float(values.max())
    if high - low < _LEAST_RANGE_HU:
        raise DataError(f"{name}: not a CT in HU: its values go from {low:g} to {high:g}; undo any normalization, or give an MR as an MR")
    if _is_shifted(values):
        raise DataError(
            f"{name}: not a CT in HU: soft tissue lies near 1000, as in a CT that is stored unsigned (HU + 1024) without saying so; "
            "subtract 1024 (or the offset that it has) from every voxel"
        )
    if np.mean(values < _FAT_HU) < _LEAST_FAT:
        raise DataError(
            f"{name}: not a CT in HU: of values from {low:g} to {high:g}, hardly any is below {_FAT_HU:g} HU, where fat and air are; "
            "if it is stored with an offset, subtract it (often 1024); if it was clipped or masked, set the outside to -1000; "
            "if it is an MR, give it as one"
        )


def _is_shifted(values: Values) -> bool:
    tissue, between, nothing = (_share(values, span) for span in (_SHIFTED_TISSUE, _SHIFTED_BETWEEN, _SHIFTED_NOTHING))
    return tissue > max(0.05, 2 * between) and nothing < 0.01


def _require_no_air(values: Values, name: str) -> None:
    air = _share(values, _AIR_HU)
    if air > _LEAST_AIR:
        raise DataError(
            f"{name}: not an MR: {air:.0%} of its voxels lie near -1000, as air does in a CT in HU; give the MR, "
            "or a model and a --direction that start from CT"
        )


def _share(values: Values, between: tuple[float, float]) -> float:
    return float(np.mean((values > between[0]) & (values < between[1])))
