"""Masks of a head: everything inside its skin, the hull around it, and what the skull encloses."""

import numpy as np
from jaxtyping import Bool, Float, Int

from transmodal.core.errors import DataError
from transmodal.core.volume import Grid, Volume
from transmodal.imaging.grid import isotropic_grid, resample

Image = Float[np.ndarray, "x y z"]
Mask = Bool[np.ndarray, "*axes"]

# The head is found on a grid this coarse, whose axes run nearest to right, front and top: fine enough for skin, and quick.
_WORKING_MM = 2.0
# Skin and soft tissue are above this; air, foam and blankets below.
_TISSUE_HU = -300.0
# Thinner pieces than this are no part of the head: shells and plates of a headrest or a table ...
_SUPPORT_MM = 16.0
# ... unless they are smaller than this: ears, the tip of the nose.
_APPENDAGE_MM3 = 20e3
# Holes in an axial slice below this are nostrils and ear canals; above it may be the air between head and headrest.
_NOSTRIL_MM2 = 400.0
# Gaps in the outline up to twice this are closed: the ways into nose and mouth, dark skull under a weak scalp.
_GAP_MM = 10.0
# Below this part of the range of an MR, intensities are taken for noise rather than for weaker and weaker signal.
_NOISE_FLOOR = 0.02
# Pieces of an MR smaller than this are noise, ghosts or markers.
_SPECK_MM3 = 10e3
# Standard deviation of the surroundings that the intensity of an MR at the skin is compared with.
_NEIGHBOURHOOD_MM = 8.0
# Intensities outside these percentiles move Otsu's threshold: metal, vessels, and what lies outside a scanner's field of view.
_OUTLIERS = (1.0, 99.8)
# Half the width of the widest way out of the cavity of the brain, the spinal canal.
_CANAL_MM = 12.0
# Around bone, where its partial volume is.
_BONE_RIM_MM = 1.5
# Below all tissue of the brain, but not so far below that air would take most of the range.
_EMPTY_HU = -100.0
# From the centre of a voxel to its corners, in voxels.
_CUBE = np.stack(np.meshgrid(*[(-0.5, 0.5)] * 3, indexing="ij"), axis=-1).reshape(8, 3)


def head_mask(volume: Volume) -> Volume:
    """Segment the head, its cavities (sinuses, mouth, windpipe) included.

    Parameters
    ----------
    volume : Volume
        An MR, whose intensities may vary severalfold across the head, or a CT in HU, in which a table and cushions may be seen.

    Returns
    -------
    Volume
        bool, on the grid of `volume`: one connected piece without holes.

    Raises
    ------
    DataError
        If `volume` is a mask or a label map, or no head is found in it.
    """
    find_tissue = {"mr": _mr_tissue, "ct": _ct_tissue}.get(volume.modality)
    if find_tissue is None:
        raise DataError(f"a head mask is made from an MR or a CT, not from a volume of modality {volume.modality!r}")
    coarse = resample(volume, isotropic_grid(volume.grid, _WORKING_MM))
    solid = _solid(find_tissue(np.asarray(coarse.array)))
    mask = _on_grid(coarse.with_array(solid, "mask"), volume.grid)
    if not mask.array.any():
        raise DataError(f"no head was found in this {volume.modality}: nothing stands out from the background")
    return mask


def hull_mask(volume: Volume) -> Volume:
    """Lay a convex hull around the largest region above Otsu's threshold (1979).

    Our reading of "binarizing the CT image (using Otsu's method) and finding the largest convex area" in the paper on synthetic CT
    from bone MRI with the Light_U-Net: its whole text says no more.

    Parameters
    ----------
    volume : Volume
        A CT; or an MR, where prediction has nothing else: there the dark skull parts scalp from brain, so all regions but specks count.

    Returns
    -------
    Volume
        bool, on the grid of `volume`.

    Raises
    ------
    DataError
        If the volume is constant.
    """
    coarse = resample(volume, isotropic_grid(volume.grid, _WORKING_MM))
    image = np.asarray(coarse.array)
    region = np.argwhere(_mr_tissue(image) if volume.modality == "mr" else _ct_region(image)).astype(np.float64)
    if not len(region):
        raise DataError(f"no head was found in this {volume.modality}: nothing stands out from the background")
    corners = _hull_corners(_hull_corners(region)[:, None] + _CUBE)
    return Volume(_inside_hull(volume.grid.to_voxel(coarse.grid.to_world(corners)), volume.shape), volume.affine, "mask")


def _ct_region(image: Image) -> Mask:
    """Find the largest region above Otsu's threshold."""
    from skimage.filters import threshold_otsu

    values = np.clip(image, *np.percentile(image, _OUTLIERS).astype(np.float32))
    # Of equal values Otsu's threshold is that value, which none exceeds.
    return _largest(values > threshold_otsu(values))


def _hull_corners(points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "corners 3"]:
    from scipy.spatial import ConvexHull

    points = points.reshape(-1, 3)
    # A region in a plane has no hull until its voxels have their thickness.
    return points if np.linalg.matrix_rank(points - points[0]) < 3 else points[ConvexHull(points).vertices]


def _inside_hull(corners: Float[np.ndarray, "n 3"], shape: tuple[int, int, int]) -> Mask:
    """Voxels in a hull given in indices: in every column along the last axis, those between the faces above and below."""
    from scipy.spatial import ConvexHull

    normals, offsets = np.split(ConvexHull(corners).equations, [3], axis=1)  # inside, normal . point + offset <= 0
    steep = np.abs(normals[:, 2]) > 1e-9
    mask = np.zeros(shape, dtype=bool)
    j, k = np.arange(shape[1])[:, None], np.arange(shape[2])
    for i in range(shape[0]):
        beyond = normals[:, 0] * i + normals[:, 1] * j + offsets[:, 0]  # (column, face)
        crossing = -beyond[:, steep] / normals[steep, 2]
        upper = np.min(crossing, axis=1, where=normals[steep, 2] > 0, initial=np.inf)
        lower = np.max(crossing, axis=1, where=normals[steep, 2] < 0, initial=-np.inf)
        between = (k >= lower[:, None]) & (k <= upper[:, None])
        mask[i] = between & (beyond[:, ~steep] <= 0).all(axis=1, keepdims=True)
    return mask


def without_skull(ct: Volume, threshold_hu: float = 150.0) -> Volume:
    """Keep what the skull encloses: what a skull-stripped MR can be registered to.

    As the paper on MR-GAN does, all above a threshold is taken out; the scalp, which is then loose, too.

    Parameters
    ----------
    ct : Volume
    threshold_hu : float
        Bone is above it.

    Returns
    -------
    Volume
        The CT in HU, of one value below that of all tissue (-100) outside the cavity of the brain.

    Raises
    ------
    DataError
        If no skull is found.
    """
    coarse = resample(ct, isotropic_grid(ct.grid, _WORKING_MM))
    image = np.asarray(coarse.array)
    bone = image > threshold_hu
    if not bone.any():
        raise DataError(f"no skull was found in this {ct.modality}: nothing is above {threshold_hu:g} HU; choose a lower threshold")
    soft = (image > _TISSUE_HU) & ~_dilated(bone, _BONE_RIM_MM)
    cavity = _dilated(_largest(_eroded(soft, _CANAL_MM)), _CANAL_MM) & soft
    inside = _on_grid(coarse.with_array(cavity, "mask"), ct.grid)
    kept = np.asarray(inside.array) & (ct.array <= threshold_hu)
    return ct.with_array(np.where(kept, ct.array, np.float32(_EMPTY_HU)).astype(np.float32))


def _mr_tissue(image: Image) -> Mask:
    """Find what is brighter than the background, and of that, what is brighter than half of the tissue around it.

    Otsu's threshold (1979) is taken on the logarithm, where a smooth bias shifts tissue and never reaches the background. It is low,
    so that alone it would draw the outline a voxel outside the skin.
    """
    from scipy.ndimage import gaussian_filter
    from skimage.filters import threshold_otsu

    smooth = gaussian_filter(image, 0.5)
    low, high = np.percentile(smooth, (1, 99))
    if high <= low:
        return np.zeros(image.shape, dtype=bool)
    signal = np.clip((smooth - low) / (high - low), 0, 1)
    level = np.log(signal + _NOISE_FLOOR)
    tissue = level > threshold_otsu(level)
    width = _NEIGHBOURHOOD_MM / _WORKING_MM
    around = gaussian_filter(signal * tissue, width) / np.maximum(gaussian_filter(tissue.astype(np.float32), width), 1e-3)
    bright = tissue & (signal > 0.5 * around)
    pieces, sizes = _pieces(bright)  # the skull may part the scalp from the brain: keep both
    return bright & (sizes >= _SPECK_MM3 / _WORKING_MM**3)[pieces]


def _ct_tissue(image: Image) -> Mask:
    """Find the thickest piece of soft tissue and bone, with its small appendages and without what rests against it."""
    tissue = np.stack([_filled(axial, _NOSTRIL_MM2 / _WORKING_MM**2) for axial in np.moveaxis(image > _TISSUE_HU, 2, 0)], axis=2)
    body = _dilated(_largest(_eroded(tissue, _SUPPORT_MM / 2)), _SUPPORT_MM / 2) & tissue
    pieces, sizes = _pieces(tissue & ~body)
    small = sizes < _APPENDAGE_MM3 / _WORKING_MM**3
    small[0] = False
    return _largest(body | small[pieces])


def _solid(tissue: Mask) -> Mask:
    """Close gaps in the outline, then fill what is enclosed in any slice: cavities that lead out of the field of view, too."""
    width = int(_GAP_MM / _WORKING_MM) + 1
    padded = np.pad(tissue, width, mode="edge")
    mask = _eroded(_dilated(padded, _GAP_MM), _GAP_MM)[(slice(width, -width),) * 3]
    for axis in range(3):
        mask = np.stack([_filled(plane) for plane in np.moveaxis(mask, axis, 0)], axis=axis)
    return mask


def _on_grid(mask: Volume, grid: Grid) -> Volume:
    """Bring a coarse mask to a finer grid with a smooth outline, in one piece and without holes."""
    from scipy.ndimage import find_objects, gaussian_filter

    soft = mask.with_array(gaussian_filter(mask.array.astype(np.float32), 0.5), "mr")
    fine = np.asarray(resample(soft, grid).array) > 0.5
    for box in find_objects(fine.view(np.int8)):  # the one box around all of it, unless there is nothing
        fine[box] = _filled(_largest(fine[box]))
    return Volume(fine, grid.affine, "mask")


def _largest(mask: Mask) -> Mask:
    """Keep the largest face-connected piece."""
    pieces, sizes = _pieces(mask)
    return pieces == 1 + sizes[1:].argmax() if len(sizes) > 2 else mask


def _filled(mask: Mask, below: float = np.inf) -> Mask:
    """Fill the background that does not reach the border, in pieces smaller than `below` voxels."""
    pieces, sizes = _pieces(~mask)
    hole = sizes < below
    hole[0] = False
    for axis in range(mask.ndim):
        hole[np.take(pieces, (0, -1), axis)] = False
    return mask | hole[pieces]


def _pieces(mask: Mask) -> tuple[Int[np.ndarray, " *axes"], Int[np.ndarray, " n"]]:
    """Label the face-connected pieces from 1 up (0 is the rest), and count the voxels of each."""
    from scipy.ndimage import label

    pieces = np.empty(mask.shape, dtype=np.int32)
    label(mask, output=pieces)
    return pieces, np.bincount(pieces.ravel())


def _dilated(mask: Mask, radius_mm: float) -> Mask:
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(~mask)) <= radius_mm / _WORKING_MM if mask.any() else mask


def _eroded(mask: Mask, radius_mm: float) -> Mask:
    return ~_dilated(~mask, radius_mm)
