"""One real head, stored in all the ways that heads are stored, gives one synthetic CT in physical space."""

import nibabel
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dicom_series import straight, write_slices
from transmodal.core.errors import GeometryError
from transmodal.core.volume import Grid, Volume
from transmodal.imaging.dicom_read import read_series
from transmodal.imaging.grid import canonical, isotropic_grid, resample
from transmodal.imaging.preparation import Preparation
from transmodal.imaging.scan import read_scan, write_scan
from transmodal.methods.recipe import load_recipe
from transmodal.workflows.prepare import prepare
from transmodal.workflows.synthesize import synthesize
from transmodal.workflows.train import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(heads, tmp_path_factory):
    """A network that has learned a little, at 3 mm."""
    folder = tmp_path_factory.mktemp("model")
    prepare(heads, folder / "dataset", Preparation(spacing_mm=3.0))
    train(load_recipe("unet2d-quick", ["train.steps=60", "train.batch_size=4"]), folder / "dataset", folder / "run", quiet=True)
    return folder / "run"


@pytest.fixture(scope="module")
def original(shared_data, run, tmp_path_factory):
    """The scan as it came, and its synthetic CT."""
    path = shared_data / "heads" / "t1_head.nii.gz"
    out = tmp_path_factory.mktemp("original") / "sct.nii.gz"
    synthesize(path, out, run)
    return read_scan(path, "mr"), read_scan(out, "ct")


def to_dicom(mr: Volume, folder):
    """Axial slices of the head; rows run to the left and columns to the back."""
    turned = nibabel.orientations.apply_orientation(canonical(mr).array, [[0, -1], [1, -1], [2, 1]])
    first = canonical(mr).grid.to_world(np.array([mr_n - 1.0 for mr_n in canonical(mr).shape[:2]] + [0.0]))
    positions = straight(turned.shape[2], 1.0, start=(-first[0], -first[1], first[2]))
    return write_slices(folder, turned.astype(np.int16), positions, modality="MR", PixelSpacing=["1", "1"], SliceThickness="1")


def to_mgz(mr: Volume, folder):
    write_scan(mr, folder / "head.mgz")
    return folder / "head.mgz"


def to_left_handed(mr: Volume, folder):
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = mr.shape[0] - 1
    assert np.linalg.det(mr.affine[:3, :3]) * np.linalg.det((mr.affine @ flip)[:3, :3]) < 0
    write_scan(Volume(mr.array[::-1].copy(), mr.affine @ flip, "mr"), folder / "head.nii.gz")
    return folder / "head.nii.gz"


@pytest.mark.parametrize("store", [to_dicom, to_mgz, to_left_handed])
def test_the_way_of_storing_does_not_matter(store, original, run, tmp_path):
    mr, expected = original
    source = store(mr, tmp_path / "in") if store is to_dicom else store(mr, tmp_path)
    synthesize(source, tmp_path / "out.nii.gz", run)
    result = canonical(read_scan(tmp_path / "out.nii.gz", "ct"))
    wanted = canonical(expected)
    assert result.grid.matches(wanted.grid, tolerance_mm=1e-2)
    difference = np.abs(result.array.astype(int) - wanted.array)
    assert difference.max() <= 2
    assert difference.mean() < 0.01


def test_an_oblique_copy_agrees_but_for_interpolation(original, run, tmp_path):
    mr, expected = original
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("zx", [17, -11], degrees=True).as_matrix()
    middle = mr.grid.center
    turn[:3, 3] = middle - turn[:3, :3] @ middle
    around = isotropic_grid(Grid(mr.shape, np.linalg.inv(turn) @ mr.affine), 1.0, upright=True)
    oblique = resample(mr, Grid(around.shape, turn @ around.affine), order=3)
    write_scan(oblique.with_array(np.clip(oblique.array, 0, None)), tmp_path / "head.nii.gz")
    synthesize(tmp_path / "head.nii.gz", tmp_path / "out.nii.gz", run)
    result = resample(read_scan(tmp_path / "out.nii.gz", "ct"), expected.grid, fill=-1000)
    # Its working grid lies elsewhere by parts of a voxel.
    inside = expected.array > -900
    assert np.corrcoef(result.array[inside], expected.array[inside])[0, 1] > 0.9


def test_a_real_dicom_head_gives_the_same_as_the_file_made_of_it(heads, shared_data, tmp_path):
    """The one with a tilted gantry, which is a CT: from it to an MR."""
    prepare(heads, tmp_path / "dataset", Preparation(spacing_mm=3.0))
    recipe = load_recipe("unet2d-quick", ['direction="ct2mr"', "train.steps=20", "train.batch_size=4"])
    train(recipe, tmp_path / "dataset", tmp_path / "run", quiet=True)
    source = shared_data / "ct_gantry_tilt_dicom"
    with pytest.raises(GeometryError, match="gantry tilt"):
        synthesize(source, tmp_path / "refused.nii.gz", tmp_path / "run")
    synthesize(source, tmp_path / "of_dicom.nii.gz", tmp_path / "run", force_geometry=True)
    write_scan(read_series(source, "ct", force_geometry=True).volume, tmp_path / "ct.nii.gz")
    synthesize(tmp_path / "ct.nii.gz", tmp_path / "of_file.nii.gz", tmp_path / "run")
    one, other = (read_scan(tmp_path / f"of_{name}.nii.gz", "mr") for name in ("dicom", "file"))
    assert one.grid.matches(other.grid, tolerance_mm=1e-2)
    np.testing.assert_allclose(one.array, other.array, atol=2.0)


def test_a_dicom_head_gives_the_same_as_a_series_and_as_a_file(original, run, tmp_path):
    mr, _ = original
    source = to_dicom(mr, tmp_path / "in")
    synthesize(source, tmp_path / "series", run)
    synthesize(source, tmp_path / "out.nii.gz", run)
    one, other = canonical(read_series(tmp_path / "series", "ct").volume), canonical(read_scan(tmp_path / "out.nii.gz", "ct"))
    np.testing.assert_array_equal(one.array, other.array)
    assert one.grid.matches(other.grid)
