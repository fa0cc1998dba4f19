"""What a training begins with, such as the weights of an encoder: it is read once, and needed neither to go on nor to predict."""

import signal

import pytest
import torch

from transmodal.core.errors import Interrupted
from transmodal.engine.checkpoint import load_tree
from transmodal.engine.train import WEIGHTS_NAME
from transmodal.methods.recipe import load_recipe
from transmodal.methods.regression import Regression
from transmodal.networks.vgg_unet import VGGUNet
from transmodal.workflows.synthesize import synthesize
from transmodal.workflows.train import train

SHORT = ["view.size=[32,32]", "train.steps=2", "train.batch_size=2", "train.validate_every=2", "train.validation_batches=1"]
SMALL = ["method.network.channels=[4,4,8]", *SHORT]
ENCODER = ["method.network.channels=[2,2,4,4,8]", "predict.axes=[2]", *SHORT]


def make_encoder(path, dataset):
    torch.save(VGGUNet((2, 2, 4, 4, 8)).features.state_dict(prefix="features."), path)


def make_segmentor(folder, dataset):
    train(load_recipe("tissues2d", SMALL), dataset, folder, quiet=True)


# Recipe, settings with the place of the ingredient, and what makes one.
BEGUN_WITH = {
    "vgg-unet-tl": ([*ENCODER, "method.network.encoder_weights={}"], make_encoder),
    "unet2d-features": ([*SMALL, "method.loss.features.run={}"], make_segmentor),
}


@pytest.mark.parametrize("name", BEGUN_WITH)
def test_what_a_training_began_with_may_be_gone_afterwards(name, dataset, heads, tmp_path, monkeypatch):
    settings, make = BEGUN_WITH[name]
    ingredient = tmp_path / "ingredient"
    make(ingredient, dataset)
    recipe = load_recipe(name, [text.format(ingredient) for text in settings])
    whole = train(recipe, dataset, tmp_path / "whole", quiet=True)
    original = Regression.training_step

    def stopping(self, batch, update):
        signal.raise_signal(signal.SIGTERM)
        return original(self, batch, update)

    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="after step 1 of 2"):
        patch.setattr(Regression, "training_step", stopping)
        train(recipe, dataset, tmp_path / "parts", quiet=True)
    ingredient.rename(tmp_path / "gone")
    parts = train(recipe, dataset, tmp_path / "parts", resume=True, quiet=True)
    one, two = (load_tree(run / WEIGHTS_NAME) for run in (whole, parts))
    assert one.keys() == two.keys() == {"generator"}
    assert all(torch.equal(tensor, two["generator"][key]) for key, tensor in one["generator"].items())
    scan = heads / "Task1" / "brain" / "head0" / "mr.nii.gz"
    assert synthesize(scan, tmp_path / "sct.nii.gz", parts, device="cpu") == [tmp_path / "sct.nii.gz"]
