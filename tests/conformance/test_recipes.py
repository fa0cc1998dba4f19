"""The conformance table: what every recipe of the package must do, scaled down to seconds. A new recipe is a new row."""

import shutil
import signal

import numpy as np
import pytest
import torch

from transmodal.contracts import LearnedMethod
from transmodal.core.errors import ConfigError, DataError, Interrupted
from transmodal.core.volume import Volume, target_of
from transmodal.engine.checkpoint import load_tree
from transmodal.engine.train import WEIGHTS_NAME
from transmodal.imaging.grid import resample
from transmodal.imaging.preparation import BACKGROUND
from transmodal.imaging.scan import read_scan
from transmodal.methods import METHODS
from transmodal.methods.recipe import load_recipe, recipe_names
from transmodal.methods.runs import load_method
from transmodal.networks.vgg_unet import VGGUNet
from transmodal.workflows.atlas import build_atlases
from transmodal.workflows.train import train

SMALL_UNET = ["method.network.channels=[4,4,8,8]", "view.size=[32,32]"]
SHORT = ["train.steps=6", "train.batch_size=2", "train.validate_every=3", "train.validation_batches=1", "train.validation_fraction=0.25"]

SMALL_VOLUME = ["view.size=[16,16,16]", "predict.patch=[16,16,16]", *SHORT]
SMALL_SLICES = ["view.size=[32,32]", "train.patience=2", *SHORT]
TISSUES = ["method.network.channels=[4,4,8]", "view.size=[32,32]", *SHORT]

SMALL_GAN = ["method.generator.channels=4", "method.generator.blocks=1", "method.discriminator.channels=4", "view.size=[32,32]", *SHORT]
SMALL_CGAN = ["method.generator.channels=[4,4,8,8]", "method.discriminator.channels=4", "view.size=[32,32]"]
PERCENTILE_MR = [f"intensity.mr.{text}" for text in ("kind=percentile", "lower=0", "upper=99.5")]

# What makes each recipe small enough for a test; nothing else of it is changed.
SCALED = {
    "any-mr": ["method.network.channels=[4,4,8]", *SMALL_VOLUME, "view.first_size=[24,12,16]", "view.first_steps=2"],
    "atlas-affine": [],
    "atlas-free-form": [],
    "baseline-constant": [],
    "baseline-threshold": [],
    "bone-unet2d": [*SMALL_UNET, *SHORT, "predict.patch=[32,32]"],
    "cyclegan": [*SMALL_GAN, *PERCENTILE_MR],
    "fcn-cyclegan": SMALL_GAN,
    "gan": ["method.generator.channels=4", "method.discriminator.channels=4", "view.size=[32,32]", *SHORT],
    "light-unet": ["method.network.channels=[4,4,8]", *SMALL_SLICES],
    "mrgan": [*SMALL_GAN, "view.size=[64,64]"],
    "pix2pix": [*SMALL_GAN, *PERCENTILE_MR],
    "resenc3d": ["method.network.channels=[4,4,8]", "method.network.blocks=[1,1,2]", *SMALL_VOLUME],
    "resenc3d-quick": ["method.network.channels=[4,4,8]", "method.network.blocks=[1,1,2]", *SMALL_VOLUME],
    "tissues2d": TISSUES,
    "unet2d-atlas-channel": ["method.atlases=FOLDER/atlases", *SMALL_UNET, *SHORT, "predict.patch=[32,32]"],
    "unet2d-atlas-prior": ["method.atlases=FOLDER/atlases", *SMALL_UNET, *SHORT, "predict.patch=[32,32]"],
    "unet25d": [*SMALL_UNET, *SHORT],
    "unet2d-planes": [*SMALL_UNET, *SHORT],
    "unet2d-cgan": [*SMALL_CGAN, *SHORT, "predict.patch=[32,32]"],
    "unet2d": [*SMALL_UNET, *SHORT, "predict.patch=[32,32]"],
    "unet2d-features": ["method.loss.features.run=FOLDER/segmentor", *SMALL_UNET, *SHORT],
    "unet2d-quick": [*SMALL_UNET, *SHORT],
    # No smaller: with 2 voxels a side at the bottom, gradients in bfloat16 on a CPU are not the same from one run to the next.
    "unet3d": ["method.network.channels=[4,4,8,8]", *SHORT, "view.size=[32,32,32]", "predict.patch=[32,32,32]"],
    "vgg-unet": ["method.network.channels=[2,2,4,4,8]", *SMALL_SLICES],
    "vgg-unet-tl": ["method.network.channels=[2,2,4,4,8]", "method.network.encoder_weights=FOLDER/vgg16.pth", *SMALL_SLICES],
}

# Rows that take minutes, for the registrations in them; another row shares the method of the first, `test_prior` has that of the others.
# And one that is another in all but its sizes, which are scaled down here.
SLOW = ("atlas-free-form", "unet2d-atlas-channel", "unet2d-atlas-prior", "resenc3d")


def test_every_recipe_is_in_the_table():
    assert sorted(SCALED) == recipe_names()


@pytest.fixture(scope="module")
def ingredients(dataset, tmp_path_factory):
    """What some recipes begin with: the weights of an encoder, the run of a segmentor, and atlases."""
    folder = tmp_path_factory.mktemp("ingredients")
    torch.save(VGGUNet((2, 2, 4, 4, 8)).features.state_dict(prefix="features."), folder / "vgg16.pth")
    train(load_recipe("tissues2d", TISSUES), dataset, folder / "segmentor", quiet=True)
    build_atlases(load_recipe("atlas-affine"), dataset, folder / "atlases")
    return folder


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in SCALED])
def trained(request, dataset, ingredients, tmp_path_factory):
    recipe = load_recipe(request.param, [text.replace("FOLDER", str(ingredients)) for text in SCALED[request.param]])
    folder = tmp_path_factory.mktemp("run")
    return recipe, train(recipe, dataset, folder, quiet=True)


@pytest.fixture(scope="module")
def scan(trained, method, heads):
    if not method.directions:
        pytest.skip("it turns no scan into another")
    source = trained[0].direction[:2]
    return read_scan(heads / "Task1" / "brain" / "head0" / f"{source}.nii.gz", source)


@pytest.fixture(scope="module")
def method(trained, heads):
    return load(trained[1], heads)


def load(run, heads):
    """The method of a run, told the mask of the brain if it uses one: all scans of the table show the same head in one place."""
    method = load_method(run, torch.device("cpu"))
    brain = read_scan(heads / "Task1" / "brain" / "head0" / "brain.nii.gz", "mask")
    return method.with_brain(brain) if method.uses_brain else method


@pytest.fixture(scope="module")
def result(method, scan):
    return method.synthesize(scan)


def test_the_result_is_what_the_method_makes_on_the_same_grid(trained, scan, method, result):
    assert result.modality == ("mask" if method.product == "bone" else target_of(trained[0].direction))
    assert result.grid.matches(scan.grid)
    assert np.isfinite(result.array).all()
    if result.modality == "ct":
        assert result.array.dtype == np.int16
        assert result.array.min() >= -1024
        assert result.array.max() <= 3071


def test_outside_the_head_is_air(trained, method, result):
    expected = 0 if method.product == "bone" else BACKGROUND[target_of(trained[0].direction)]
    assert (result.array[0] == expected).all()


def test_the_uncertainty_comes_with_the_same_result_and_is_none_where_there_is_one_opinion(method, scan, result):
    again, uncertainty = method.synthesize_with_uncertainty(scan)
    np.testing.assert_array_equal(again.array, result.array)
    assert uncertainty.modality == "uncertainty"
    assert uncertainty.grid.matches(scan.grid)
    assert np.isfinite(uncertainty.array).all()
    assert (uncertainty.array.max() > 0) == (method.opinions > 1)


@pytest.mark.slow  # other tests notice most of what it can
def test_the_same_scan_gives_the_same_result(method, scan, result):
    np.testing.assert_array_equal(method.synthesize(scan).array, result.array)


def test_the_order_of_the_axes_does_not_matter(method, scan, result):
    """The same head stored left-handed and with other axes first is the same head."""
    affine = scan.affine[:, [2, 0, 1, 3]]
    array, expected = (volume.array.transpose(2, 0, 1)[::-1] for volume in (scan, result))
    affine[:3, 3] += affine[:3, 0] * (array.shape[0] - 1)
    affine[:3, 0] *= -1
    # An MR is not rounded: sums in another order differ in their last digits.
    tolerance = 1e-6 * float(np.abs(expected).max()) if result.modality == "mr" else 0
    np.testing.assert_allclose(method.synthesize(Volume(array, affine, scan.modality)).array, expected, rtol=0, atol=tolerance)


def test_an_oblique_anisotropic_scan_comes_back_on_its_own_grid(method, scan):
    angle = np.deg2rad(15)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]) @ np.diag([4.0, 4.0, 8.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.array([60, 60, 30]) - 1) / 2
    oblique = resample(scan, Volume(np.zeros((60, 60, 30)), affine, scan.modality).grid)
    assert method.synthesize(oblique).grid.matches(oblique.grid)


def test_a_method_goes_back_if_it_says_so_and_refuses_other_modalities_and_empty_scans(method, scan, heads):
    other = "ct" if scan.modality == "mr" else "mr"
    backward = read_scan(heads / "Task1" / "brain" / "head0" / f"{other}.nii.gz", other)
    if len(method.directions) == 2:
        result = method.synthesize(backward)
        assert result.modality == scan.modality
        assert result.grid.matches(backward.grid)
        assert np.isfinite(result.array).all()
        again = method.cycle(scan)
        assert again.modality == scan.modality
        assert again.grid.matches(scan.grid)
    else:
        with pytest.raises(DataError):
            method.synthesize(backward)
        with pytest.raises(ConfigError, match="both ways"):
            method.cycle(scan)
    with pytest.raises(DataError):
        method.synthesize(scan.with_array(scan.array, "labels"))
    with pytest.raises(DataError):
        method.synthesize(scan.with_array(np.zeros(scan.shape, np.float32)))


def test_the_run_holds_everything_that_the_same_result_needs(trained, heads, scan, result, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(trained[1], moved, ignore=shutil.ignore_patterns("checkpoints", "priors", "registrations", "tensorboard", "*.csv"))
    np.testing.assert_array_equal(load(moved, heads).synthesize(scan).array, result.array)


def test_the_same_seed_gives_the_same_weights_though_a_training_is_stopped_and_goes_on(trained, dataset, tmp_path, monkeypatch):
    recipe, run = trained
    again = tmp_path / "again"
    if issubclass(METHODS[recipe.method.name], LearnedMethod):
        _train_in_two_parts(recipe, dataset, again, monkeypatch)
    else:
        train(recipe, dataset, again, quiet=True)
    one, two = (_leaves(load_tree(folder / WEIGHTS_NAME)) for folder in (run, again))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name


def _train_in_two_parts(recipe, dataset, run, monkeypatch):
    kind = METHODS[recipe.method.name]
    original, calls = kind.training_step, []

    def stopping(self, batch, update):
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGTERM)
        return original(self, batch, update)

    monkeypatch.setattr(kind, "training_step", stopping)
    with pytest.raises(Interrupted):
        train(recipe, dataset, run, quiet=True)
    train(recipe, dataset, run, resume=True, quiet=True)
    assert len(calls) == recipe.train.steps


def _leaves(tree, prefix=""):
    if isinstance(tree, torch.Tensor):
        return {prefix: tree}
    return {name: leaf for key, node in tree.items() for name, leaf in _leaves(node, f"{prefix}/{key}").items()}
