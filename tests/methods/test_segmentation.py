import numpy as np
import pytest
import torch

from transmodal.core.errors import ConfigError
from transmodal.data.augment import Augmentation
from transmodal.data.sampling import Batch, Sampler
from transmodal.data.store import Dataset
from transmodal.engine.predict import Prediction, Setting
from transmodal.imaging.intensity import IntensityStatistics, WindowIntensity
from transmodal.imaging.scan import read_scan
from transmodal.methods.recipe import load_recipe
from transmodal.methods.segmentation import Segmentation

SETTINGS = ["method.network.channels=[4,8]", "view.size=[32,32]"]


def method(dataset, prediction=None, **changes):
    recipe = load_recipe("bone-unet2d", SETTINGS)
    setting = Setting(
        direction="mr2ct",
        preparation=Dataset(dataset).manifest.preparation,
        intensity=recipe.intensity,
        statistics=dict.fromkeys(("mr", "ct"), IntensityStatistics(mean=0, sd=1, percentiles=(0.0,) * 16)),
        view=recipe.view,
        prediction=prediction or Prediction(),
    )
    torch.manual_seed(0)
    return Segmentation(recipe.method.model_copy(update=changes), setting)


def batch(logits_shape=(2, 1, 8, 8)):
    source = torch.randn(logits_shape, generator=torch.Generator().manual_seed(1))
    target, inside = (source > 0.5).float(), torch.ones(logits_shape, dtype=torch.bool)
    return Batch(source, target, inside, inside, paired=True)


def test_the_target_is_the_k_means_bone_of_each_subject(dataset):
    """In the phantoms, bone is 1000 HU and nothing else is above 40."""
    data, recipe = Dataset(dataset), load_recipe("bone-unet2d", SETTINGS)
    names = [subject.id for subject in data.manifest.subjects]
    target = method(dataset).learned_target(data, names)
    assert all(target.values(name, np.array([[[40, 1000]]])).tolist() == [[[0, 1]]] for name in names)
    intensity = {**recipe.intensity, "ct": WindowIntensity(lower=-1024, upper=3071)}
    arguments = (data, names, "mr2ct", recipe.view, recipe.sampling, Augmentation(), intensity, 0)
    bone, ct = (Sampler(*arguments, target=given).batch(0, 4) for given in (target, None))
    hu = ct.target * (3071 + 1024) / 2 + (3071 - 1024) / 2
    assert torch.equal(bone.target, (hu > 500).float())
    assert 0 < bone.target.mean() < 1
    assert torch.equal(bone.source, ct.source)


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_the_loss_is_the_weighted_cross_entropy(dataset, weight):
    sample, segmentation = batch(), method(dataset, bone_weight=weight)
    logits = segmentation.networks["segmentor"](sample.source)
    probability = logits.sigmoid()
    expected = -(weight * sample.target * probability.log() + (1 - sample.target) * (1 - probability).log()).mean()
    losses = []
    segmentation.training_step(sample, lambda name, loss: losses.append((name, loss)))
    assert losses[0][0] == "segmentor"
    assert losses[0][1].item() == pytest.approx(expected.item(), rel=1e-5)
    assert segmentation.validation_step(sample)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.slow
def test_training_finds_what_can_be_found(dataset):
    sample, segmentation = batch((2, 1, 16, 16)), method(dataset)
    optimizer = torch.optim.Adam(segmentation.networks["segmentor"].parameters(), 1e-2)

    def update(_, loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for _ in range(150):
        segmentation.training_step(sample, update)
    assert segmentation.validation_step(sample)["dice"] > 0.95


@pytest.mark.parametrize("logit", [-0.1, 0.0, 0.1])
def test_a_mask_is_where_bone_is_as_likely_as_not_and_inside_the_head(dataset, heads, logit):
    scan = read_scan(heads / "Task1" / "brain" / "head0" / "mr.nii.gz", "mr")
    segmentation = method(dataset, Prediction(flip=(0,)))
    for parameter in segmentation.networks["segmentor"].parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.constant_(segmentation.networks["segmentor"].output.bias, logit)
    bone, uncertainty = segmentation.synthesize_with_uncertainty(scan)
    assert (bone.modality, bone.array.dtype) == ("mask", np.bool_)
    assert bone.array.any() == (logit >= 0)
    assert not bone.array[0].any()
    assert not uncertainty.array.any()


def test_only_from_mr_to_ct(dataset):
    there = method(dataset)
    with pytest.raises(ConfigError, match="set mr2ct"):
        Segmentation(there.settings, there.setting.model_copy(update={"direction": "ct2mr"}))
