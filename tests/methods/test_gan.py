import copy

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import binary_cross_entropy

from transmodal.core.errors import ConfigError
from transmodal.core.volume import Volume
from transmodal.data.sampling import Batch, View
from transmodal.engine.predict import Prediction, Setting
from transmodal.imaging.intensity import IntensityStatistics, WindowIntensity
from transmodal.imaging.preparation import Preparation
from transmodal.methods.gan import GAN, GANSettings
from transmodal.methods.recipe import load_recipe
from transmodal.workflows.synthesize import synthesize
from transmodal.workflows.train import train

SMALL = ["method.generator.latent=3", "method.generator.channels=2", "method.discriminator.channels=2", "view.size=[16,16]"]


def setting(view=None, onto=(-1, 1)):
    return Setting(
        direction="mr2ct",
        preparation=Preparation(),
        intensity=dict.fromkeys(("mr", "ct"), WindowIntensity(lower=-1000, upper=1000, onto=onto)),
        statistics=dict.fromkeys(("mr", "ct"), IntensityStatistics(mean=0, sd=1, percentiles=(0.0,) * 16)),
        view=view or View(size=(16, 16)),
        prediction=Prediction(),
    )


def method(seed=0):
    torch.manual_seed(seed)
    settings = load_recipe("gan", SMALL).method
    assert isinstance(settings, GANSettings)
    return GAN(settings, setting())


def batch():
    ct = torch.rand((4, 1, 16, 16), generator=torch.Generator().manual_seed(1)) * 2 - 1
    inside = torch.ones_like(ct, dtype=torch.bool)
    return Batch(torch.zeros_like(ct), ct, inside, inside, paired=False)


def test_each_network_learns_the_cross_entropy_of_its_labels_the_discriminator_first():
    """As the paper has it, with a sigmoid and the labels 1 and 0; the generator draws anew, and asks the discriminator as it has become."""
    gan, sample, told = method(), batch(), []
    optimizations = gan.optimizers()
    g, old = (copy.deepcopy(gan.networks[name]) for name in ("generator", "discriminator"))

    def update(name, loss):
        before = {key: [p.clone() for p in network.parameters()] for key, network in gan.networks.items()}
        optimizations[name].optimizer.zero_grad()
        loss.backward(inputs=list(gan.networks[name].parameters()))
        optimizations[name].optimizer.step()
        changed = [
            key
            for key, network in gan.networks.items()
            if any(not torch.equal(p, q) for p, q in zip(network.parameters(), before[key], strict=True))
        ]
        told.append((name, loss.item(), changed))

    torch.manual_seed(5)
    metrics = gan.training_step(sample, update)
    torch.manual_seed(5)
    first, second = torch.randn(4, 3), torch.randn(4, 3)
    real, synthetic = torch.ones(4), torch.zeros(4)
    discriminator = binary_cross_entropy(old(sample.target).sigmoid(), real) + binary_cross_entropy(old(g(first)).sigmoid(), synthetic)
    generator = binary_cross_entropy(gan.networks["discriminator"](g(second)).sigmoid(), real)
    assert [(name, changed) for name, _, changed in told] == [("discriminator", ["discriminator"]), ("generator", ["generator"])]
    assert [loss for _, loss, _ in told] == pytest.approx([discriminator.item(), generator.item()], rel=1e-5)
    assert metrics.keys() == {
        *("generator", "generator_diversity", "generator_histogram_distance"),
        *("discriminator", "discriminator_accuracy_real", "discriminator_accuracy_synthetic", "discriminator_saturation"),
    }


def test_the_pictures_are_always_of_the_same_numbers_also_from_a_state():
    gan, other, sample = method(), method(seed=1), batch()
    for network in gan.networks.values():
        network.eval()
    shown = gan.preview(sample)
    assert list(shown) == [*(f"made {k}" for k in range(1, 9)), "CT"]
    torch.testing.assert_close(shown["CT"] * 2 - 1, sample.target)
    made = torch.cat([shown[f"made {k}"] for k in range(1, 9)])
    assert made.shape == (64, 1, 16, 16)
    assert made.flatten(1).unique(dim=0).shape[0] == 64
    other.networks = gan.networks
    assert not torch.equal(other.preview(sample)["made 1"], shown["made 1"])
    other.load_state(gan.state())
    assert torch.equal(other.preview(sample)["made 1"], shown["made 1"])
    gan.training_step(sample, lambda *_: None)
    for network in gan.networks.values():
        network.eval()
    assert gan.validation_step(sample).keys() >= {"generator", "discriminator"}


def test_images_that_the_networks_are_not_for_are_refused():
    settings = method().settings
    with pytest.raises(ConfigError, match="is not square"):
        GAN(settings, setting(View(size=(16, 32))))
    with pytest.raises(ConfigError, match="power of two"):
        GAN(settings, setting(View(size=(48, 48))))
    with pytest.raises(ConfigError, match=r"'latent' gives values from -1 to 1, and so must intensity\.ct"):
        GAN(settings, setting(onto=(0, 1)))


def test_it_turns_no_scan_into_another_and_leaves_pictures(dataset, heads, tmp_path):
    short = ["train.steps=2", "train.batch_size=4", "train.validate_every=1"]
    run = train(load_recipe("gan", [*SMALL, *short]), dataset, tmp_path / "run", quiet=True)
    pictures = sorted((run / "previews").glob("*.png"))
    assert [path.name for path in pictures] == ["step_00000001.png", "step_00000002.png"]
    assert np.asarray(Image.open(pictures[-1])).shape == (16 + 8 * 98, 9 * 98)
    scan = heads / "Task1" / "brain" / "head0" / "mr.nii.gz"
    with pytest.raises(ConfigError, match=r"run: it turns no scan into another; the images that it makes are in .*previews"):
        synthesize(scan, tmp_path / "sct.nii.gz", run)
    assert not (tmp_path / "sct.nii.gz").exists()
    with pytest.raises(ConfigError, match="turns no scan into another"):
        method().synthesize(Volume(np.zeros((4, 4, 4)), np.eye(4), "mr"))
