import pytest
import torch

from transmodal.core.errors import ConfigError
from transmodal.methods.recipe import load_recipe, parse_recipe, recipe_names


def test_the_recipe_of_the_paper_has_its_values():
    recipe = load_recipe("unet2d")
    assert recipe.method.network.channels == (64, 128, 256, 512)
    assert recipe.method.loss.l2 == recipe.method.loss.gradient_difference == 1
    assert recipe.method.loss.gradient_reading == "signed"
    assert recipe.method.optimizer.learning_rate == 1e-4
    assert recipe.train.schedule == "constant"
    assert recipe.train.steps * recipe.train.batch_size == 650 * 3200
    assert recipe.view.size == recipe.predict.patch == (128, 128)
    assert recipe.augment.flip == (0, 1)


def test_the_3d_recipe_of_the_paper_differs_in_its_patches_alone():
    two, three = load_recipe("unet2d"), load_recipe("unet3d")
    assert three.view.size == three.predict.patch == (48, 48, 24)
    for name in ("method", "intensity", "augment", "train", "preparation"):
        assert getattr(two, name) == getattr(three, name)
    assert two.preparation.registration.kind == "rigid"


@pytest.mark.parametrize("name", ["light-unet", "vgg-unet", "vgg-unet-tl"])
def test_the_recipes_of_the_light_unet_paper_have_its_values(name):
    recipe = load_recipe(name)
    assert (recipe.method.loss.l1, recipe.method.loss.l2, recipe.method.loss.gradient_difference) == (1, 0, 0)
    assert (recipe.method.optimizer.learning_rate, recipe.method.optimizer.betas) == (1e-3, (0.9, 0.999))
    assert recipe.intensity["ct"].upper - recipe.intensity["ct"].lower == 2000
    assert recipe.intensity["ct"].levels == recipe.intensity["mr"].levels == 256
    assert (recipe.view.size, recipe.view.axes, recipe.view.fit) == ((224, 224), (0, 1, 2), "square")
    assert (recipe.augment.rotation_deg, recipe.augment.crop) == (10, 0.1)
    assert (recipe.train.batch_size, recipe.train.patience, recipe.train.validation_fraction) == (128, 5, 0.15)
    assert (recipe.preparation.mask, recipe.preparation.registration.kind) == ("hull", "landmarks")


def test_the_residual_encoder_is_trained_as_nnunet_trains():
    recipe = load_recipe("resenc3d")
    assert recipe.method.loss.masked
    assert recipe.augment.flip == ()
    assert (recipe.train.clip_norm, recipe.train.schedule) == (12, "polynomial")
    optimizer = recipe.method.optimizer.build([torch.nn.Parameter(torch.zeros(1))])
    assert {name: optimizer.defaults[name] for name in ("lr", "momentum", "nesterov", "weight_decay")} == {
        "lr": 0.01,
        "momentum": 0.99,
        "nesterov": True,
        "weight_decay": 3e-5,
    }


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_come_back_from_plain_values(name):
    recipe = load_recipe(name)
    assert parse_recipe(recipe.model_dump(mode="json"), "here") == recipe


def test_a_recipe_from_a_file_and_with_values_replaced(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('title = "Mine"\ndescription = ""\n[method]\nname = "regression"\n[train]\nsteps = 3\nbatch_size = 2\n')
    recipe = load_recipe(str(path), ["train.steps=5", "method.network.norm=instance"])
    assert (recipe.name, recipe.train.steps, recipe.method.network.norm) == ("mine", 5, "instance")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("method.name=transformer", r"method\.name = 'transformer'; there are any-mr, atlas, baseline, cgan"),
        ("method.netwrok.norm=batch", "netwrok: there is no such setting"),
        ("train.steps=many", "train.steps = 'many'"),
        ("intensity.ct.lower=5000", "must be less than upper"),
        ("view.size=[8]", "view.size"),
        ("sampling.pairing=random", "sampling.pairing = 'random'"),
    ],
)
def test_mistakes_are_named(assignment, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe("unet2d", [assignment])


def test_a_network_needs_a_training(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('title = "Mine"\ndescription = ""\n[method]\nname = "regression"\n')
    with pytest.raises(ConfigError, match=r"the table \[train\]"):
        load_recipe(str(path))
