import copy
import json
from dataclasses import replace

import pytest
import torch

from transmodal.core.errors import ConfigError
from transmodal.core.volume import target_of
from transmodal.data.sampling import Batch, View
from transmodal.data.splits import Split
from transmodal.engine.logs import read_metrics
from transmodal.engine.predict import Prediction, Setting
from transmodal.engine.train import Training
from transmodal.imaging.intensity import IntensityStatistics, PercentileIntensity, WindowIntensity
from transmodal.imaging.preparation import Preparation
from transmodal.imaging.scan import read_scan
from transmodal.methods.architecture import ResnetSettings
from transmodal.methods.mrgan import MRGAN, DualDiscriminatorSettings, MRGANSettings
from transmodal.methods.recipe import load_recipe
from transmodal.methods.runs import load_method
from transmodal.workflows.train import train

TINY = {"generator": ResnetSettings(channels=2, blocks=1), "discriminator": DualDiscriminatorSettings(variant="D5", channels=2)}
ORDER = {
    "ct2mr": ["discriminator_mr", "generator_ct2mr", "discriminator_ct", "generator_mr2ct"],
    "mr2ct": ["discriminator_ct", "generator_mr2ct", "discriminator_mr", "generator_ct2mr"],
}
RATE = 0.01


def setting(direction="ct2mr", size=(20, 20)):
    return Setting(
        direction=direction,
        preparation=Preparation(),
        intensity={"mr": PercentileIntensity(), "ct": WindowIntensity(lower=0, upper=80)},
        statistics=dict.fromkeys(("mr", "ct"), IntensityStatistics(mean=0, sd=1, percentiles=(0.0,) * 16)),
        view=View(size=size),
        prediction=Prediction(),
    )


def method(direction="ct2mr", **changes):
    """A tiny MR-GAN with weights that make a difference everywhere."""
    torch.manual_seed(0)
    made = MRGAN(MRGANSettings(**{**TINY, **changes}), setting(direction))
    for network in made.networks.values():
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return made


def in_double(made):
    """With weights of twice the precision, in which sums in another order do not differ."""
    for network in made.networks.values():
        network.double()
    return made


def batch(paired, seed=0):
    images = torch.rand(2, 2, 1, 20, 20, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    inside = torch.rand(2, 1, 20, 20, generator=torch.Generator().manual_seed(seed)) < 0.5
    return Batch(images[0], images[1], inside, inside, paired=paired)


def descend(network, loss):
    """A step of plain gradient descent of one network alone."""
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter -= RATE * gradient


def squares(real, synthetic):
    return ((real - 1) ** 2).mean() + (synthetic**2).mean()


def likelihood(real, synthetic):
    return -real.sigmoid().log().mean() - (1 - synthetic.sigmoid()).log().mean()


def unpaired_step(syn_mr, syn_ct, dis_mr, dis_ct, ct, mr):
    """Lines 3 to 8 of Algorithm 1."""
    descend(dis_mr, squares(dis_mr(mr, False), dis_mr(syn_mr(ct), False)))
    descend(syn_mr, ((dis_mr(syn_mr(ct), False) - 1) ** 2).mean() + 10 * (syn_ct(syn_mr(ct)) - ct).abs().mean())
    descend(dis_ct, squares(dis_ct(ct, False), dis_ct(syn_ct(mr), False)))
    descend(syn_ct, ((dis_ct(syn_ct(mr), False) - 1) ** 2).mean() + 10 * (syn_mr(syn_ct(mr)) - mr).abs().mean())


def paired_step(syn_mr, syn_ct, dis_mr, dis_ct, ct, mr, nll):
    """Lines 11 to 15, by either adversarial loss."""
    judge = likelihood if nll else squares

    def wanted(scores):
        return -scores.sigmoid().log().mean() if nll else ((scores - 1) ** 2).mean()

    def pair(first, second):
        return torch.cat([first, second], dim=1)

    descend(dis_mr, judge(dis_mr(pair(ct, mr), True), dis_mr(pair(ct, syn_mr(ct)), True)))
    cycle, voxel = (syn_ct(syn_mr(ct)) - ct).abs().mean(), (mr - syn_mr(ct)).abs().mean()
    descend(syn_mr, wanted(dis_mr(pair(ct, syn_mr(ct)), True)) + 10 * cycle + 100 * voxel)
    descend(dis_ct, judge(dis_ct(pair(mr, ct), True), dis_ct(pair(mr, syn_ct(mr)), True)))
    cycle, voxel = (syn_mr(syn_ct(mr)) - mr).abs().mean(), (ct - syn_ct(mr)).abs().mean()
    descend(syn_ct, wanted(dis_ct(pair(mr, syn_ct(mr)), True)) + 10 * cycle + 100 * voxel)


@pytest.mark.parametrize("kind", ["cross_entropy", "least_squares"])
def test_an_unpaired_and_a_paired_step_are_those_of_algorithm_1(kind):
    ours = in_double(method(adversarial_paired=kind))
    plain = copy.deepcopy([ours.networks[name] for name in ("generator_ct2mr", "generator_mr2ct", "discriminator_mr", "discriminator_ct")])
    unpaired, paired = (
        replace(shown, source=shown.source.double(), target=shown.target.double()) for shown in (batch(False), batch(True, 1))
    )
    for shown in (unpaired, paired):
        ours.training_step(shown, lambda name, loss: descend(ours.networks[name], loss))
    unpaired_step(*plain, unpaired.source, unpaired.target)
    paired_step(*plain, paired.source, paired.target, nll=kind == "cross_entropy")
    for name, network in zip(("generator_ct2mr", "generator_mr2ct", "discriminator_mr", "discriminator_ct"), plain, strict=True):
        for (key, expected), found in zip(network.state_dict().items(), ours.networks[name].state_dict().values(), strict=True):
            torch.testing.assert_close(found, expected, msg=f"{name}.{key}", rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("direction", ORDER)
@pytest.mark.parametrize("paired", [False, True])
def test_the_discriminator_of_the_wanted_direction_comes_first(direction, paired):
    names = []
    method(direction).training_step(batch(paired), lambda name, _: names.append(name))
    assert names == ORDER[direction]


@pytest.mark.parametrize(("paired", "still"), [(False, "paired"), (True, "unpaired")])
def test_a_step_leaves_the_heads_and_tails_of_the_other_kind_alone(paired, still):
    ours = method()
    before = copy.deepcopy(ours.networks["discriminator_mr"])
    optimizations = ours.optimizers()

    def update(name, loss):
        assert optimizations[name].networks == (name,)
        optimizer, parameters = optimizations[name].optimizer, list(ours.networks[name].parameters())
        assert [id(p) for group in optimizer.param_groups for p in group["params"]] == [id(p) for p in parameters]
        optimizer.zero_grad()
        loss.backward(inputs=parameters)
        optimizer.step()

    ours.training_step(batch(paired), update)
    after = ours.networks["discriminator_mr"].state_dict()
    # A bias that instance normalisation takes away again has a gradient of rounding errors, at most.
    weights = {name: tensor for name, tensor in before.state_dict().items() if name.endswith("weight")}
    same = {name for name, tensor in weights.items() if torch.equal(tensor, after[name])}
    assert same == {name for name in weights if name.split(".")[1] == still}


def test_the_weights_of_the_terms_are_settings():
    terms = {}
    for cycle, voxel in ((10, 100), (0, 0)):
        ours = method(cycle_weight=cycle, voxel_weight=voxel)
        terms[cycle] = ours.validation_step(batch(True))
    one, bare = terms[10], terms[0]
    expected = one["adversarial_mr_paired"] + 10 * one["cycle_ct_paired"] + 100 * one["voxel_mr"]
    torch.testing.assert_close(one["generator_ct2mr_paired"], expected)
    torch.testing.assert_close(bare["generator_ct2mr_paired"], bare["adversarial_mr_paired"])


@pytest.mark.parametrize("direction", ORDER)
def test_only_pairs_tell_how_good_the_weights_are(direction):
    ours, pair = method(direction), batch(True)
    error = (ours.networks[f"generator_{direction}"](pair.source) - pair.target).abs()
    torch.testing.assert_close(ours.validation_step(pair)["loss"], error[pair.target_mask].mean())
    assert "loss" not in ours.validation_step(batch(False))


def test_the_health_of_pairs_and_of_single_images_is_told_apart():
    metrics = {}
    for paired in (False, True):
        metrics |= method().training_step(batch(paired), lambda *_: None)
    for name in ("discriminator_mr_paired", "discriminator_mr_unpaired", "discriminator_ct_paired", "discriminator_ct_unpaired"):
        assert {f"{name}_accuracy_real", f"{name}_accuracy_synthetic", f"{name}_saturation"} <= metrics.keys()
    assert {"generator_ct2mr_edges", "generator_mr2ct_edges"} <= metrics.keys()


@pytest.mark.parametrize(("variant", "size"), {"D1": 49, "D2": 66, "D3": 82, "D4": 25, "D5": 17}.items())
def test_views_that_leave_a_discriminator_no_score_are_refused(variant, size):
    settings = MRGANSettings(generator=TINY["generator"], discriminator=DualDiscriminatorSettings(variant=variant, channels=1))
    MRGAN(settings, setting(size=(size, size)))
    with pytest.raises(ConfigError, match=rf"variant = {variant}: view\.size = .* must be at least {size}"):
        MRGAN(settings, setting(size=(size, size - 1)))


def test_the_recipe_has_the_values_of_the_paper():
    recipe = load_recipe("mrgan")
    assert isinstance(recipe.train, Training)
    assert (recipe.direction, recipe.train.batch_size, recipe.view.size, recipe.view.axes) == ("ct2mr", 1, (256, 256), (2,))
    # An iteration is an unpaired and a paired step: constant for 1e5 of them, then to zero over 2e5.
    assert [recipe.train.rate(2 * iteration) for iteration in (0, 100_000, 200_000, 300_000)] == [1, 1, 0.5, 0]
    assert [recipe.sampling.is_paired(step) for step in range(4)] == [False, True, False, True]
    assert isinstance(recipe.method, MRGANSettings)
    # Whatever the recipe says is the default of the method.
    assert recipe.method == MRGANSettings()


SMALL = [
    "method.generator.channels=2",
    "method.generator.blocks=1",
    "method.discriminator.channels=2",
    "method.discriminator.variant=D5",
    "view.size=[32,32]",
    "train.steps=2",
    "train.log_every=1",
    "train.validate_every=2",
    "train.validation_batches=2",
]


def trained_kinds(run):
    """Which kinds of step a run has done, by the columns of its metrics."""
    columns = {name for row in read_metrics(run / "metrics.csv") if row["split"] == "train" for name in row}
    return {kind for kind in ("unpaired", "paired") if f"generator_ct2mr_{kind}" in columns}


@pytest.mark.parametrize(
    ("people", "fraction", "kinds"),
    [(("head0", "head1"), 1, {"unpaired", "paired"}), (("head0", "head1"), 0, {"unpaired"}), (("head0",), 1, {"paired"})],
    ids=["both", "no pairs", "nobody else"],
)
def test_any_mixture_of_pairs_and_others_trains(dataset, tmp_path, people, fraction, kinds):
    recipe = load_recipe("mrgan", [*SMALL, f"sampling.paired_fraction={fraction}"])
    run = train(recipe, dataset, tmp_path, split=Split(train=people, validation=("head2", "head3")), quiet=True)
    assert trained_kinds(run) == kinds
    # Those who are held out have pairs, whatever was trained on.
    assert json.loads((run / "weights.json").read_text())["validation_loss"] is not None


def test_the_same_recipe_makes_cts_with_another_window_and_both_ways_work(dataset, heads, tmp_path):
    recipe = load_recipe("mrgan", [*SMALL, "direction=mr2ct", "intensity.ct.lower=-600", "intensity.ct.upper=1400"])
    run = train(recipe, dataset, tmp_path, split=Split(train=("head0", "head1")), quiet=True)
    model = load_method(run, torch.device("cpu"))
    assert model.directions == ("mr2ct", "ct2mr")
    for direction in model.directions:
        source = direction[:2]
        scan = read_scan(heads / "Task1" / "brain" / "head0" / f"{source}.nii.gz", source)
        result = model.synthesize(scan)
        assert result.modality == target_of(direction)
        if result.modality == "ct":
            assert result.array[read_scan(heads / "Task1" / "brain" / "head0" / "mask.nii.gz", "mask").array > 0].min() >= -600
