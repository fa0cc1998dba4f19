import numpy as np
import pytest
import torch

from transmodal.core.errors import ConfigError
from transmodal.data.augment import Augmentation
from transmodal.data.sampling import Sampler, Sampling, View
from transmodal.data.store import Dataset
from transmodal.engine.predict import Beside, Prediction, predict
from transmodal.engine.run import read_run
from transmodal.imaging.scan import read_scan
from transmodal.methods.prior import PRIORS_NAME, Prior
from transmodal.methods.recipe import load_recipe
from transmodal.methods.runs import load_method
from transmodal.workflows.atlas import build_atlases
from transmodal.workflows.export import export
from transmodal.workflows.train import train

CPU = torch.device("cpu")
SMALL = ["method.network.channels=[4,4,8,8]", "view.size=[32,32]", "predict.patch=[32,32]", "train.steps=2", "train.batch_size=2"]
SHORT = ["train.validate_every=2", "train.validation_batches=1", "train.validation_fraction=0.25"]


@pytest.fixture(scope="module")
def atlases(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("atlases") / "set"
    build_atlases(load_recipe("atlas-affine"), dataset, folder, subjects=["head0", "head1"])
    return folder


@pytest.fixture(scope="module")
def run(dataset, atlases, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return train(load_recipe("unet2d-atlas-prior", [f"method.atlases={atlases}", *SMALL, *SHORT]), dataset, folder, quiet=True)


def recipe(*settings: str):
    return load_recipe("unet2d-atlas-prior", [f"method.{text}" for text in settings])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("weighting=[{alpha=0.9,beta=0.2}]", "W1 goes from 0.2 to 1.1"),
        ("weighting=[{atlas_alpha=0.1}]", "belong together"),
        ("weighting=[{atlas_alpha=0.1,atlas_beta=-0.1}]", "W2 goes from -0.1 to 0"),
        ("weighting=[{from_step=5}]", "the first must be 0"),
        ("weighting=[{from_step=0},{from_step=9},{from_step=9}]", "each later"),
        ("weighting=[{threshold=0.0}]", "threshold"),
        ("use=channel method.informed=true", 'are for use = "weighted"'),
        ("use=channel method.weighting=[{alpha=0.5}]", 'are for use = "weighted"'),
    ],
)
def test_weights_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        recipe(*settings.split(" method."))


def test_each_smoothing_is_kept_once():
    settings = recipe("weighting=[{sigma_mm=2.0},{from_step=5,sigma_mm=4.0},{from_step=9,sigma_mm=2.0,alpha=0.5}]").method
    assert settings.sigmas_mm == [2.0, 4.0]
    assert recipe("use=channel").method.sigmas_mm == []


def test_a_run_without_atlases_is_refused_before_anything_is_written(dataset, tmp_path, run):
    with pytest.raises(ConfigError, match="a run of the method 'prior'; give a set of atlases"):
        train(load_recipe("unet2d-atlas-prior", [f"method.atlases={run}", *SMALL, *SHORT]), dataset, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_what_atlases_cannot_serve_is_refused(run):
    setting = read_run(run).setting
    settings = recipe("use=weighted").method
    for change, message in [
        ({"direction": "ct2mr"}, "mr2ct"),
        ({"view": View(size=(32, 32), fit="square")}, "square"),
        ({"intensity": {**setting.intensity, "ct": setting.intensity["mr"]}}, "window"),
    ]:
        with pytest.raises(ConfigError, match=message):
            Prior(settings, setting.model_copy(update=change))


@pytest.mark.slow
def test_a_training_with_the_weights_of_another_begins_with_the_first_weighting(dataset, atlases, run, tmp_path):
    assert load_method(run, CPU).networks["generator"].step > 0
    settings = [f"method.atlases={atlases}", *SMALL, *SHORT, "train.steps=1", "train.validate_every=1"]
    train(load_recipe("unet2d-atlas-prior", settings), dataset, tmp_path / "run", begin=run, quiet=True)
    assert load_method(tmp_path / "run", CPU).networks["generator"].step == 1


def test_a_model_of_a_run_has_its_atlases(heads, run, tmp_path):
    export(run, tmp_path / "model")
    folder = heads / "Task1" / "brain" / "head2"
    scan, brain = read_scan(folder / "mr.nii.gz", "mr"), read_scan(folder / "brain.nii.gz", "mask")
    expected, found = (load_method(path, CPU).with_brain(brain).synthesize(scan).array for path in (run, tmp_path / "model"))
    assert np.abs(found - expected.astype(float)).mean() < 5


def test_what_training_sees_is_what_prediction_sees(dataset, heads, run):
    """The channels of a batch, and those beside the scan of the same subject when it comes as a file."""
    method = load_method(run, CPU)
    assert isinstance(method, Prior)
    priors = Dataset(run / PRIORS_NAME)
    data = Dataset(dataset)
    split = read_run(run).split
    name = split.train[0]
    extra_images = method.extra_images(data, split.train)
    setting = method.setting
    whole = View(size=(40, 48), axes=(2,))
    sampler = Sampler(data, [name], "mr2ct", whole, Sampling(), Augmentation(), setting.intensity, 0, extra_images=extra_images)
    batch = sampler.batch(0, 1)
    assert batch.source.shape == (1, 3, 40, 48)
    stored = priors.read_all(name, "atlas")
    index = next(k for k in range(stored.shape[2]) if np.allclose(stored[:, :, k], batch.source[0, 1].numpy(), atol=1e-5))
    np.testing.assert_allclose(priors.read_all(name, "bone0")[:, :, index], batch.source[0, 2].numpy(), atol=1e-5)
    folder = heads / "Task1" / "brain" / name
    scan, brain = read_scan(folder / "mr.nii.gz", "mr"), read_scan(folder / "brain.nii.gz", "mask")
    seen = []
    whole_slices = setting.model_copy(update={"prediction": Prediction()})
    method.setting = whole_slices
    hook = method.networks["generator"].register_forward_pre_hook(lambda _, args: seen.append(args[0][:, 1:, :40, :48].float().numpy()))
    method.with_brain(brain).synthesize(scan)
    hook.remove()
    predicted = np.concatenate(seen)
    expected = np.stack([np.moveaxis(priors.read_all(name, image), 2, 0) for image in ("atlas", "bone0")], axis=1)
    # The mask of the head was given to the dataset, and is found at prediction: their rims differ.
    assert (np.abs(predicted - expected) > 1e-5).mean() < 0.01


def test_what_lies_beside_is_padded_with_its_own_background(run):
    class Second(torch.nn.Module):
        """Gives the mean of its second channel over the image."""

        stride = 32

        def __init__(self):
            super().__init__()
            self.nothing = torch.nn.Parameter(torch.zeros(1))

        def forward(self, image):
            return image[:, 1:2].mean(dim=(2, 3), keepdim=True).expand_as(image[:, :1]) + 0 * self.nothing

    setting = read_run(run).setting.model_copy(update={"prediction": Prediction()})
    image = np.random.default_rng(0).uniform(0, 100, (20, 24, 5)).astype(np.float32)
    beside = Beside(np.full((1, 20, 24, 5), 3.0, np.float32), (-1.0,))
    found = predict(Second(), image, setting, setting.intensity["mr"].fit(setting.statistics["mr"]), beside=beside).mean
    share = 20 * 24 / 32**2
    np.testing.assert_allclose(found, 3 * share - (1 - share), rtol=0.01)  # bfloat16, where the machine has it


def test_the_atlases_are_part_of_the_run(heads, run, atlases, tmp_path):
    folder = heads / "Task1" / "brain" / "head2"
    scan, brain = read_scan(folder / "mr.nii.gz", "mr"), read_scan(folder / "brain.nii.gz", "mask")
    expected = load_method(run, CPU).with_brain(brain).synthesize(scan)
    atlases.rename(tmp_path / "gone")
    np.testing.assert_array_equal(load_method(run, CPU).with_brain(brain).synthesize(scan).array, expected.array)
    (tmp_path / "gone").rename(atlases)
