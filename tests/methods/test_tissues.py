import shutil

import numpy as np
import pytest
import torch

from transmodal.core.errors import ConfigError, DataError
from transmodal.data.augment import Augmentation
from transmodal.data.manifest import Manifest, read_manifest, write_manifest
from transmodal.data.sampling import Sampler
from transmodal.data.store import Dataset, write_image
from transmodal.engine.predict import Setting
from transmodal.imaging.intensity import IntensityStatistics
from transmodal.imaging.scan import read_scan
from transmodal.methods.recipe import load_recipe
from transmodal.methods.tissues import CLASSES, Tissues
from transmodal.simulation.tissues import Tissue

AIR, SOFT, BRAIN, SPONGY, DENSE = (list(CLASSES).index(name) for name in ("air", "soft tissue", "brain", "spongy bone", "dense bone"))


def recipe():
    return load_recipe("tissues2d", ["method.network.channels=[4,8]", "view.size=[32,32]"])


def method(dataset):
    given = recipe()
    setting = Setting(
        direction=given.direction,
        preparation=Dataset(dataset).manifest.preparation,
        intensity=given.intensity,
        statistics=dict.fromkeys(("mr", "ct"), IntensityStatistics(mean=0, sd=1, percentiles=(0.0,) * 16)),
        view=given.view,
        prediction=given.predict,
    )
    torch.manual_seed(0)
    return Tissues(given.method, setting)


def sampler(dataset):
    data, given = Dataset(dataset), recipe()
    names = [subject.id for subject in data.manifest.subjects]
    arguments = (data, names, given.direction, given.view, given.sampling, Augmentation(), given.intensity, 0)
    return Sampler(*arguments, target=method(dataset).learned_target(data, names))


def test_every_tissue_is_in_one_class():
    assert sorted(tissue for tissues in CLASSES.values() for tissue in tissues) == list(Tissue)


def test_the_target_is_the_class_of_each_voxel(dataset):
    """In the phantoms, the HU tell the tissues: -1000 outside, 40 of muscle, 1000 of cortical bone, 30 of grey matter."""
    batch = sampler(dataset).batch(0, 8)
    hu = batch.source * (3071 + 1024) / 2 + (3071 - 1024) / 2
    for value, number in {-1000: AIR, 30: BRAIN, 40: SOFT, 1000: DENSE}.items():
        assert torch.equal((hu - value).abs() < 1, batch.target == number)


def test_the_loss_is_the_cross_entropy_and_accuracy_is_counted_in_the_head(dataset):
    tissues, batch = method(dataset), sampler(dataset).batch(0, 2)
    logits = tissues.networks["segmentor"](batch.source)
    chances = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    expected = -chances.gather(1, batch.target.long()).log().mean()
    found = (chances.argmax(dim=1) == batch.target[:, 0])[batch.source_mask[:, 0]]
    losses = []
    tissues.training_step(batch, lambda name, loss: losses.append((name, loss)))
    assert losses[0][0] == "segmentor"
    torch.testing.assert_close(losses[0][1], expected)
    metrics = tissues.validation_step(batch)
    torch.testing.assert_close(metrics["loss"], expected)
    assert metrics["accuracy"].item() == pytest.approx(found.float().mean().item())


def test_training_finds_what_can_be_found(dataset):
    tissues, batch = method(dataset), sampler(dataset).batch(0, 2)
    optimizer = torch.optim.Adam(tissues.networks["segmentor"].parameters(), 3e-2)

    def update(_, loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for _ in range(40):
        tissues.training_step(batch, update)
    assert tissues.validation_step(batch)["accuracy"] > 0.9


@pytest.mark.parametrize(("spongy", "dense", "is_bone"), [(0.5, 0.0, True), (0.3, 0.3, True), (0.3, 0.1, False)])
def test_bone_is_where_its_two_classes_are_together_as_likely_as_not(dataset, heads, spongy, dense, is_bone):
    chances = torch.full((len(CLASSES),), (1 - spongy - dense) / (len(CLASSES) - 2))
    chances[SPONGY], chances[DENSE] = spongy + 1e-3, dense + 1e-3
    tissues = method(dataset)
    output = tissues.networks["segmentor"].output
    torch.nn.init.zeros_(output.weight)
    output.bias.data = chances.log()
    scan = read_scan(heads / "Task1" / "brain" / "head0" / "ct.nii.gz", "ct")
    bone, uncertainty = tissues.synthesize_with_uncertainty(scan)
    assert (bone.modality, bone.array.dtype) == ("mask", np.bool_)
    assert bone.array.any() == is_bone
    assert not bone.array[0].any()
    assert uncertainty.modality == "uncertainty"


def test_what_cannot_be_learned_from_is_refused(dataset, tmp_path):
    there = method(dataset)
    with pytest.raises(ConfigError, match=r"direction = mr2ct: .* set ct2mr"):
        Tissues(there.settings, there.setting.model_copy(update={"direction": "mr2ct"}))
    copied = shutil.copytree(dataset, tmp_path / "dataset")
    labels = Dataset(copied).read_all("head1", "labels").copy()
    labels[20, 20, 20] = 15
    write_image(copied, "head1", "labels", labels)
    with pytest.raises(DataError, match="head1: its label map holds the class 15, and tissues go from 0 to 14"):
        there.learned_target(Dataset(copied), ["head0", "head1"])
    manifest = read_manifest(copied)
    bare = [s.model_copy(update={"images": {k: v for k, v in s.images.items() if k != "labels"}}) for s in manifest.subjects]
    write_manifest(copied, Manifest(preparation=manifest.preparation, subjects=tuple(bare)))
    with pytest.raises(DataError, match="none of the 2 subjects has a label map of tissues"):
        there.learned_target(Dataset(copied), ["head0", "head1"])
