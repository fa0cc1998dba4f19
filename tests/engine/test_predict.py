import numpy as np
import pytest
import torch
from torch import nn

from transmodal.core.config import validate
from transmodal.core.errors import ConfigError, OutOfMemory
from transmodal.core.volume import Volume
from transmodal.data.augment import Augmentation
from transmodal.data.sampling import Sampler, Sampling, View
from transmodal.data.store import Dataset
from transmodal.engine.predict import SLICES_AT_ONCE, Prediction, Setting, _attempts, cycle, predict, predict_channels, predict_prepared
from transmodal.imaging.intensity import (
    IntensityMap,
    IntensityStatistics,
    PercentileIntensity,
    SliceIntensity,
    WindowIntensity,
    ZScoreIntensity,
)
from transmodal.imaging.preparation import BACKGROUND, Preparation, PreparedScan
from transmodal.networks.layers import InstanceNorm

SOURCE = IntensityMap(shift=0, scale=1)


def setting(view, prediction=None):
    return Setting(
        direction="mr2ct",
        preparation=Preparation(),
        intensity={"mr": ZScoreIntensity(), "ct": WindowIntensity(lower=-1024, upper=3071)},
        statistics=dict.fromkeys(("mr", "ct"), IntensityStatistics(mean=0, sd=1, percentiles=(0.0,) * 16)),
        view=view,
        prediction=prediction or Prediction(),
    )


class Center(nn.Module):
    """Passes the middle channel on, and notes the shapes that it saw."""

    stride = 8

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.shapes = []

    def forward(self, image):
        self.shapes.append(tuple(image.shape))
        middle = image.shape[1] // 2
        return image[:, middle : middle + 1]


IMAGE = np.random.default_rng(0).normal(size=(21, 26, 19)).astype(np.float32)


@pytest.mark.parametrize(
    ("view", "prediction"),
    [
        (View(size=(8, 8)), Prediction()),
        (View(size=(8, 8), axes=(0, 1, 2)), Prediction()),
        (View(size=(8, 8), axes=(1,), context=2), Prediction()),
        (View(size=(8, 8), axes=(0, 2)), Prediction(patch=(16, 16), overlap=0.5)),
        (View(size=(32, 32)), Prediction(patch=(32, 32), overlap=0.25)),
        (View(size=(8, 8), axes=(0, 1, 2)), Prediction(axes=(1,))),
        (View(size=(8, 8, 8)), Prediction()),
        (View(size=(8, 8, 8)), Prediction(patch=(16, 8, 16), overlap=0.6)),
        (View(size=(8, 8, 8)), Prediction(patch=(16, 32, 32), window=(8, 8, 24))),
        (View(size=(8, 8)), Prediction(patch=(16, 16), window=(8, 8, 8))),
    ],
    ids=["slices", "three planes", "2.5D", "patches", "large patches", "one of three planes", "volume", "3D", "windows", "no windows"],
)
def test_a_network_that_changes_nothing_gives_the_image_back(view, prediction):
    result = predict(Center(), IMAGE, setting(view, prediction), SOURCE).mean
    assert result.shape == IMAGE.shape
    np.testing.assert_allclose(result, IMAGE, atol=1e-5)


@pytest.mark.parametrize("view", [View(size=(8, 8), axes=(0, 2)), View(size=(16, 16), fit="square"), View(size=(8, 8, 8))], ids=str)
def test_several_channels_come_of_one_pass(view):
    class Both(Center):
        def forward(self, image):
            first = super().forward(image)
            return torch.cat([first, 2 * first, 3 * first], dim=1)

    given, one, two = setting(view, Prediction(flip=(0,))), Center(), Both()
    scan = Volume(IMAGE, np.eye(4), "mr")
    prepared = PreparedScan(scan, scan.with_array(IMAGE > -1, "mask"), IntensityStatistics(mean=0, sd=1, percentiles=(0.0,) * 16))
    alone, (first, second) = predict_prepared(one, prepared, given), predict_channels(two, prepared, given, 2)
    assert two.shapes == one.shapes
    np.testing.assert_array_equal(first.mean, alone.mean)
    np.testing.assert_array_equal(second.sd, 2 * alone.sd)
    inside = prepared.mask.array
    np.testing.assert_allclose(second.mean[inside], 2 * first.mean[inside])


def test_neighbouring_slices_come_as_channels_with_background_beyond_the_ends():
    class Last(Center):
        def forward(self, image):
            return image[:, -1:]

    result = predict(Last(), IMAGE, setting(View(size=(8, 8), axes=(2,), context=1)), IntensityMap(shift=-3, scale=1)).mean
    np.testing.assert_array_equal(result[:, :, :-1], IMAGE[:, :, 1:] + 3)
    np.testing.assert_array_equal(result[:, :, -1], 3)


def test_only_a_few_slices_are_in_the_network_at_once():
    network = Center()
    predict(network, np.zeros((16, 16, 50), np.float32), setting(View(size=(8, 8))), SOURCE)
    assert max(shape[0] for shape in network.shapes) == SLICES_AT_ONCE
    assert sum(shape[0] for shape in network.shapes) == 50


def test_overlapping_patches_favour_their_centres():
    """A network that is wrong at the borders of its patch is nearly right after blending."""

    class Border(Center):
        def forward(self, image):
            out = torch.ones_like(image)
            out[:, :, 4:-4, 4:-4] = 0
            return out

    blended = predict(Border(), np.zeros((64, 64, 1), np.float32), setting(View(size=(32, 32)), Prediction(patch=(32, 32))), SOURCE).mean
    assert blended[16:48, 16:48].mean() < 0.05


def test_nowhere_is_the_border_of_a_patch_seen():
    """Of a network that is wrong at the border of what it is given alone, and by 1 there."""

    class Rim(Center):
        def forward(self, image):
            return nn.functional.pad(torch.zeros_like(image[..., 1:-1, 1:-1, 1:-1]), [1] * 6, value=1.0)

    choices = setting(View(size=(32, 32, 32)), Prediction(patch=(32, 32, 32), overlap=0.25))
    found = predict(Rim(), np.zeros((40, 40, 40), np.float32), choices, SOURCE).mean
    assert found[1:-1, 1:-1, 1:-1].max() < 0.05


class Ramp(Center):
    """Adds the column number of the slice, so that the mirrored way round another number is added."""

    def forward(self, image):
        return image + torch.arange(image.shape[-1], dtype=image.dtype)


FLIPS = [(), (0,), (1,), (0, 1), (0, 1, 2)]


@pytest.mark.parametrize("flip", FLIPS, ids=str)
@pytest.mark.parametrize("view", [View(size=(8, 8)), View(size=(8, 8), axes=(0, 2), context=1), View(size=(8, 8, 8))], ids=str)
def test_mirror_images_change_nothing_for_a_network_without_handedness(flip, view):
    there = setting(view, Prediction(flip=flip))
    found = predict(Center(), IMAGE, there, SOURCE)
    np.testing.assert_array_equal(found.mean, IMAGE)
    np.testing.assert_array_equal(found.sd, 0)
    assert found.count == there.opinions == 2 ** len(flip) * (1 if view.dims == 3 else len(view.axes))


@pytest.mark.parametrize("flip", FLIPS, ids=str)
def test_mirror_images_are_mirrored_back_and_averaged(flip):
    """Axial slices have their columns along y: mirrored along it, column k gets n - 1 - k instead of k, whose mean is (n - 1) / 2."""
    image = np.zeros((8, 16, 3), np.float32)
    found = predict(Ramp(), image, setting(View(size=(8, 8)), Prediction(flip=flip)), SOURCE)
    columns = np.arange(16.0)
    mean, sd = (np.full(16, 7.5), np.abs(columns - 7.5)) if 1 in flip else (columns, np.zeros(16))
    np.testing.assert_allclose(found.mean, np.broadcast_to(mean[:, None], image.shape), rtol=1e-6)
    np.testing.assert_allclose(found.sd, np.broadcast_to(sd[:, None], image.shape), rtol=1e-5)


def test_planes_that_differ_are_averaged_and_their_spread_is_told():
    """Columns of sagittal slices run along z, those of coronal and axial ones along z and y."""
    image = np.zeros((8, 8, 16), np.float32)
    found = predict(Ramp(), image, setting(View(size=(8, 8), axes=(0, 2))), SOURCE)
    y, z = np.meshgrid(np.arange(8.0), np.arange(16.0), indexing="ij")
    np.testing.assert_allclose(found.mean, np.broadcast_to((y + z) / 2, image.shape), rtol=1e-6)
    np.testing.assert_allclose(found.sd, np.broadcast_to(np.abs(y - z) / 2, image.shape), rtol=1e-5, atol=1e-6)


def test_an_axis_that_is_no_axis_is_refused():
    with pytest.raises(ConfigError, match=r"flip\.0"):
        validate(Prediction, {"flip": [3]}, "recipe")
    assert Prediction(flip=(1, 1, 0)).mirrors == [(), (0,), (1,), (0, 1)]


@pytest.mark.parametrize(("size", "patch"), [((8, 8), (8, 8, 8)), ((8, 8, 8), (8, 8))], ids=["slices", "volumes"])
def test_a_patch_of_the_wrong_dimension_is_refused(size, patch):
    with pytest.raises(ConfigError, match=r"predict\.patch"):
        predict(Center(), IMAGE, setting(View(size=size), Prediction(patch=patch)), SOURCE)


@pytest.mark.parametrize(
    ("extent", "patch", "window", "seen"),
    [
        ((20, 20, 20), (32, 32, 32), None, (32, 32, 32)),
        ((20, 20, 20), (48, 48, 48), None, (48, 48, 48)),
        ((20, 20, 20), (64, 64, 64), (16, 16, 16), (56, 56, 56)),
        ((20, 30, 10), (32, 32, 48), (16, 16, 48), (32, 32, 48)),
        ((20, 20, 20), (32, 32, 32), (64, 64, 64), (32, 32, 32)),
    ],
    ids=["a head that just fits", "a larger patch", "a patch cut to the head", "a window larger than the head", "and than the patch"],
)
def test_one_patch_is_enough_for_a_head_that_it_holds(extent, patch, window, seen):
    network, mask = Center(), np.zeros((80, 80, 80), dtype=bool)
    mask[tuple(slice(30, 30 + size) for size in extent)] = True
    predict(network, mask.astype(np.float32), setting(View(size=(8, 8, 8)), Prediction(patch=patch, window=window)), SOURCE, mask)
    assert network.shapes == [(1, 1, *seen)]


def test_in_windows_a_larger_patch_is_normalised_as_patches_of_their_size_are():
    """Of a pattern that repeats itself every 4 voxels, all windows of 8 have the same mean and SD; the patch has air around it besides."""

    class Normalising(Center):
        def __init__(self):
            super().__init__()
            self.norm = InstanceNorm(1)

        def forward(self, image):
            return self.norm(super().forward(image))

    pattern = np.tile(np.random.default_rng(0).normal(5, size=(4, 4, 4)), (3, 3, 3)).astype(np.float32)
    choices = Prediction(patch=(8, 8, 8)), Prediction(patch=(16, 16, 16), window=(8, 8, 8)), Prediction(patch=(16, 16, 16))
    view = View(size=(8, 8, 8))
    small, large, whole = (predict(Normalising(), pattern, setting(view, choice), SOURCE).mean for choice in choices)
    np.testing.assert_allclose(small, (pattern - pattern.mean()) / pattern.std(), atol=1e-4)
    np.testing.assert_allclose(large, small, atol=1e-4)
    assert np.abs(whole - small).mean() > 0.5


@pytest.mark.parametrize("prediction", [Prediction(), Prediction(patch=(16, 16))], ids=["slices", "patches"])
def test_a_device_without_memory_gets_less_at_once_and_that_is_said(prediction):
    class Small(Center):
        def forward(self, image):
            if len(image) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(image)

    with pytest.warns(UserWarning, match="too little memory for 8 slices or patches at once"):
        result = predict(Small(), IMAGE, setting(View(size=(16, 16)), prediction), SOURCE).mean
    np.testing.assert_allclose(result, IMAGE, atol=1e-5)


def test_the_cpu_comes_last():
    slices, volumes = View(size=(16, 16)), View(size=(16, 16, 16))
    places = [place.type for place, _ in _attempts(torch.device("cuda"), slices)]
    assert places == ["cuda"] * 3 + ["cpu"] * 3
    assert len(list(_attempts(torch.device("cpu"), slices))) == 3
    assert list(_attempts(torch.device("cpu"), volumes)) == [(torch.device("cpu"), 1)]


@pytest.mark.filterwarnings("ignore:cpu has too little memory")
def test_what_fits_nowhere_is_an_error_with_advice_and_other_errors_are_not_hidden():
    class Failing(Center):
        def __init__(self, message):
            super().__init__()
            self.message = message

        def forward(self, image):
            raise RuntimeError(self.message)

    with pytest.raises(OutOfMemory, match=r"21x26x19 voxels .* set a smaller predict\.patch"):
        predict(Failing("[enforce fail] DefaultCPUAllocator: can't allocate memory"), IMAGE, setting(View(size=(8, 8))), SOURCE)
    with pytest.raises(RuntimeError, match="another mistake"):
        predict(Failing("another mistake"), IMAGE, setting(View(size=(8, 8))), SOURCE)


def test_slices_that_are_fitted_come_back_where_they_were():
    """A linear ramp is resized without loss, so that it must come back wherever the mask is."""
    ramp = (np.moveaxis(np.indices((30, 36, 24)), 0, -1) @ [1.0, -2.0, 0.5]).astype(np.float32)
    mask = np.zeros(ramp.shape, dtype=bool)
    mask[10:20, 8:25, 5:19] = True
    for axis in range(3):
        network = Center()
        result = predict(network, ramp, setting(View(size=(48, 48), axes=(axis,), fit="square", context=1)), SOURCE, mask).mean
        inner = (slice(11, 19), slice(9, 24), slice(6, 18))
        np.testing.assert_allclose(result[inner], ramp[inner], atol=1e-3)
        assert {shape[1:] for shape in network.shapes} == {(3, 48, 48)}


def test_training_and_prediction_see_the_same_slices(dataset):
    """What the sampler draws without augmentation is, to the bit, what prediction gives the network for that slice."""

    class Noting(Center):
        def forward(self, image):
            self.seen = [*getattr(self, "seen", []), *image]
            return image

    data = Dataset(dataset)
    subject, view = data.manifest.subjects[0], View(size=(24, 24), axes=(0, 1, 2), fit="square")
    intensity = {"mr": SliceIntensity(onto=(0, 1), levels=256), "ct": WindowIntensity(lower=-500, upper=1500, onto=(0, 1), levels=256)}
    sampler = Sampler(data, [subject.id], "mr2ct", view, Sampling(), Augmentation(), intensity, 0)
    statistics = subject.images["mr"].statistics
    network, image = Noting(), data.read_all(subject.id, "mr").astype(np.float32)
    predict(network, image, setting(view), intensity["mr"].fit(statistics), data.read_all(subject.id, "mr_mask") > 0)
    slices = torch.stack(network.seen).numpy()
    for step in range(10):
        differences = np.abs(slices - sampler.sample(step, 0).source).max(axis=(1, 2, 3))
        assert differences.min() < 1e-6


def test_a_cycle_of_networks_that_change_nothing_gives_the_scan_back_in_its_own_units():
    axes = np.meshgrid(*[np.linspace(-1.3, 1.3, n) for n in (24, 28, 26)], indexing="ij")
    radius = sum(axis**2 for axis in axes)
    values = np.where(radius < 1, 700 + 50 * axes[0], 0).astype(np.float32)
    scan = Volume(values, np.diag([6.0, 6.0, 6.0, 1.0]), "mr")
    both = {"mr": PercentileIntensity(lower=0, upper=100), "ct": WindowIntensity(lower=-1024, upper=3071)}
    again = cycle(Center(), Center(), scan, setting(View(size=(8, 8), axes=(0, 2))).model_copy(update={"intensity": both}))
    assert again.modality == "mr"
    assert again.grid.matches(scan.grid)
    inside = radius < 0.6  # at the edge, voxels are half background on the working grid
    np.testing.assert_allclose(again.array[inside], scan.array[inside], rtol=1e-3)
    assert (again.array[0, 0] == 0).all()


def test_a_network_for_volumes_sees_the_head_and_a_margin_and_gives_air_elsewhere():
    """A volume of 90 voxels with a head of 10 in its middle: what the network is shown is 42 long."""

    class Seeing(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.sizes = nn.Parameter(torch.zeros(1)), []

        def forward(self, image):
            self.sizes.append(tuple(image.shape[2:]))
            return image

    image, mask = np.ones((90, 20, 20), dtype=np.float32), np.zeros((90, 20, 20), dtype=bool)
    mask[40:50, 5:15, 5:15] = True
    network, view = Seeing(), setting(View(size=(16, 16, 16)), Prediction())
    found = predict(network, image, view, SOURCE, mask).mean
    assert network.sizes == [(42, 20, 20)]
    np.testing.assert_allclose(found[24:66], SOURCE.forward(image)[24:66], atol=1e-5)
    air = view.target_map.forward(np.full((1, 1, 1), BACKGROUND["ct"])).item()
    assert np.unique(found[:24]) == pytest.approx([air]) == np.unique(found[66:])
    predict(network, image, view, SOURCE, np.zeros_like(mask))
    assert network.sizes[-1] == (90, 20, 20)
