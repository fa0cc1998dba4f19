import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from transmodal.engine.predict import Setting
from transmodal.imaging.preparation import Preparation
from transmodal.methods.exposures import AIR_HU, Exposure, fuse
from transmodal.methods.recipe import load_recipe

IMAGES = arrays(np.float32, (2, 3, 4), elements=st.floats(-1024, 3000, width=32))


@given(IMAGES, IMAGES, IMAGES)
def test_air_is_that_of_the_dark_exposure_and_the_rest_the_densest_of_all(dark, bright, brightest):
    air, fused = dark < AIR_HU, fuse(dark, bright, brightest)
    assert (fused[air] == dark[air]).all()
    assert (fused[~air] == np.stack([dark, bright, brightest]).max(axis=0)[~air]).all()


@given(IMAGES)
def test_one_exposure_is_its_own_ct(dark):
    assert (fuse(dark) == dark).all()


def test_an_exposure_changes_how_mrs_are_shown_and_nothing_else():
    recipe = load_recipe("any-mr")
    setting = Setting(
        direction="mr2ct",
        preparation=Preparation(),
        intensity=recipe.intensity,
        statistics={},
        view=recipe.view,
        prediction=recipe.predict,
    )
    shown = Exposure(power=0.1).of(setting).model_dump()
    assert shown["intensity"]["mr"] == {**setting.model_dump()["intensity"]["mr"], "black_point": 0, "power": 0.1}
    shown["intensity"]["mr"] = setting.model_dump()["intensity"]["mr"]
    assert shown == setting.model_dump()
