import copy
import shutil
import threading

import pytest
import torch

from transmodal.core.errors import ConfigError
from transmodal.core.volume import source_of, target_of
from transmodal.data.manifest import read_manifest, write_manifest
from transmodal.data.sampling import Batch, Sampler, View
from transmodal.data.splits import Split
from transmodal.data.store import Dataset
from transmodal.engine.checkpoint import load_tree, save_tree
from transmodal.engine.logs import read_metrics
from transmodal.engine.predict import Prediction, Setting
from transmodal.imaging.intensity import IntensityStatistics, PercentileIntensity, WindowIntensity
from transmodal.imaging.preparation import Preparation
from transmodal.methods.adversary import PatchGANSettings
from transmodal.methods.architecture import ResnetSettings
from transmodal.methods.cyclegan import CycleGAN, CycleGANSettings
from transmodal.methods.recipe import load_recipe, parse_recipe
from transmodal.workflows.train import train
from updates import stepping

TINY = {"generator": ResnetSettings(channels=2, blocks=1), "discriminator": PatchGANSettings(channels=2, layers=1)}
GENERATORS, DISCRIMINATORS = ["generator_mr2ct", "generator_ct2mr"], ["discriminator_mr", "discriminator_ct"]
# What each update of a step moves, in their order.
ORDER = [("generators", GENERATORS), ("discriminator_mr", DISCRIMINATORS[:1]), ("discriminator_ct", DISCRIMINATORS[1:])]
SMALL = [
    "method.generator.channels=2",
    "method.generator.blocks=1",
    "method.discriminator.channels=2",
    "view.size=[32,32]",
    "intensity.mr.kind=percentile",
    "intensity.mr.lower=0",
    "intensity.mr.upper=99.5",
    "train.log_every=1",
    "train.validation_fraction=0",
]


def method(direction="mr2ct", **changes):
    """A tiny CycleGAN with weights that make a difference everywhere."""
    setting = Setting(
        direction=direction,
        preparation=Preparation(),
        intensity={"mr": PercentileIntensity(), "ct": WindowIntensity(lower=-600, upper=1400)},
        statistics=dict.fromkeys(("mr", "ct"), IntensityStatistics(mean=0, sd=1, percentiles=(0.0,) * 16)),
        view=View(size=(16, 16)),
        prediction=Prediction(),
    )
    torch.manual_seed(0)
    made = CycleGAN(CycleGANSettings(**{**TINY, **changes}), setting)
    for network in made.networks.values():
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return made


def batch(seed=0, count=2):
    images = torch.rand(2, count, 1, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    inside = torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed)) < 0.5
    return Batch(images[0], images[1], inside, inside, paired=False)


class Published:
    """The step of Zhu et al. written plainly, with the losses of the paper on unpaired MR and CT.

    Its pools are larger than all images of a test, and so give back what they get.
    """

    def __init__(self, networks, cycle):
        self.syn_ct, self.syn_mr, self.dis_mr, self.dis_ct = (copy.deepcopy(networks[name]) for name in (*GENERATORS, *DISCRIMINATORS))
        self.cycle = cycle
        adam = {"lr": 2e-4, "betas": (0.5, 0.999)}
        self.generators = torch.optim.Adam([*self.syn_ct.parameters(), *self.syn_mr.parameters()], **adam)
        self.discriminators = torch.optim.Adam([*self.dis_mr.parameters(), *self.dis_ct.parameters()], **adam)

    def step(self, mr, ct, weight_mr, weight_ct):
        for discriminator in (self.dis_mr, self.dis_ct):
            discriminator.requires_grad_(False)
        syn_ct, syn_mr = self.syn_ct(mr), self.syn_mr(ct)
        fooled = ((1 - self.dis_ct(syn_ct)) ** 2).mean() + ((1 - self.dis_mr(syn_mr)) ** 2).mean()
        total = fooled + weight_mr * self.cycle(self.syn_mr(syn_ct) - mr) + weight_ct * self.cycle(self.syn_ct(syn_mr) - ct)
        self.generators.zero_grad()
        total.backward()
        self.generators.step()

        losses = []
        self.discriminators.zero_grad()
        for discriminator, real, synthetic in ((self.dis_mr, mr, syn_mr), (self.dis_ct, ct, syn_ct)):
            discriminator.requires_grad_(True)
            loss = ((1 - discriminator(real)) ** 2).mean() + (discriminator(synthetic.detach()) ** 2).mean()  # eqs. (1) and (2)
            loss.backward()
            losses.append(loss.item())
        self.discriminators.step()
        return [total.item(), *losses]


def mean_absolute(difference):
    return difference.abs().mean()


def mean_square(difference):
    return (difference**2).mean()


@pytest.mark.parametrize(("cycle_loss", "cycle"), [("l1", mean_absolute), ("l2", mean_square)])
@pytest.mark.parametrize("direction", ["mr2ct", "ct2mr"])
def test_the_steps_are_those_of_the_published_algorithm(direction, cycle_loss, cycle):
    """Two of them: the second one also tells whether the optimisers remember the same."""
    weights = {"cycle_weight_source": 10.0, "cycle_weight_target": 3.0}
    ours = method(direction, cycle_loss=cycle_loss, **weights)
    published, told, expected = Published(ours.networks, cycle), [], []
    update = stepping(ours, told)
    for shown in (batch(0), batch(1)):
        ours.training_step(shown, update)
        real = {source_of(direction): (shown.source, 10.0), target_of(direction): (shown.target, 3.0)}
        expected += published.step(real["mr"][0], real["ct"][0], real["mr"][1], real["ct"][1])
    assert [loss for _, loss, _ in told] == pytest.approx(expected, rel=1e-5)
    theirs = (published.syn_ct, published.syn_mr, published.dis_mr, published.dis_ct)
    for name, network in zip((*GENERATORS, *DISCRIMINATORS), theirs, strict=True):
        for key, tensor in network.state_dict().items():
            # Adam makes whole steps of the rounding errors that are the gradients of biases before a normalisation.
            if key.endswith("weight"):
                torch.testing.assert_close(ours.networks[name].state_dict()[key], tensor, msg=f"{name}.{key}", rtol=1e-4, atol=1e-5)


def test_the_generators_come_first_and_each_update_moves_its_own_networks():
    ours, told = method(), []
    ours.training_step(batch(), stepping(ours, told))
    assert [(name, changed) for name, _, changed in told] == ORDER


def test_the_discriminators_losses_give_the_generators_no_gradient():
    ours = method()

    def update(name, loss):
        if name != "generators":
            loss.backward()

    ours.training_step(batch(), update)
    assert all(p.grad is None for name in GENERATORS for p in ours.networks[name].parameters())
    assert all(p.grad is not None for name in DISCRIMINATORS for p in ours.networks[name].parameters())


def test_in_a_training_no_update_leaves_gradients_in_other_networks(dataset, tmp_path, monkeypatch):
    """As Zhu et al. switch off the discriminators' gradients for the generators' step."""
    original, moved = CycleGAN.training_step, dict(ORDER)

    def watched(self, batch, update):
        def gradients(name):
            return {
                f"{key}.{part}": None if p.grad is None else p.grad.clone()
                for key, network in self.networks.items()
                if key not in moved[name]
                for part, p in network.named_parameters()
            }

        def watching(name, loss):
            before = gradients(name)
            update(name, loss)
            for key, gradient in gradients(name).items():
                assert gradient is before[key] is None or torch.equal(gradient, before[key]), (name, key)

        return original(self, batch, watching)

    monkeypatch.setattr(CycleGAN, "training_step", watched)
    train(load_recipe("cyclegan", [*SMALL, "train.steps=2"]), dataset, tmp_path, quiet=True)


def test_the_metrics_are_the_terms_of_the_equations():
    ours, shown = method(cycle_weight_source=10.0, cycle_weight_target=3.0), batch()
    syn_ct, syn_mr = (ours.networks[name](image) for name, image in zip(GENERATORS, (shown.source, shown.target), strict=True))
    metrics = ours.validation_step(shown)
    expected = {
        "adversarial_ct": ((ours.networks["discriminator_ct"](syn_ct) - 1) ** 2).mean(),
        "adversarial_mr": ((ours.networks["discriminator_mr"](syn_mr) - 1) ** 2).mean(),
        "cycle_mr": (ours.networks["generator_ct2mr"](syn_ct) - shown.source).abs().mean(),
        "cycle_ct": (ours.networks["generator_mr2ct"](syn_mr) - shown.target).abs().mean(),
    }
    expected["generators"] = expected["adversarial_ct"] + expected["adversarial_mr"] + 10 * expected["cycle_mr"] + 3 * expected["cycle_ct"]
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(metrics[name], value.detach(), msg=name)


def test_pairs_are_measured_and_choose_no_weights():
    ours, shown = method(), batch()
    pair = Batch(shown.source, shown.target, shown.source_mask, shown.target_mask, paired=True)
    errors = {name: value for name, value in ours.validation_step(pair).items() if name not in ours.validation_step(shown)}
    inside = shown.target_mask
    assert errors.keys() == {"mae_mr", "mae_ct"}
    for direction, image, target in (("mr2ct", pair.source, pair.target), ("ct2mr", pair.target, pair.source)):
        error = (ours.networks[f"generator_{direction}"](image) - target).abs()[inside].mean()
        torch.testing.assert_close(errors[f"mae_{target_of(direction)}"], error.detach())


def synthetic_images_shown(ours, steps):
    """For each step, what the generators make, and what each discriminator is shown beside the real images; nothing learns."""
    made, shown = [], []
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in DISCRIMINATORS}
    hooks = [
        ours.networks[name].register_forward_hook(lambda _, inputs, __, name=name: seen[name].append(inputs[0].detach()))
        for name in DISCRIMINATORS
    ]
    for seed in range(steps):
        for inputs in seen.values():
            inputs.clear()
        images = batch(seed, count=1)
        torch.manual_seed(seed)
        ours.training_step(images, lambda *_: None)
        # Each is asked for the generators first, and then shown a real and a synthetic image.
        made.append({name: seen[name][0] for name in DISCRIMINATORS})
        shown.append({name: seen[name][2] for name in DISCRIMINATORS})
        for name, real in zip(DISCRIMINATORS, (images.source, images.target), strict=True):
            assert torch.equal(seen[name][1], real)
    for hook in hooks:
        hook.remove()
    return made, shown


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_discriminators_are_shown_synthetic_images_of_the_past(name):
    steps, size = 24, 3
    made, shown = synthetic_images_shown(method(pool_size=size), steps)
    sources = [next(k for k in range(steps) if torch.equal(made[k][name], image[name])) for image in shown]
    assert sources[:size] == list(range(size))
    assert all(source <= step for step, source in enumerate(sources))
    # From then on with a probability of one half.
    past = sum(source < step for step, source in enumerate(sources))
    assert 4 <= past <= 17


def test_without_a_pool_discriminators_are_shown_the_latest():
    made, shown = synthetic_images_shown(method(pool_size=0), 6)
    for one, two in zip(made, shown, strict=True):
        assert all(torch.equal(one[name], two[name]) for name in DISCRIMINATORS)


def test_the_pools_go_on_from_a_file(tmp_path):
    ours, again = method(pool_size=3), method(pool_size=3)
    synthetic_images_shown(ours, 5)
    save_tree(tmp_path / "state.safetensors", ours.state())
    again.load_state(load_tree(tmp_path / "state.safetensors"))
    results = [synthetic_images_shown(each, 8)[1] for each in (ours, again, method(pool_size=3))]
    for expected, found in zip(*results[:2], strict=True):
        assert all(torch.equal(expected[name], found[name]) for name in DISCRIMINATORS)
    assert not all(
        torch.equal(one[name], other[name]) for one, other in zip(results[0], results[2], strict=True) for name in DISCRIMINATORS
    )


def test_generators_and_discriminators_take_as_many_turns_as_they_are_given():
    ours, told = method(generator_iterations=2, discriminator_iterations=3), []
    ours.training_step(batch(), stepping(ours, told))
    assert [(name, changed) for name, _, changed in told] == [ORDER[0]] * 2 + ORDER[1:] * 3
    # The generators descend, and the discriminators learn from what the last turn made.
    first, second = (loss for name, loss, _ in told if name == "generators")
    assert second < first


def test_critics_have_the_wasserstein_distance_and_its_penalty():
    ours, shown, told = method(adversarial="wasserstein", gradient_penalty=7.0), batch(), []
    old = {name: copy.deepcopy(network) for name, network in ours.networks.items()}
    torch.manual_seed(5)
    ours.training_step(shown, stepping(ours, told))
    syn_ct, syn_mr = old["generator_mr2ct"](shown.source).detach(), old["generator_ct2mr"](shown.target).detach()
    torch.manual_seed(5)
    expected = []
    for name, real, synthetic in (("discriminator_mr", shown.source, syn_mr), ("discriminator_ct", shown.target, syn_ct)):
        place = torch.rand(2, 1, 1, 1)
        slopes = []
        for k in range(2):
            between = (real[k : k + 1] + place[k] * (synthetic[k : k + 1] - real[k : k + 1])).requires_grad_()
            slopes.append(torch.autograd.grad(old[name](between).mean(), between)[0].norm())
        penalty = sum((slope - 1) ** 2 for slope in slopes) / 2
        expected.append((old[name](synthetic).mean() - old[name](real).mean() + 7 * penalty).item())
    assert [loss for _, loss, _ in told[1:]] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["fcn-cyclegan", "unet2d-cgan"])
def test_a_critic_that_normalises_over_the_batch_is_refused(name):
    with pytest.raises(ConfigError, match=r'set discriminator\.kind = "patch"'):
        load_recipe(name, ["method.adversarial=wasserstein", "method.discriminator={kind='image'}"])


def test_critics_train_in_mixed_precision(dataset, tmp_path):
    """What is told of the first step is that of full precision, but for the penalty: where an image is flat, a slope can be anything."""
    first = {}
    for precision in ("fp32", "bf16"):
        recipe = load_recipe("cyclegan", [*SMALL, "train.steps=2", "method.adversarial=wasserstein", f"train.precision={precision}"])
        run = train(recipe, dataset, tmp_path / precision, quiet=True)
        row = read_metrics(run / "metrics.csv")[0]
        first[precision] = [float(row[name]) for name in ("generators", "discriminator_mr_distance", "discriminator_ct_distance")]
    assert first["bf16"] == pytest.approx(first["fp32"], rel=0.01, abs=0.01)
    assert first["bf16"] != first["fp32"]


PAPERS_NAMES = {
    "lambda_ABA": ("cycle_weight_source", 3.0),
    "lambda_BAB": ("cycle_weight_target", 4.0),
    "synthetic_pool_size": ("pool_size", 5),
    "learning_rate_G": ("learning_rate_generator", 6e-4),
    "learning_rate_D": ("learning_rate_discriminator", 7e-4),
}


def test_the_papers_names_are_understood_and_written_as_ours():
    recipe = load_recipe("fcn-cyclegan", [f"method.{theirs}={value}" for theirs, (_, value) in PAPERS_NAMES.items()])
    written = recipe.model_dump(mode="json")
    assert not PAPERS_NAMES.keys() & written["method"].keys()
    assert {ours: written["method"][ours] for ours, _ in PAPERS_NAMES.values()} == dict(PAPERS_NAMES.values())
    assert parse_recipe(written, "what was written") == recipe


def test_both_names_of_a_setting_at_once_are_refused():
    with pytest.raises(ConfigError, match="lambda_ABA: there is no such setting"):
        load_recipe("fcn-cyclegan", ["method.cycle_weight_source=3"])


def people_shown(recipe, folder, run, monkeypatch):
    """Train, and tell who gave the MR and who the CT of each sample, by all that was read of the dataset for it."""
    samples, here, persons = [], threading.local(), {s.id: s.person for s in read_manifest(folder).subjects}
    read, sample = Dataset.read, Sampler.sample

    def watched_read(self, subject, name, start, stop):
        here.reads.add((subject, name.removesuffix("_mask")))
        return read(self, subject, name, start, stop)

    def watched_sample(self, step, index):
        here.reads = set()
        result = sample(self, step, index)
        samples.append({modality: [s for s, m in here.reads if m == modality] for modality in ("mr", "ct")})
        return result

    monkeypatch.setattr(Dataset, "read", watched_read)
    monkeypatch.setattr(Sampler, "sample", watched_sample)
    train(recipe, folder, run, split=Split(train=tuple(persons)), quiet=True)
    assert len(samples) == recipe.train.steps * recipe.train.batch_size
    assert all(len(seen["mr"]) == len(seen["ct"]) == 1 for seen in samples)
    return [(seen["mr"][0], seen["ct"][0]) for seen in samples], persons


@pytest.fixture
def sessions(dataset, tmp_path):
    """The four heads, of which the first and the last are of one person."""
    folder = shutil.copytree(dataset, tmp_path / "sessions")
    manifest = read_manifest(folder)
    subjects = [s.model_copy(update={"attributes": {"person": "twice"}}) if s.id in ("head0", "head3") else s for s in manifest.subjects]
    write_manifest(folder, manifest.model_copy(update={"subjects": tuple(subjects)}))
    return folder


@pytest.mark.parametrize(
    ("recipe", "disjoint"),
    [
        ("cyclegan", False),
        ("fcn-cyclegan", True),
        pytest.param("cyclegan", True, marks=pytest.mark.slow),
        pytest.param("fcn-cyclegan", False, marks=pytest.mark.slow),
    ],
)
def test_no_training_sees_two_images_of_one_person_together(recipe, disjoint, sessions, tmp_path, monkeypatch):
    short = ["train.steps=20", "train.batch_size=2", "train.log_every=20", f"sampling.disjoint={str(disjoint).lower()}"]
    shown, persons = people_shown(load_recipe(recipe, [*SMALL, *short]), sessions, tmp_path / "run", monkeypatch)
    assert all(persons[mr] != persons[ct] for mr, ct in shown)
    both = {mr for mr, _ in shown} & {ct for _, ct in shown}
    assert both == (set() if disjoint else persons.keys())
