import pytest
import torch
from safetensors.torch import save_file

from transmodal.core.errors import CheckpointError, ConfigError
from transmodal.engine.predict import Setting
from transmodal.imaging.intensity import IntensityStatistics
from transmodal.imaging.preparation import Preparation
from transmodal.methods.architecture import VGGUNetSettings
from transmodal.methods.recipe import build_method, load_recipe
from transmodal.networks.vgg_unet import VGGUNet

CHANNELS = (2, 4, 4, 8, 8)


def method_of(name, *assignments):
    recipe = load_recipe(name, [*assignments])
    statistics = IntensityStatistics(mean=0, sd=1, percentiles=tuple(range(16)))
    setting = Setting(
        direction="mr2ct",
        preparation=Preparation(),
        intensity=recipe.intensity,
        statistics={"mr": statistics, "ct": statistics},
        view=recipe.view,
        prediction=recipe.predict,
    )
    return build_method(recipe, setting)


@pytest.fixture
def weights():
    """Those of a whole small VGG-16, classifier and all."""
    return {**VGGUNet(CHANNELS).features.state_dict(prefix="features."), "classifier.0.weight": torch.zeros(2, 2)}


def settings(path):
    return VGGUNetSettings(channels=CHANNELS, encoder_weights=str(path))


@pytest.mark.parametrize("name", ["vgg.pth", "vgg.safetensors"])
def test_the_encoder_begins_with_the_weights_of_the_file(weights, tmp_path, name):
    (save_file if name.endswith("safetensors") else torch.save)(weights, tmp_path / name)
    method = method_of("vgg-unet-tl", "method.network.channels=[2,4,4,8,8]", f"method.network.encoder_weights={tmp_path / name}")
    before = {key: tensor.clone() for key, tensor in method.networks["generator"].state_dict().items()}
    method.initialize()
    for key, tensor in method.networks["generator"].state_dict().items():
        assert torch.equal(tensor, weights.get(key, before[key])), key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: w | {"features.0.weight": torch.zeros(3, 3, 3, 3)},
            r"features\.0\.weight is .* should be \(2, 3, 3, 3\)",
        ),
        (lambda w: {k: t for k, t in w.items() if k != "features.28.bias"}, r"vgg\.pth: .*features\.28\.bias is missing"),
        (lambda w: {"epoch": 3, "state": w}, "something else than named tensors"),
    ],
    ids=["shape", "missing", "not a state dict"],
)
def test_other_weights_are_refused(weights, tmp_path, change, message):
    torch.save(change(weights), tmp_path / "vgg.pth")
    with pytest.raises(CheckpointError, match=message):
        settings(tmp_path / "vgg.pth").initialize(VGGUNet(CHANNELS))


def test_a_file_that_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"vgg\.pth: there is no such file"):
        settings(tmp_path / "vgg.pth").initialize(VGGUNet(CHANNELS))
    for name in ("bad.pth", "bad.safetensors"):
        (tmp_path / name).write_bytes(b"no weights at all")
        with pytest.raises(CheckpointError, match="damaged"):
            settings(tmp_path / name).initialize(VGGUNet(CHANNELS))


@pytest.mark.parametrize(
    ("name", "assignment", "message"),
    [
        ("light-unet", "intensity.ct.onto=[-1,1]", r"intensity\.ct: set its kind"),
        ("vgg-unet", "view.context=1", "for single slices"),
    ],
)
def test_networks_that_do_not_fit_the_images_are_refused(name, assignment, message):
    with pytest.raises(ConfigError, match=message):
        method_of(name, assignment)
    with pytest.raises(ConfigError, match="is for slices"):
        method_of("unet3d", "method.network={kind='light_unet'}", "intensity.ct.onto=[0,1]")


def test_whole_slices_are_required_for_their_range():
    with pytest.raises(ConfigError, match=r"view\.fit = 'square'"):
        load_recipe("light-unet", ["view.fit=none"])
    with pytest.raises(ConfigError, match="blocks has 2 numbers and channels has 3"):
        load_recipe("resenc3d", ["method.network.channels=[4,4,8]", "method.network.blocks=[1,1]"])
