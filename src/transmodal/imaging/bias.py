"""Correction of the slow change of brightness across an MR: N4 (Tustison et al., IEEE Trans Med Imaging 2010;29:1310)."""

import numpy as np

from transmodal.core.errors import DataError
from transmodal.core.volume import Volume
from transmodal.imaging.grid import isotropic_grid, resample

# The field is smooth: a voxel in every cube of this size is enough to estimate it, and takes a hundredth of the time.
_WORKING_MM = 6.0
# For each of the levels, over which the spacing of the control points halves.
_ITERATIONS = (25, 25, 25)


def correct_bias(scan: Volume, mask: Volume) -> Volume:
    """Divide an MR by its bias field.

    Parameters
    ----------
    scan : Volume
        An MR without negative intensities.
    mask : Volume
        The head, on any grid: only there is the field estimated.

    Returns
    -------
    Volume
        float32, with the mean inside the mask unchanged.

    Raises
    ------
    DataError
        If the mask is empty.
    """
    import SimpleITK

    grid = isotropic_grid(scan.grid, max(_WORKING_MM, min(scan.spacing)))
    # Single voxels, not means over a cube: N4 sharpens the histogram, which partial volumes would have smeared.
    coarse, inside = np.asarray(resample(scan, grid, order=0).array), np.asarray(resample(mask, grid).array) > 0
    if not inside.any():
        raise DataError("the mask is empty on the grid of the MR; check that it belongs to this scan")
    image = SimpleITK.GetImageFromArray(np.maximum(coarse, np.float32(1e-3)).T)
    n4 = SimpleITK.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(_ITERATIONS)
    n4.Execute(image, SimpleITK.GetImageFromArray(inside.astype(np.uint8).T))
    log_field = SimpleITK.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image)).T.astype(np.float32)
    # The grid covers the scan: nothing lies beyond it.
    field = np.exp(resample(Volume(log_field, grid.affine, "mr"), scan.grid, fill=0.0).array)
    corrected = scan.array / field
    head = resample(mask, scan.grid).array > 0
    return scan.with_array((corrected * (scan.array[head].mean() / corrected[head].mean())).astype(np.float32))
