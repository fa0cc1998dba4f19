import numpy as np
import pytest
from scipy.ndimage import binary_fill_holes, gaussian_filter, label

from transmodal.core.errors import DataError
from transmodal.core.volume import Grid, Volume
from transmodal.imaging.grid import resample
from transmodal.imaging.masks import head_mask, hull_mask, without_skull
from transmodal.imaging.scan import read_scan

# Stored as many MR are: to the left, to the bottom, to the front; the field of view ends within the neck.
SPACING = 2.5
AFFINE = np.array([[-SPACING, 0, 0, 100], [0, 0, SPACING, -115], [0, -SPACING, 0, 100], [0, 0, 0, 1]])
SHAPE = (80, 66, 88)
X, Y, Z = Grid(SHAPE, AFFINE).to_world(np.indices(SHAPE).reshape(3, -1).T.astype(float)).T.reshape(3, *SHAPE)
RADIUS = np.sqrt((X / 75) ** 2 + (Y / 90) ** 2 + (Z / 80) ** 2)
HEAD = RADIUS < 1
SKULL = (RADIUS > 0.83) & (RADIUS < 0.93)
SINUS = (X / 20) ** 2 + ((Y - 55) / 14) ** 2 + (Z / 14) ** 2 < 1
WINDPIPE = (X**2 + (Y - 30) ** 2 < 9**2) & (Z < -20)


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * float((first & second).sum()) / float(first.sum() + second.sum())


def mr(bias: float = 1.0, noise: float = 10.0) -> Volume:
    """A bright scalp and brain, a dark skull, air inside; `bias` is the ratio of the strongest to the weakest sensitivity."""
    rng = np.random.default_rng(0)
    signal = np.where(HEAD, 600.0, 0.0)
    signal[SKULL] = 40
    signal[SINUS | WINDPIPE] = 0
    signal *= bias ** (0.5 * np.sin(X / 60 + 0.5) * np.cos(Z / 70))
    image = np.hypot(gaussian_filter(signal, 0.5) + rng.normal(0, noise, SHAPE), rng.normal(0, noise, SHAPE))
    return Volume(image.astype(np.float32), AFFINE, "mr")


def ct(*furniture: str) -> Volume:
    hu = np.where(HEAD, 40.0, -1000.0)
    hu[SKULL] = 900
    hu[SINUS | WINDPIPE] = -1000
    outside = ~HEAD
    if "table" in furniture:
        hu[outside & (Y < -90) & (Y > -103)] = 80
    if "cushion" in furniture:
        hu[outside & (Y < -40)] = np.maximum(hu, -850)[outside & (Y < -40)]
    if "headrest" in furniture:
        shell = np.hypot(X, Y + 10)
        hu[outside & (shell > 80) & (shell < 85) & (Y < -20)] = 300
    noisy = gaussian_filter(hu, 0.5) + np.random.default_rng(1).normal(0, 25, SHAPE)
    return Volume(noisy.astype(np.int16), AFFINE, "ct")


def assert_is_head(volume: Volume, least_dice: float) -> None:
    result = head_mask(volume)
    mask = np.asarray(result.array)
    assert result.modality == "mask" and mask.dtype == bool and result.grid.matches(volume.grid)
    assert label(mask)[1] == 1
    assert (binary_fill_holes(mask) == mask).all()
    assert mask[SINUS].all()
    assert mask[WINDPIPE].mean() > 0.99
    assert dice(mask, HEAD) > least_dice


@pytest.mark.parametrize("bias", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("noise", [3.0, 30.0])
def test_an_mr_with_bias_noise_and_air_inside(bias, noise):
    assert_is_head(mr(bias, noise), 0.97)


@pytest.mark.parametrize("furniture", [(), ("cushion",), ("table",), ("table", "cushion"), ("headrest",), ("headrest", "cushion")])
def test_a_ct_with_table_headrest_and_cushions(furniture):
    assert_is_head(ct(*furniture), 0.97)


def test_the_scale_and_the_offset_of_an_mr_do_not_matter():
    plain = mr(2.0)
    expected = np.asarray(head_mask(plain).array)
    for factor, offset in ((0.001, 0.0), (50.0, -1000.0)):
        other = plain.with_array((np.asarray(plain.array, dtype=np.float64) * factor + offset).astype(np.float32))
        assert dice(np.asarray(head_mask(other).array), expected) > 0.999


def test_ears_stay_and_anisotropic_slices_work():
    volume = ct("table")
    array = np.array(volume.array)
    ear = (np.abs(np.abs(X) - 80) < 9) & (np.abs(Y) < 14) & (np.abs(Z) < 16) & ~HEAD
    ear &= np.abs(Y - 0.3 * (np.abs(X) - 75)) < 4
    array[ear] = 20
    mask = np.asarray(head_mask(volume.with_array(array)).array)
    assert mask[ear].mean() > 0.8
    thick = Grid((80, 22, 88), AFFINE @ np.diag([1, 3, 1, 1]))
    mask = np.asarray(head_mask(resample(volume.with_array(array), thick)).array)
    assert dice(mask, HEAD[:, ::3]) > 0.95


@pytest.mark.parametrize(("modality", "value"), [("mr", 0), ("mr", 7), ("ct", -1000)])
def test_a_scan_without_a_head_is_refused(modality, value):
    with pytest.raises(DataError, match="no head was found"):
        head_mask(Volume(np.full((20, 20, 20), value, dtype=np.int16), np.diag([4.0, 4, 4, 1]), modality))


def test_only_images_have_a_head():
    with pytest.raises(DataError, match="'labels'"):
        head_mask(Volume(np.zeros((4, 4, 4), dtype=np.uint8), np.eye(4), "labels"))


def test_the_mask_of_colin27_agrees_with_its_labels(shared_data):
    mask = head_mask(read_scan(shared_data / "anatomy/colin27_t1.nii.gz", "mr"))
    labels = read_scan(shared_data / "anatomy/colin27_labels.nii.gz", "labels")
    assert dice(np.asarray(mask.array), labels.array > 0) > 0.97


@pytest.mark.parametrize(
    ("name", "litres"), [("t1_head.nii.gz", (3.2, 3.8)), ("t1_head_defaced.mgz", (2.5, 3.0)), ("t2_head.nii.gz", (2.5, 3.0))]
)
def test_real_heads_have_the_volume_that_was_seen_to_be_right(name, litres, shared_data):
    volume = read_scan(shared_data / "heads" / name, "mr")
    low, high = litres
    assert low < head_mask(volume).array.sum() * np.prod(volume.spacing) / 1e6 < high


@pytest.mark.parametrize("volume", [ct(), mr(2.0)], ids=["ct", "mr"])
def test_the_hull_of_an_ellipsoid_is_that_ellipsoid(volume):
    mask = hull_mask(volume)
    assert mask.modality == "mask" and mask.grid.matches(volume.grid)
    assert dice(np.asarray(mask.array), HEAD) > 0.95


def test_the_hull_closes_hollows_and_leaves_small_pieces_out():
    hu = np.full((60, 60, 60), -1000, np.int16)
    hu[10:50, 10:50, 10:50] = 40
    hu[25:35, 25:35, 30:50] = -1000
    hu[2:5, 2:5, 2:5] = 40
    expected = np.zeros(hu.shape, bool)
    expected[10:50, 10:50, 10:50] = True
    assert (hull_mask(Volume(hu, np.diag([2.0, 2, 2, 1]), "ct")).array == expected).all()


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_a_constant_volume_has_no_hull(modality):
    with pytest.raises(DataError, match="no head was found"):
        hull_mask(Volume(np.zeros((20, 20, 20), np.int16), np.diag([4.0, 4, 4, 1]), modality))


def test_without_its_skull_a_ct_holds_what_the_skull_encloses():
    bare = without_skull(ct("table"))
    inside = (RADIUS < 0.83) & ~SINUS & ~WINDPIPE
    assert bare.modality == "ct"
    assert dice(np.asarray(bare.array) > -100, inside) > 0.93  # the rim of bone is half a voxel
    with pytest.raises(DataError, match="no skull was found"):
        without_skull(ct(), threshold_hu=4000)
