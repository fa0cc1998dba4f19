import pytest

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
        ("method.name=gan", r"method\.name = 'gan'; there are baseline, regression"),
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
