import copy

import pytest
import torch

from transmodal.core.errors import ConfigError
from transmodal.data.sampling import Batch, View
from transmodal.engine.predict import Prediction, Setting
from transmodal.imaging.intensity import IntensityStatistics, WindowIntensity
from transmodal.imaging.preparation import Preparation
from transmodal.imaging.scan import read_scan
from transmodal.methods.adversary import PatchGANSettings
from transmodal.methods.architecture import ResnetSettings, UNetSettings
from transmodal.methods.cgan import CGAN, CGANSettings
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


def method(recipe):
    torch.manual_seed(0)
    settings = load_recipe(recipe, RECIPES[recipe]).method
    assert isinstance(settings, CGANSettings)
    return CGAN(settings, setting())


def batch():
    generator = torch.Generator().manual_seed(1)
    mr, ct = (torch.rand((2, 1, 16, 16), generator=generator) * 2 - 1 for _ in range(2))
    inside = torch.rand((2, 1, 16, 16), generator=generator) < 0.5
    return Batch(mr, ct, inside, inside, paired=True)


def test_the_adversarial_u_net_has_the_losses_of_its_paper():
    """Eqs. (3) and (4): both of one forward pass, with the weights from before the step."""
    cgan, sample, told = method("unet2d-cgan"), batch(), []
    s, c = (copy.deepcopy(cgan.networks[name]) for name in ("generator", "discriminator"))
    cgan.training_step(sample, stepping(cgan, told))
    ct, synthetic = sample.target, s(sample.source)
    across = ((synthetic[:, :, 1:] - synthetic[:, :, :-1]) - (ct[:, :, 1:] - ct[:, :, :-1])) ** 2
    down = ((synthetic[..., 1:] - synthetic[..., :-1]) - (ct[..., 1:] - ct[..., :-1])) ** 2
    generator = ((synthetic - ct) ** 2).mean() + (across.mean() + down.mean()) / 2 + ((c(synthetic) - 1) ** 2).mean() / 2
    discriminator = ((c(ct) - 1) ** 2).mean() / 2 + (c(synthetic) ** 2).mean() / 2
    assert [(name, changed) for name, _, changed in told] == [("generator", ["generator"]), ("discriminator", ["discriminator"])]
    assert [loss for _, loss, _ in told] == pytest.approx([generator.item(), discriminator.item()], rel=1e-5)


def test_pix2pix_has_the_losses_of_its_paper():
    """The discriminator is updated first, and the generator asks the new one."""
    cgan, sample, told = method("pix2pix"), batch(), []
    s, old = (copy.deepcopy(cgan.networks[name]) for name in ("generator", "discriminator"))
    cgan.training_step(sample, stepping(cgan, told))
    new, mr, ct, synthetic = cgan.networks["discriminator"], sample.source, sample.target, s(sample.source)

    def log_real(c, image):
        return c(torch.cat([mr, image], dim=1)).sigmoid().log().mean()

    log_found_out = (1 - old(torch.cat([mr, synthetic], dim=1)).sigmoid()).log().mean()
    discriminator = -(log_real(old, ct) + log_found_out) / 2
    generator = 100 * (synthetic - ct).abs().mean() - log_real(new, synthetic)
    assert [(name, changed) for name, _, changed in told] == [("discriminator", ["discriminator"]), ("generator", ["generator"])]
    assert [loss for _, loss, _ in told] == pytest.approx([discriminator.item(), generator.item()], rel=1e-5)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_error_inside_the_head_chooses_the_weights(recipe):
    cgan, sample = method(recipe), batch()
    error = (cgan.networks["generator"](sample.source) - sample.target).abs()[sample.target_mask].mean()
    assert cgan.validation_step(sample)["loss"].item() == pytest.approx(error.item(), rel=1e-5)


def test_a_step_tells_how_both_networks_fare_and_goes_on_from_its_state():
    cgan, again, told = method("unet2d-cgan"), method("unet2d-cgan"), []
    metrics = cgan.training_step(batch(), stepping(cgan, told))
    health = {"accuracy_real", "accuracy_synthetic", "saturation"}
    assert metrics.keys() == {
        *("generator", "paired", "adversarial", "discriminator"),
        *(f"discriminator_{name}" for name in health),
        *(f"generator_{name}" for name in ("diversity", "histogram_distance", "edges")),
    }
    assert metrics["generator"] == metrics["paired"] + 0.5 * metrics["adversarial"]
    again.networks = cgan.networks
    again.load_state(cgan.state())
    one, two = (each.training_step(batch(), lambda *_: None) for each in (cgan, again))
    assert one == two


def test_pictures_go_from_the_darkest_to_the_brightest_of_the_real_images():
    cgan, sample = method("unet2d-cgan"), batch()
    shown = cgan.preview(sample)
    assert list(shown) == ["MR", "sCT", "CT"]
    for name, images in (("MR", sample.source), ("CT", sample.target)):
        assert (shown[name].min(), shown[name].max()) == (0, 1)
        torch.testing.assert_close(shown[name] * (images.max() - images.min()) + images.min(), images)
    span = sample.target.max() - sample.target.min()
    torch.testing.assert_close(shown["sCT"] * span + sample.target.min(), cgan.networks["generator"](sample.source))


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


def test_it_makes_mrs_of_cts_as_well(dataset, heads, tmp_path):
    """The phantoms are dark in the MR where their bone is; a scan outside of the head is background."""
    small = ["train.steps=2", "train.batch_size=2", "train.validate_every=2", "train.validation_batches=1", *SMALL_PIX2PIX]
    windows = [f"intensity.mr.{text}" for text in ("kind=window", "lower=0", "upper=200")]
    run = train(load_recipe("pix2pix", ["direction=ct2mr", *small, *windows]), dataset, tmp_path / "run", quiet=True)
    ct = heads / "Task1" / "brain" / "head0" / "ct.nii.gz"
    (path,) = synthesize(ct, tmp_path / "smr.nii.gz", run)
    mr = read_scan(path, "mr")
    assert mr.grid.matches(read_scan(ct, "ct").grid)
    assert 0 <= mr.array.min() < mr.array.max() <= 200
    assert (tmp_path / "run" / "previews" / "step_00000002.png").is_file()
