import pytest
import torch

from transmodal.core.errors import CheckpointError, ConfigError, FileError
from transmodal.data.sampling import Batch, View
from transmodal.data.splits import Split
from transmodal.engine.checkpoint import load_tree, save_tree
from transmodal.engine.predict import Prediction, Setting
from transmodal.engine.run import Run, write_run
from transmodal.engine.train import WEIGHTS_NAME
from transmodal.imaging.intensity import IntensityStatistics, PercentileIntensity, WindowIntensity, ZScoreIntensity
from transmodal.imaging.preparation import Preparation
from transmodal.losses.voxel import l1
from transmodal.methods.architecture import UNetSettings
from transmodal.methods.features import FeatureLoss, FeatureSettings, read_features, restore_features
from transmodal.methods.paired_loss import Loss
from transmodal.methods.regression import Regression, RegressionSettings
from transmodal.methods.tissues import TissuesSettings

OURS, THEIRS = WindowIntensity(lower=-2000, upper=2000), WindowIntensity(lower=-1000, upper=1000, onto=(0, 1))


def setting(direction="mr2ct", ct=OURS, view=None):
    return Setting(
        direction=direction,
        preparation=Preparation(),
        intensity={"mr": PercentileIntensity(), "ct": ct},
        statistics=dict.fromkeys(("mr", "ct"), IntensityStatistics(mean=0, sd=1, percentiles=(0.0,) * 16)),
        view=view or View(size=(16, 16)),
        prediction=Prediction(),
    )


def segmentor(view=None, ct=THEIRS):
    """A run and the weights of a segmentor of two levels: twice its input, and three times the greatest of four of that."""
    settings = TissuesSettings(network=UNetSettings(channels=(1, 1), convolutions=1))
    run = Run(
        recipe={"method": settings.model_dump(mode="json")},
        setting=setting("ct2mr", ct, view),
        split=Split(train=("a",)),
        dataset="",
    )
    weights = {name: torch.zeros_like(tensor) for name, tensor in settings.build(run.setting.view).state_dict().items()}
    for block, factor in (("encoder.0.0", 2.0), ("bottom.0", 3.0)):
        kernel = weights[f"{block}.weight"][0, 0]
        kernel[(1,) * kernel.ndim] = factor
    return run, weights


def loss(**changes):
    return FeatureLoss(*segmentor(**changes), setting(), "the test")


def units(*hu):
    """HU as network units of ours, as a 2x2 image."""
    return torch.tensor(hu).reshape(1, 1, 2, 2) / 2000


def test_by_hand():
    """HU of -1000 to 1000 are 0 to 1 to the segmentor, and what lies beyond is clipped."""
    target, prediction = units(0.0, 500.0, 1000.0, -1000.0), units(500.0, 500.0, 500.0, -1500.0)
    # first level: 2 * (.5, .75, 1, 0) and 2 * (.75, .75, .75, 0), so 1 over 4.5; second: 3 * 2 and 3 * 1.5, so 1.5 over 6
    assert loss()(prediction, target, None).item() == pytest.approx((1 / 4.5 + 1.5 / 6) / 2)
    assert loss()(target, target, None).item() == 0


def test_the_gradient_flows_to_the_image_and_not_to_the_segmentor():
    difference, image = loss(), units(500.0, 500.0, 500.0, -1500.0).requires_grad_()
    difference(image, units(0.0, 500.0, 1000.0, -1000.0), None).backward()
    # A unit of ours is one of theirs. First level: 2 over 4.5, of the two that differ; second: 3 * 2 over 6, of the first of the greatest.
    assert image.grad is not None
    assert image.grad.flatten().tolist() == pytest.approx([(2 / 4.5 - 1) / 2, 0, -2 / 4.5 / 2, 0])
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in difference.network.parameters())
    assert not difference.network.training


def test_outside_the_mask_nothing_counts():
    target, prediction = units(0.0, 500.0, 500.0, -500.0), units(0.0, 1000.0, 500.0, 0.0).requires_grad_()
    inside = torch.tensor([[[[True, False], [True, False]]]])
    difference = loss()(prediction, target, inside)
    assert difference.item() == 0
    assert loss()(prediction, target, ~inside).item() > 0
    difference.backward()
    assert not prediction.grad.any()


def test_volumes_have_features_too():
    view = View(size=(4, 4, 4))
    difference = FeatureLoss(*segmentor(view), setting(view=view), "the test")
    image = torch.zeros(1, 1, 4, 4, 4)
    # everywhere 0.5 and 0.75 to the segmentor
    assert difference(image + 0.25, image, None).item() == pytest.approx(0.5)


def test_a_state_gives_the_same_loss_back(tmp_path):
    prediction, target = torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8)
    original = loss()
    save_tree(tmp_path / "state.safetensors", original.state())
    restored = restore_features(load_tree(tmp_path / "state.safetensors"), setting())
    assert torch.equal(restored(prediction, target, None), original(prediction, target, None))
    assert not restored.network.training


def test_the_term_is_added_with_its_weight_and_taken_back_from_a_state(tmp_path):
    run, weights = segmentor()
    write_run(tmp_path, run)
    save_tree(tmp_path / WEIGHTS_NAME, {"segmentor": weights})
    terms = Loss(l1=1, l2=0, gradient_difference=0, masked=True, features=FeatureSettings(run=str(tmp_path), weight=0.3))
    settings = RegressionSettings(network=UNetSettings(channels=(2, 2)), loss=terms)
    torch.manual_seed(0)
    one, two = Regression(settings, setting()), Regression(settings, setting())
    two.networks = one.networks
    one.initialize()
    two.load_state(one.state())
    inside = torch.rand(2, 1, 16, 16) < 0.5
    batch = Batch(torch.randn(2, 1, 16, 16), torch.randn(2, 1, 16, 16), inside, inside, paired=True)
    prediction = one.networks["generator"](batch.source)
    expected = l1(prediction, batch.target, inside) + 0.3 * loss()(prediction, batch.target, inside)
    for method in (one, two):
        torch.testing.assert_close(method.validation_step(batch)["loss"], expected)
    assert set(one.networks) == {"generator"}
    assert Regression(RegressionSettings(), setting()).state() == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"direction": "ct2mr"}, "direction = ct2mr: method.loss.features compares CTs; set mr2ct"),
        ({"ct": ZScoreIntensity()}, r'intensity\.ct\.kind = "zscore": .* set it to "window"'),
    ],
)
def test_methods_whose_ct_is_not_in_hu_have_no_features(changes, message):
    terms = Loss(features=FeatureSettings(run="nowhere", weight=1))
    with pytest.raises(ConfigError, match=message):
        Regression(RegressionSettings(loss=terms), setting(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"view": View(size=(8, 8, 8))}, r"view\.size = \(8, 8, 8\).* and the recipe has view\.size = \(16, 16\)"),
        ({"view": View(size=(8, 8), context=1)}, r"view\.context = 1"),
        ({"ct": PercentileIntensity()}, r'the test: .* intensity\.ct\.kind = "percentile"'),
    ],
)
def test_segmentors_that_see_other_images_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        loss(**changes)


def test_folders_that_hold_no_segmentor_are_refused(tmp_path):
    with pytest.raises(FileError, match=r"run\.json"):
        read_features(tmp_path, setting())
    run, weights = segmentor()
    write_run(tmp_path, run)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: missing"):
        read_features(tmp_path, setting())
    save_tree(tmp_path / WEIGHTS_NAME, {"segmentor": dict(list(weights.items())[1:])})
    with pytest.raises(CheckpointError, match=r"encoder\.0\.0\.weight is missing"):
        read_features(tmp_path, setting())
    write_run(tmp_path, run.model_copy(update={"recipe": {"method": {"name": "regression"}}}))
    with pytest.raises(ConfigError, match=r"a run of the method 'regression', .* train the recipe tissues2d"):
        read_features(tmp_path, setting())
