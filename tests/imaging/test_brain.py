import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from transmodal.core.errors import ConfigError, DataError
from transmodal.core.volume import Volume
from transmodal.imaging.brain import measure_brain, require_brain, strip_by_deepbet

SPACING_MM = 4.0


def ellipsoid(rotation=None, radii=(65.0, 85.0, 55.0), shift=(0.0, 0.0, 0.0), shape=(64, 64, 64)) -> Volume:
    """Wide, long and high as a brain, in mm."""
    affine = np.diag([SPACING_MM] * 3 + [1.0])
    affine[:3, 3] = -SPACING_MM * (np.array(shape) - 1) / 2
    points = np.moveaxis(np.indices(shape, dtype=float), 0, -1) @ affine[:3, :3].T + affine[:3, 3] - np.array(shift)
    points = points if rotation is None else points @ rotation.as_matrix()
    return Volume(((points / np.array(radii)) ** 2).sum(axis=-1) < 1, affine, "mask")


def test_the_volume_is_that_of_the_ellipsoid():
    measured = measure_brain(ellipsoid())
    assert measured.litres == pytest.approx(4 / 3 * np.pi * 65 * 85 * 55 * 1e-6, rel=0.01)
    assert not measured.cut
    assert measured.faults == []


@given(st.tuples(*[st.floats(-25, 25)] * 3), st.tuples(*[st.floats(-15, 15)] * 3))
def test_what_is_symmetric_is_so_in_any_pose(angles, shift):
    measured = measure_brain(ellipsoid(Rotation.from_euler("xyz", angles, degrees=True), shift=shift))
    assert measured.symmetry > 0.95


def test_a_simulated_brain_is_one(simulated_head):
    assert require_brain(simulated_head["brain"], "the mask") is simulated_head["brain"]


def test_a_brain_that_is_cut_may_be_small():
    whole = ellipsoid(radii=(55.0, 65.0, 55.0))
    upper = Volume(whole.array[:, :, 36:], whole.affine, "mask")
    assert measure_brain(upper).cut
    assert measure_brain(upper).litres < 0.5
    assert measure_brain(upper).faults == []


def test_other_things_are_none_and_the_message_has_the_measure():
    with pytest.raises(DataError, match=r"what was found is none: it has 0\.0\d litres.*brain\.nii\.gz"):
        require_brain(ellipsoid(radii=(20.0, 20.0, 20.0)), "what was found")
    with pytest.raises(DataError, match=r"litres"):
        require_brain(ellipsoid(radii=(100.0, 110.0, 100.0)), "the whole head")
    lopsided = ellipsoid()
    bulge = ellipsoid(radii=(45.0, 45.0, 45.0), shift=(75.0, -60.0, 30.0))
    with pytest.raises(DataError, match=r"in its own mirror image"):
        require_brain(lopsided.with_array(lopsided.array | bulge.array), "the mask")
    with pytest.raises(DataError, match="empty"):
        require_brain(lopsided.with_array(np.zeros(lopsided.shape, dtype=bool)), "the mask")


def test_without_deepbet_the_message_says_how_to_get_it(monkeypatch, simulated_head):
    monkeypatch.setitem(sys.modules, "deepbet", None)
    with pytest.raises(ConfigError, match=r"transmodal\[brain\]"):
        strip_by_deepbet(simulated_head["mr"])
