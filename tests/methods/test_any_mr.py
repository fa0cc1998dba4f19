import numpy as np
import pytest
import torch

from transmodal.core.errors import ConfigError
from transmodal.data.augment import Augmentation
from transmodal.data.sampling import Batch, Sampler
from transmodal.data.store import Dataset
from transmodal.engine.predict import Setting
from transmodal.imaging.intensity import IntensityStatistics
from transmodal.methods.any_mr import AnyMR
from transmodal.methods.exposures import AIR_HU, fuse
from transmodal.methods.recipe import load_recipe
from transmodal.simulation.tissues import Tissue, tissue_table
from transmodal.workflows.train import train

SLICES = ("view.size=[32,32]", "view.first_steps=0", "predict.patch=[32,32]")


def recipe(*changes):
    return load_recipe("any-mr", ["method.network.channels=[4,8]", *SLICES, "method.loss.l2=0", *changes])


def setting(dataset, given):
    return Setting(
        direction=given.direction,
        preparation=Dataset(dataset).manifest.preparation,
        intensity=given.intensity,
        statistics=dict.fromkeys(("mr", "ct"), IntensityStatistics(mean=0, sd=1, percentiles=(0.0,) * 16)),
        view=given.view,
        prediction=given.predict,
    )


@pytest.fixture
def method(dataset):
    torch.manual_seed(0)
    return AnyMR(recipe().method, setting(dataset, recipe()))


@pytest.fixture
def batch(dataset, method):
    data, given = Dataset(dataset), recipe()
    names = [subject.id for subject in data.manifest.subjects]
    arguments = (data, names, given.direction, given.view, given.sampling, Augmentation(), given.intensity, 0)
    return Sampler(*arguments, target=method.learned_target(data, names)).batch(0, 4)


def test_the_target_is_the_tissue_of_each_voxel(batch):
    assert set(batch.target.unique().tolist()) <= {float(tissue) for tissue in Tissue}
    assert len(batch.target.unique()) > 2


def test_what_is_drawn_is_darker_than_a_scan(dataset, batch):
    drawn = []
    for power, darkness in ((1.0, 1.0), (0.25, 2.0)):
        given = recipe("method.gain=0", "method.shift=0", f"intensity.mr.power={power}", f"method.darkness={darkness}")
        torch.manual_seed(3)
        drawn.append(AnyMR(given.method, setting(dataset, given)).draw(batch).source)
    assert torch.allclose((drawn[0] + 1) / 2, ((drawn[1] + 1) / 2) ** 2, atol=1e-6)


def test_every_step_draws_other_pairs_of_the_same_seed(method, batch):
    torch.manual_seed(3)
    first, second = method.draw(batch), method.draw(batch)
    torch.manual_seed(3)
    again = method.draw(batch)
    assert torch.equal(first.source, again.source) and torch.equal(first.target, again.target)
    assert not torch.equal(first.source, second.source)
    assert first.target.min() >= -1 and first.target.max() <= 1
    assert first.source.abs().max() <= 1.2 + 0.1 + 1e-5
    assert (first.target[~first.target_mask] < -0.9).float().mean() > 0.85  # air, but for the blur at the rim


def test_a_step_goes_down_the_loss_between_what_was_drawn(method, batch):
    network = method.networks["generator"]
    torch.manual_seed(5)
    drawn = method.draw(batch)
    ct, log_spread = network(drawn.source).split(1, dim=1)
    log_spread = log_spread.clamp(-7, 2)
    error = (ct - drawn.target).abs()
    likelihood = (log_spread + error / log_spread.exp()).mean()
    torch.manual_seed(5)
    updates = []
    metrics = method.training_step(batch, lambda name, loss: updates.append((name, loss.item())))
    assert updates == [("generator", pytest.approx((error.mean() + 0.05 * likelihood).item(), rel=1e-5))]
    assert metrics["loss"] == pytest.approx(error.mean().item())
    assert metrics["likelihood"] == pytest.approx(likelihood.item(), rel=1e-5)


def test_what_the_network_expects_of_itself_does_not_pull_at_its_ct(dataset, batch):
    """The error is a number to the likelihood: of the last layer's weights only those of the second channel get a gradient."""
    given = recipe("method.loss.l1=0", "method.spread=1")
    method = AnyMR(given.method, setting(dataset, given))
    method.training_step(batch, lambda name, loss: loss.backward())
    gradient = method.networks["generator"].output.weight.grad
    assert gradient[0].abs().max() == 0 < gradient[1].abs().max()


def test_the_uncertainty_is_that_of_mirror_images_and_of_the_network_together(dataset, simulated_head):
    """With a network that expects an error of 0.05 network units everywhere, and is the same in the mirror."""
    given = recipe("method.calibration=2")
    method = AnyMR(given.method, setting(dataset, given))

    class Known(torch.nn.Module):
        stride = 2

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.passes = 0

        def forward(self, image):
            self.passes += len(image)
            return torch.cat([torch.zeros_like(image), torch.full_like(image, np.log(0.05))], dim=1)

    known = method.networks["generator"] = Known()
    method.synthesize(simulated_head["mr"])
    passes, known.passes = known.passes, 0
    ct, uncertainty = method.synthesize_with_uncertainty(simulated_head["mr"])
    assert known.passes == passes
    inside = uncertainty.array > 0
    # 0 in network units is the middle of -1024 to 2000 HU, and 1 half of that window.
    assert (ct.array[inside] == 488).all()
    assert uncertainty.array[inside] == pytest.approx(2 * np.sqrt(2) * 0.05 * 1512, rel=1e-2)


class Brightness(torch.nn.Module):
    """A CT as bright as the MR is shown, and an error of `expected` network units everywhere."""

    stride = 1

    def __init__(self, expected):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.expected = expected

    def forward(self, image):
        return torch.cat([image, torch.full_like(image, np.log(self.expected))], dim=1)


def test_a_scan_is_shown_in_several_exposures(dataset, simulated_head):
    """Each made alone as a model without others, and the whole of them by the rule of `fuse`; the spread of that knows how they differ."""
    alone = []
    for black_point, power in ((0.3, 1.0), (0.0, 0.5)):
        given = recipe("method.brighter=[]", f"intensity.mr.black_point={black_point}", f"intensity.mr.power={power}")
        one = AnyMR(given.method, setting(dataset, given))
        one.networks["generator"] = Brightness(expected=0.01)
        alone.append(one.synthesize_with_uncertainty(simulated_head["mr"]))
    given = recipe("method.brighter=[{power=0.5}]", "intensity.mr.black_point=0.3", "intensity.mr.power=1")
    both = AnyMR(given.method, setting(dataset, given))
    both.networks["generator"] = Brightness(expected=0.01)
    ct, uncertainty = both.synthesize_with_uncertainty(simulated_head["mr"])
    (dark, own), (bright, _) = alone
    shown = [one.array.astype(np.float32) for one in (dark, bright)]
    assert (both.opinions, one.opinions) == (3, 2)
    sure = np.abs(shown[0] - AIR_HU) > 1
    assert np.abs(ct.array - fuse(*shown))[sure].max() <= 1
    assert (ct.array == both.synthesize(simulated_head["mr"]).array).all()
    inside = uncertainty.array > 0
    between = np.abs(shown[0] - shown[1]) / 2
    assert between[inside].max() > 200
    assert uncertainty.array[inside] == pytest.approx(np.hypot(own.array, between)[inside], abs=1.5)


def test_validation_compares_with_the_mean_ct_of_each_tissue(method, batch):
    """In network units 3024 HU are 2."""
    wanted = torch.tensor([tissue_table()[tissue].hu for tissue in Tissue])[batch.target.long()].clamp(-1024, 2000)
    expected = (wanted + 1024) / 3024 * 2 - 1
    made = method.networks["generator"](batch.source)[:, :1]
    error = (made - expected)[batch.target_mask].abs().mean()
    assert method.validation_step(batch)["loss"].item() == pytest.approx(error.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("direction=ct2mr", "set mr2ct"),
        ("intensity.mr={kind='zscore'}", 'set intensity.mr.kind = "percentile"'),
        ("intensity.mr.onto=[0,1]", "without lower, upper, onto and levels"),
        ("intensity.mr.upper=99", "percentiles 0.5 and 99.5"),
        ("intensity.mr.levels=256", "without lower, upper, onto and levels"),
    ],
)
def test_what_cannot_be_drawn_is_refused(dataset, change, message):
    given = recipe(change)
    with pytest.raises(ConfigError, match=message):
        AnyMR(given.method, setting(dataset, given))


def test_patches_of_volumes_can_be_drawn(dataset):
    given = recipe("view.size=[16,16,16]")
    method = AnyMR(given.method, setting(dataset, given))
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 15, (2, 1, 16, 16, 16)).astype(np.float32))
    drawn = method.draw(Batch(labels, labels, labels > 0, labels > 0, paired=True))
    assert drawn.source.shape == drawn.target.shape == labels.shape
    assert method.preview(drawn) == {}


def test_the_slices_of_a_slab_are_drawn_as_one_volume(dataset):
    """And the CT is that of the middle one."""
    given = recipe("view.size=[32,32]", "view.context=2")
    method = AnyMR(given.method, setting(dataset, given))
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 15, (2, 5, 32, 32)).astype(np.float32))
    middle = labels[:, 2:3]
    slab = Batch(labels, middle, middle > 0, middle > 0, paired=True)
    drawn = method.draw(slab)
    assert drawn.source.shape == labels.shape
    assert drawn.target.shape == drawn.target_mask.shape == middle.shape
    assert all(image.shape == middle.shape for image in method.preview(slab).values())


def test_the_features_of_a_segmentor_can_be_compared(dataset, batch, tmp_path):
    """In a step after `initialize`, and after the state of such a method was taken back; without them the loss is another."""
    short = ["view.size=[32,32]", "train.steps=2", "train.batch_size=2", "train.validate_every=2", "train.validation_batches=1"]
    train(load_recipe("tissues2d", ["method.network.channels=[4,8]", *short]), dataset, tmp_path, quiet=True)
    given = recipe(f"method.loss.features.run={tmp_path}", "method.loss.features.weight=0.5")
    one, two, plain = (AnyMR(settings.method, setting(dataset, settings)) for settings in (given, given, recipe()))
    two.networks = plain.networks = one.networks
    one.initialize()
    two.load_state(one.state())
    losses = []
    for one_of_them in (one, two, plain):
        torch.manual_seed(0)
        losses.append(one_of_them.training_step(batch, lambda name, loss: None)["loss"].item())
    assert losses[0] == losses[1] != losses[2]
