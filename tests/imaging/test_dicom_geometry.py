import shutil

import numpy as np
import pydicom
import pytest
from highdicom.spatial import get_volume_positions
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    JPEGLSLossless,
)
from scipy.ndimage import map_coordinates, maximum_filter
from skimage.registration import phase_cross_correlation

from dicom_series import rotated, straight, write_slices
from transmodal.core.errors import DataError, GeometryError
from transmodal.imaging.dicom_geometry import irregularity, stack
from transmodal.imaging.dicom_planes import planes_of
from transmodal.imaging.dicom_read import find_series, read_series
from transmodal.imaging.grid import canonical
from transmodal.imaging.scan import read_scan

SHAPE = (7, 6, 5)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@pytest.fixture
def array():
    return np.random.default_rng(0).integers(-1000, 2000, SHAPE).astype(np.int16)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_ramp_in_space_stays_that_ramp_whatever_the_tilt_and_the_gaps(seed, tmp_path_factory):
    """Linear interpolation at the true places reproduces a linear image exactly; at any other places it does not."""
    rng = np.random.default_rng(seed)
    cosines = rotated(seed)
    normal = np.cross(cosines[:3], cosines[3:])
    heights = np.cumsum(rng.uniform(0.5, 5, 6))
    positions = np.array([5.0, -8.0, 3.0]) + heights[:, None] * (normal + rng.uniform(-0.5, 0.5) * np.array(cosines[3:]))
    positions = np.array([[float(f"{v:.8g}") for v in position] for position in positions])
    gradient = rng.uniform(-2, 2, 3)
    i, j = np.meshgrid(np.arange(20), np.arange(18), indexing="ij")
    points = positions[None, None] + (i[..., None] * 0.75 * np.array(cosines[:3]) + j[..., None] * 1.5 * np.array(cosines[3:]))[:, :, None]
    array = np.rint(points @ gradient * 100)
    folder = write_slices(tmp_path_factory.mktemp("s"), array, positions, ImageOrientationPatient=list(cosines), RescaleSlope="0.01")
    scan = read_series(folder, "ct", force_geometry=True)
    inside = scan.volume.array > -1000
    world = scan.volume.grid.to_world(np.argwhere(inside).astype(float)) @ LPS_TO_RAS
    assert inside.mean() > 0.2
    assert np.abs(scan.volume.array[inside] - world @ gradient).max() < 0.01
    assert scan.regularized == (irregularity(scan.series.stack) is not None)
    assert "resampled onto a regular grid" in scan.series.note


def test_a_missing_slice_is_interpolated_between_its_neighbours(array, tmp_path):
    folder = write_slices(tmp_path, array, edit=lambda ds, k: k != 2)
    scan = read_series(folder, "ct", force_geometry=True)
    expected = array.astype(np.float32)
    expected[:, :, 2] = (expected[:, :, 1] + expected[:, :, 3]) / 2
    np.testing.assert_allclose(scan.volume.array, expected, atol=1e-3)
    assert scan.regularized
    assert "1 missing slice" in scan.series.note


def test_lossy_compression_must_be_accepted(array, tmp_path):
    folder = write_slices(tmp_path, array, LossyImageCompression="01")
    with pytest.raises(DataError, match=r"5 files have been through lossy compression.*--force-geometry"):
        read_series(folder, "ct")
    scan = read_series(folder, "ct", force_geometry=True)
    assert "lossy" in scan.series.note
    assert not scan.regularized
    np.testing.assert_array_equal(scan.volume.array, array)


def test_a_lossy_syntax_must_be_accepted(tmp_path):
    """JPEG-LS may be lossy under this UID; this one happens to be whole."""
    array = np.random.default_rng(0).integers(-1000, 2000, (40, 36, 3)).astype(np.int16)
    folder = write_slices(tmp_path, array, edit=lambda ds, k: ds.compress(JPEGLSLossless, generate_instance_uid=False))
    for path in folder.glob("*.dcm"):
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.4.80", b"1.2.840.10008.1.2.4.81"))
    with pytest.raises(DataError, match="lossy"):
        read_series(folder, "ct")
    np.testing.assert_array_equal(read_series(folder, "ct", force_geometry=True).volume.array, array)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["straight", "missing", "tilt", "uneven"]))
def test_highdicom_finds_the_same_stacks_regular(seed, kind, tmp_path_factory):
    rng = np.random.default_rng(seed)
    cosines = np.array(rotated(seed))
    positions = straight(8, rng.uniform(0.8, 5), cosines)
    if kind == "missing":
        positions = np.delete(positions, rng.integers(1, 7), axis=0)
    if kind == "tilt":
        positions = positions + np.arange(8)[:, None] * rng.uniform(0.3, 1) * cosines[:3]
    if kind == "uneven":
        positions[3] += 0.3 * (positions[1] - positions[0])
    folder = write_slices(
        tmp_path_factory.mktemp("s"), np.zeros((2, 2, len(positions)), np.int16), positions, ImageOrientationPatient=list(cosines)
    )
    (series,) = find_series(folder)
    spacing, _ = get_volume_positions(positions, cosines, perpendicular_tol=1e-6)
    assert (series.problem is None) == (spacing is not None)
    if spacing is not None:
        assert series.stack.slice_mm == pytest.approx(spacing, abs=1e-4)


def test_the_planes_of_a_stack_are_ordered_along_their_normal(array, tmp_path):
    scan = read_series(write_slices(tmp_path, array), "ct")
    planes = [plane for file in scan.series.files for plane in planes_of(file)]
    assert [plane.name for plane in stack(planes).planes] == [plane.name for plane in stack(planes[::-1]).planes]
    heights = [plane.position[2] for plane in scan.planes]
    assert heights == sorted(heights)


def on_plane(volume, plane, indices):
    """Values of the volume at (row, column) indices of a slice, at the places that the file itself gives."""
    ds = pydicom.dcmread(plane.file.path)
    origin, cosines = np.array(ds.ImagePositionPatient, float), np.array(ds.ImageOrientationPatient, float)
    rows, columns = (indices * np.array(ds.PixelSpacing, float)).T[..., None]
    lps = origin + columns * cosines[:3] + rows * cosines[3:]
    return map_coordinates(volume.array.astype(np.float32), volume.grid.to_voxel(lps @ LPS_TO_RAS).T, order=1, mode="nearest")


def landmark_errors_mm(volume, plane):
    """How far the brightest place around each landmark (a point of dense bone) of a slice is from it in the volume."""
    ds = pydicom.dcmread(plane.file.path)
    pixels = ds.pixel_array.astype(float)
    steps = np.arange(-8, 8.1, 0.25)
    offsets = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    landmarks = np.argwhere((pixels == maximum_filter(pixels, 31)) & (pixels > 900))
    found = [offsets[on_plane(volume, plane, landmark + offsets).argmax()] for landmark in landmarks]
    return [np.linalg.norm(offset * np.array(ds.PixelSpacing, float)) for offset in found]


def shift_mm(volume, plane):
    """How far a whole slice must be moved to fit the volume."""
    ds = pydicom.dcmread(plane.file.path)
    pixels = ds.pixel_array.astype(float)
    inside = on_plane(volume, plane, np.argwhere(np.ones(pixels.shape))).reshape(pixels.shape)
    window = (-200, 1200)
    shift, *_ = phase_cross_correlation(np.clip(pixels, *window), np.clip(inside, *window), upsample_factor=20, normalization=None)
    return np.linalg.norm(shift * np.array(ds.PixelSpacing, float))


def test_a_real_ct_with_a_tilted_gantry_is_refused_and_right_when_forced(shared_data):
    """A reader that takes the first position and the mean gap is off by 19 mm in the last slices of this scan."""
    folder = shared_data / "ct_gantry_tilt_dicom"
    with pytest.raises(GeometryError, match=r"gantry tilt of 18\.5 degrees.*uneven gaps of 1\.08"):
        read_series(folder, "ct")
    scan = read_series(folder, "ct", force_geometry=True)
    assert scan.volume.array.min() == -1024
    errors = np.concatenate([landmark_errors_mm(scan.volume, plane) for plane in scan.planes[::3]])
    assert len(errors) > 100
    assert np.median(errors) < 0.488
    assert max(shift_mm(scan.volume, plane) for plane in scan.planes[::5]) < 0.488


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_real_head_is_the_same_by_dicom_in_any_cut(shared_data, tmp_path, axis):
    """So that whatever is computed from it is the same too."""
    head = read_scan(shared_data / "heads" / "t1_head.nii.gz", "mr")
    order = [(1, 2, 0), (0, 2, 1), (0, 1, 2)][axis]
    array = head.array.transpose(order).astype(np.int16)
    along = LPS_TO_RAS @ head.affine[:3, :3][:, order]
    start = LPS_TO_RAS @ head.affine[:3, 3]
    positions = start + np.arange(array.shape[2])[:, None] * along[:, 2]
    spacing = np.linalg.norm(along, axis=0)
    cosines = (along[:, :2] / spacing[:2]).T.ravel().tolist()
    write_slices(tmp_path, array, positions, modality="MR", ImageOrientationPatient=cosines, PixelSpacing=list(spacing[1::-1]))
    found, expected = canonical(read_series(tmp_path, "mr").volume), canonical(head)
    assert found.grid.matches(expected.grid)
    np.testing.assert_array_equal(found.array, expected.array)


def test_a_copy_of_the_same_image_is_named(array, tmp_path):
    folder = write_slices(tmp_path, array)
    shutil.copy(folder / "0000.dcm", folder / "copy.dcm")
    with pytest.raises(GeometryError, match=r"0000\.dcm and .*copy\.dcm .*keep one of each"):
        read_series(folder, "ct")
