import numpy as np
import pytest

from transmodal.contracts import Method
from transmodal.core.errors import ConfigError
from transmodal.core.volume import Volume
from transmodal.methods.ensemble import Ensemble

SCAN = Volume(np.zeros((3, 4, 5), np.float32), np.diag([1.0, 2.0, 3.0, 1.0]), "mr")


class Constant(Method):
    """Makes the same value everywhere."""

    def __init__(self, value, modality="ct", directions=("mr2ct",)):
        self.value, self.modality, self.directions = value, modality, directions
        self.product = "bone" if modality == "mask" else "image"

    def cycle(self, scan):
        return scan.with_array(scan.array + self.value) if len(self.directions) == 2 else super().cycle(scan)

    def synthesize(self, scan):
        dtype = {"ct": np.int16, "mr": np.float32, "mask": bool}[self.modality]
        return scan.with_array(np.full(scan.shape, self.value, dtype), self.modality)


@pytest.mark.parametrize("values", [(100, 300), (-1000, 3000), (7, 7), (1, 2, 6)], ids=str)
def test_the_mean_and_the_standard_deviation_of_constants(values):
    ensemble = Ensemble([Constant(value) for value in values])
    mean, uncertainty = ensemble.synthesize_with_uncertainty(SCAN)
    assert (mean.modality, mean.array.dtype) == ("ct", np.int16)
    assert (mean.array == np.mean(values)).all()
    np.testing.assert_allclose(uncertainty.array, np.std(values), rtol=1e-5)
    assert (uncertainty.modality, uncertainty.array.dtype) == ("uncertainty", np.float32)
    np.testing.assert_array_equal(ensemble.synthesize(SCAN).array, mean.array)
    assert mean.grid.matches(SCAN.grid)
    assert ensemble.opinions == len(values)


def test_what_each_says_of_itself_is_part_of_the_uncertainty():
    """Planes of 100 and 300, and of 600 and 800, are four opinions, whichever run they are of."""

    class TwoPlanes(Constant):
        opinions = 2

        def synthesize_with_uncertainty(self, scan):
            return self.synthesize(scan), scan.with_array(np.full(scan.shape, 100, np.float32), "uncertainty")

    mean, uncertainty = Ensemble([TwoPlanes(200), TwoPlanes(700)]).synthesize_with_uncertainty(SCAN)
    assert (mean.array == 450).all()
    np.testing.assert_allclose(uncertainty.array, np.std([100, 300, 600, 800]), rtol=1e-6)


def test_hu_are_rounded_and_an_mr_is_not():
    assert (Ensemble([Constant(1), Constant(1), Constant(3)]).synthesize(SCAN).array == 2).all()
    grey = Ensemble([Constant(v, "mr", ("ct2mr",)) for v in (1.0, 2.0)]).synthesize(SCAN.with_array(SCAN.array, "ct"))
    assert (grey.modality, grey.array.max()) == ("mr", 1.5)


@pytest.mark.parametrize(("votes", "bone"), [((1, 1, 0), True), ((1, 0), True), ((1, 0, 0), False)], ids=str)
def test_masks_are_voted_on(votes, bone):
    mask, uncertainty = Ensemble([Constant(vote, "mask") for vote in votes]).synthesize_with_uncertainty(SCAN)
    assert (mask.modality, mask.array.dtype) == ("mask", np.bool_)
    assert (mask.array == bone).all()
    np.testing.assert_allclose(uncertainty.array, np.std(votes), rtol=1e-5)


def test_what_cannot_be_averaged_is_refused():
    both = Ensemble([Constant(0, directions=("mr2ct", "ct2mr")), Constant(0, directions=("ct2mr",))])
    assert both.directions == ("ct2mr",)
    for other in (Constant(0, directions=("ct2mr",)), Constant(0, "mask")):
        with pytest.raises(ConfigError, match="do not make the same thing"):
            Ensemble([Constant(0), other])


def test_the_scan_is_made_again_by_each_and_the_mean_taken():
    both = ("mr2ct", "ct2mr")
    again = Ensemble([Constant(value, directions=both) for value in (1, 2)]).cycle(SCAN)
    assert again.modality == "mr"
    assert (again.array == 1.5).all()
    hu = SCAN.with_array(np.zeros(SCAN.shape, np.int16), "ct")
    assert Ensemble([Constant(value, directions=both) for value in (1, 4)]).cycle(hu).array.dtype == np.int16
    with pytest.raises(ConfigError, match="both ways"):
        Ensemble([Constant(1, directions=both), Constant(2)]).cycle(SCAN)
