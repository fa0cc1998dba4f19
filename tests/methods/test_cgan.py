import copy

import numpy as np
import pytest
import torch

from transmodal.core.errors import ConfigError, DataError
from transmodal.core.volume import Volume
from transmodal.data.sampling import Batch, View
from transmodal.engine.predict import Prediction, Setting
from transmodal.imaging.intensity import IntensityStatistics, WindowIntensity, ZScoreIntensity
from transmodal.imaging.preparation import Preparation
from transmodal.imaging.scan import read_scan
from transmodal.methods.adversary import PatchGANSettings
from transmodal.methods.architecture import ResnetSettings, UNetSettings
from transmodal.methods.cgan import CGAN, CGANSettings
from transmodal.methods.features import FeatureSettings
from transmodal.methods.recipe import load_recipe
from transmodal.workflows.synthesize import synthesize
from transmodal.workflows.train import train
from updates import stepping

SMALL = ["method.discriminator.channels=2", "method.discriminator.layers=1", "view.size=[16,16]"]
SMALL_PIX2PIX = ["method.generator.channels=2", "method.generator.blocks=1", *SMALL]
RECIPES = {"unet2d-cgan": ["method.generator.channels=[2,2]", *SMALL], "pix2pix": SMALL_PIX2PIX}


def setting(**changes):
    return Setting(
        **{
            "direction": "mr2ct",
            "preparation": Preparation(),
            "intensity": dict.fromkeys(("mr", "ct"), WindowIntensity(lower=-1000, upper=1000)),
            "statistics": dict.fromkeys(("mr", "ct"), IntensityStatistics(mean=0, sd=1, percentiles=(0.0,) * 16)),
            "view": View(size=(16, 16)),
            "prediction": Prediction(),
            **changes,
        }
    )


def method(recipe, **changes):
    torch.manual_seed(0)
    settings = load_recipe(recipe, RECIPES[recipe]).method
    assert isinstance(settings, CGANSettings)
    return CGAN(settings.model_copy(update={"both_ways": False, **changes}), setting())


def batch():
    generator = torch.Generator().manual_seed(1)
    mr, ct = (torch.rand((2, 1, 16, 16), generator=generator) * 2 - 1 for _ in range(2))
    inside = torch.rand((2, 1, 16, 16), generator=generator) < 0.5
    return Batch(mr, ct, inside, inside, paired=True)


def test_the_adversarial_u_net_has_the_losses_of_its_paper():
    """Eqs. (3) and (4): both of one forward pass, with the weights from before the step."""
    cgan, sample, told = method("unet2d-cgan"), batch(), []
    s, c = (copy.deepcopy(cgan.networks[name]) for name in ("generator_mr2ct", "discriminator_ct"))
    cgan.training_step(sample, stepping(cgan, told))
    ct, synthetic = sample.target, s(sample.source)
    across = ((synthetic[:, :, 1:] - synthetic[:, :, :-1]) - (ct[:, :, 1:] - ct[:, :, :-1])) ** 2
    down = ((synthetic[..., 1:] - synthetic[..., :-1]) - (ct[..., 1:] - ct[..., :-1])) ** 2
    generator = ((synthetic - ct) ** 2).mean() + (across.mean() + down.mean()) / 2 + ((c(synthetic) - 1) ** 2).mean() / 2
    discriminator = ((c(ct) - 1) ** 2).mean() / 2 + (c(synthetic) ** 2).mean() / 2
    assert [(name, changed) for name, _, changed in told] == [(name, [name]) for name in ("generator_mr2ct", "discriminator_ct")]
    assert [loss for _, loss, _ in told] == pytest.approx([generator.item(), discriminator.item()], rel=1e-5)


def test_pix2pix_has_the_losses_of_its_paper():
    """The discriminator is updated first, and the generator asks the new one."""
    cgan, sample, told = method("pix2pix"), batch(), []
    s, old = (copy.deepcopy(cgan.networks[name]) for name in ("generator_mr2ct", "discriminator_ct"))
    cgan.training_step(sample, stepping(cgan, told))
    new, mr, ct, synthetic = cgan.networks["discriminator_ct"], sample.source, sample.target, s(sample.source)

    def log_real(c, image):
        return c(torch.cat([mr, image], dim=1)).sigmoid().log().mean()

    log_found_out = (1 - old(torch.cat([mr, synthetic], dim=1)).sigmoid()).log().mean()
    discriminator = -(log_real(old, ct) + log_found_out) / 2
    generator = 100 * (synthetic - ct).abs().mean() - log_real(new, synthetic)
    assert [(name, changed) for name, _, changed in told] == [(name, [name]) for name in ("discriminator_ct", "generator_mr2ct")]
    assert [loss for _, loss, _ in told] == pytest.approx([discriminator.item(), generator.item()], rel=1e-5)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_error_inside_the_head_chooses_the_weights(recipe):
    cgan, sample = method(recipe), batch()
    error = (cgan.networks["generator_mr2ct"](sample.source) - sample.target).abs()[sample.target_mask].mean()
    assert cgan.validation_step(sample)["loss"].item() == pytest.approx(error.item(), rel=1e-5)


def test_the_way_back_may_be_the_one_that_a_network_is_not_for():
    settings = method("pix2pix", both_ways=True).settings
    intensity = {"mr": ZScoreIntensity(), "ct": WindowIntensity(lower=-1000, upper=1000)}
    with pytest.raises(ConfigError, match=r"intensity\.mr, unless method\.both_ways = false"):
        CGAN(settings, setting(intensity=intensity))


@pytest.mark.parametrize("both_ways", [False, True])
def test_a_step_goes_on_from_the_state_of_its_ways(both_ways):
    cgan, again = (method("unet2d-cgan", both_ways=both_ways) for _ in range(2))
    cgan.training_step(batch(), stepping(cgan, []))
    again.networks.update(cgan.networks)
    again.load_state(cgan.state())
    one, two = (each.training_step(batch(), lambda *_: None) for each in (cgan, again))
    assert one == two


def test_a_step_tells_how_both_networks_fare():
    cgan, told = method("unet2d-cgan"), []
    metrics = cgan.training_step(batch(), stepping(cgan, told))
    health = {"accuracy_real", "accuracy_synthetic", "saturation"}
    assert metrics.keys() == {
        *("generator_mr2ct", "paired_ct", "adversarial_ct", "discriminator_ct"),
        *(f"discriminator_ct_{name}" for name in health),
        *(f"generator_mr2ct_{name}" for name in ("diversity", "histogram_distance", "edges")),
    }
    assert metrics["generator_mr2ct"] == metrics["paired_ct"] + 0.5 * metrics["adversarial_ct"]


def test_pictures_go_from_the_darkest_to_the_brightest_of_the_real_images():
    cgan, sample = method("unet2d-cgan"), batch()
    shown = cgan.preview(sample)
    assert list(shown) == ["MR", "sCT", "CT"]
    for name, images in (("MR", sample.source), ("CT", sample.target)):
        assert (shown[name].min(), shown[name].max()) == (0, 1)
        torch.testing.assert_close(shown[name] * (images.max() - images.min()) + images.min(), images)
    span = sample.target.max() - sample.target.min()
    torch.testing.assert_close(shown["sCT"] * span + sample.target.min(), cgan.networks["generator_mr2ct"](sample.source))


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_of_both_ways_is_what_it_is_alone(recipe):
    """The way from CT to MR is that of a method which goes there only, of the same pairs the other way round."""
    both, sample, told = method(recipe, both_ways=True), batch(), []
    mr2ct, ct2mr = method(recipe), CGAN(method(recipe).settings, setting(direction="ct2mr"))
    assert both.directions == ("mr2ct", "ct2mr")
    assert both.networks.keys() == mr2ct.networks.keys() | ct2mr.networks.keys()
    expected = []
    for alone in (mr2ct, ct2mr):
        for name, network in alone.networks.items():
            network.load_state_dict(both.networks[name].state_dict())
    mr2ct.training_step(sample, stepping(mr2ct, expected))
    ct2mr.training_step(Batch(sample.target, sample.source, sample.target_mask, sample.source_mask, paired=True), stepping(ct2mr, expected))
    both.training_step(sample, stepping(both, told))
    assert told == expected
    validated = both.validation_step(sample)
    assert validated["loss"] == validated["mae_ct"] == mr2ct.validation_step(sample)["loss"]
    assert list(both.preview(sample)) == ["MR", "sCT", "CT", "sMR"]


def test_features_of_cts_are_for_one_way_only():
    settings = method("unet2d-cgan").settings
    loss = settings.loss.model_copy(update={"features": FeatureSettings(run="segmentor", weight=1.0)})
    with pytest.raises(ConfigError, match=r"method\.both_ways: .* set it to false"):
        CGAN(settings.model_copy(update={"both_ways": True, "loss": loss}), setting())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"view": View(size=(16, 16), context=1)}, r"view\.context to 0"),
        ({"view": View(size=(16, 4))}, "too small"),
        ({"intensity": dict.fromkeys(("mr", "ct"), WindowIntensity(lower=0, upper=1, onto=(0, 1)))}, r"intensity\.ct"),
    ],
)
def test_images_that_the_networks_are_not_for_are_refused(changes, message):
    settings = method("pix2pix").settings.model_copy(
        update={"generator": ResnetSettings(channels=2), "discriminator": PatchGANSettings(channels=2, layers=1)}
    )
    with pytest.raises(ConfigError, match=message):
        CGAN(settings, setting(**changes))


def test_a_generator_without_limits_needs_none_of_its_intensities():
    settings = method("unet2d-cgan").settings.model_copy(update={"generator": UNetSettings(channels=(2, 2))})
    CGAN(settings, setting(intensity=dict.fromkeys(("mr", "ct"), WindowIntensity(lower=0, upper=1, onto=(0, 1)))))


def test_one_training_makes_cts_of_mrs_and_mrs_of_cts(dataset, heads, tmp_path):
    """And a scan again by way of the other; a scan outside of the head is background."""
    small = ["train.steps=2", "train.batch_size=2", "train.validate_every=2", "train.validation_batches=1", *SMALL_PIX2PIX]
    windows = [f"intensity.mr.{text}" for text in ("kind=window", "lower=0", "upper=200")]
    run = train(load_recipe("pix2pix", [*small, *windows]), dataset, tmp_path / "run", quiet=True)
    ct = heads / "Task1" / "brain" / "head0" / "ct.nii.gz"
    (path,) = synthesize(ct, tmp_path / "smr.nii.gz", run, direction="ct2mr", cycle=True)
    mr = read_scan(path, "mr")
    assert read_scan(tmp_path / "smr_cycle.nii.gz", "ct").grid.matches(mr.grid)
    assert mr.grid.matches(read_scan(ct, "ct").grid)
    assert 0 <= mr.array.min() < mr.array.max() <= 200
    (path,) = synthesize(ct.with_name("mr.nii.gz"), tmp_path / "sct.nii.gz", run)
    assert read_scan(path, "ct").grid.matches(mr.grid)
    assert (tmp_path / "run" / "previews" / "step_00000002.png").is_file()


def test_one_way_alone_refuses_the_other_and_the_cycle():
    alone, ct = method("pix2pix"), Volume(np.zeros((20, 20, 20), dtype=np.int16), np.eye(4), "ct")
    assert alone.directions == ("mr2ct",)
    with pytest.raises(DataError, match="the scan was given as ct"):
        alone.synthesize(ct)
    with pytest.raises(ConfigError, match="does not go both ways"):
        alone.cycle(ct)
