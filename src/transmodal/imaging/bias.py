"""Correction of the slow change of brightness across an MR: N4 (Tustison et al., IEEE Trans Med Imaging 2010;29:1310)."""

import numpy as np

from transmodal.core.volume import Volume
from transmodal.imaging.grid import isotropic_grid, resample

# The field is smooth: it is estimated on a coarse grid, and taken from there to the scan's own.
_WORKING_MM = 4.0
_ITERATIONS = (50, 50, 50, 50)


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
    """
    import SimpleITK

    grid = isotropic_grid(scan.grid, max(_WORKING_MM, min(scan.spacing)))
    coarse, inside = np.asarray(resample(scan, grid).array), np.asarray(resample(mask, grid).array) > 0
    image = SimpleITK.GetImageFromArray(np.maximum(coarse, np.float32(1e-3)).T)
    n4 = SimpleITK.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(_ITERATIONS)
    n4.Execute(image, SimpleITK.GetImageFromArray(inside.astype(np.uint8).T))
    log_field = SimpleITK.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image)).T.astype(np.float32)
    # Beyond the coarse grid's outermost voxels there is hardly any head, and no field: a factor of 1.
    field = np.exp(resample(Volume(log_field, grid.affine, "mr"), scan.grid, fill=0.0).array)
    corrected = scan.array / field
    head = resample(mask, scan.grid).array > 0
    return scan.with_array((corrected * (scan.array[head].mean() / corrected[head].mean())).astype(np.float32))
