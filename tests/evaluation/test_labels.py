import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion, distance_transform_edt

from small_cases import SHAPE, case_of, volume
from transmodal.evaluation.labels import LABELS, hd95_mm
from transmodal.evaluation.protocol import score

SPACING = (1.0, 2.0, 0.5)


def case(true: np.ndarray, found: np.ndarray, spacing: float = 1.0):
    ct = volume(np.zeros(true.shape), spacing=spacing)
    return case_of(ct, ct, reference_labels=ct.with_array(true, "labels"), prediction_labels=ct.with_array(found, "labels"))


def hd95_plainly(first, second, spacing):
    """Distances from every surface voxel to the nearest of the other, by distance transforms of the whole image."""
    surfaces = [mask & ~binary_erosion(mask) for mask in (first, second)]
    to = [distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    return max(np.percentile(to[1][surfaces[0]], 95), np.percentile(to[0][surfaces[1]], 95))


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.floats(0.02, 0.9))
def test_hd95_is_that_of_distance_transforms(seed, density):
    rng = np.random.default_rng(seed)
    first, second = (rng.uniform(size=SHAPE) < density for _ in range(2))
    if first.any() and second.any():
        assert hd95_mm(first, second, SPACING) == pytest.approx(hd95_plainly(first, second, SPACING), rel=1e-6)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # of its own making
def test_hd95_is_that_of_monai():
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    rng = np.random.default_rng(1)
    first, second = rng.uniform(size=SHAPE) < 0.05, rng.uniform(size=SHAPE) < 0.3
    theirs = compute_hausdorff_distance(first[None, None], second[None, None], include_background=True, percentile=95, spacing=SPACING)
    assert hd95_mm(first, second, SPACING) == pytest.approx(float(theirs))


def test_hd95_knows_the_spacing_and_that_nothing_is_nowhere():
    first, second = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    first[2:4, 2:4, 2:4], second[2:4, 5:7, 2:4] = True, True
    assert hd95_mm(first, second, SPACING) == 6  # three voxels of 2 mm
    assert hd95_mm(first, first, SPACING) == 0
    assert math.isnan(hd95_mm(first, np.zeros(SHAPE, bool), SPACING))


def test_every_label_of_either_map_is_scored_and_one_that_is_missed_counts_as_0():
    true, found = np.zeros(SHAPE, np.uint16), np.zeros(SHAPE, np.uint16)
    true[1:5, 1:5, 1:5], found[3:7, 1:5, 1:5] = 7, 7  # half in each other, two voxels apart
    true[8, 8, 8] = 900
    scores = score(case(true, found, spacing=1.5), LABELS)
    assert scores.details == {"dice_7": 0.5, "dice_900": 0, "hd95_7_mm": 3, "hd95_900_mm": None}
    assert scores.values == {"dice_mean": 0.25, "hd95_mean_mm": 3, "labels_in_one": 1}
    assert scores.reasons == {"hd95_900_mm": "only one of the label maps has this label"}


def test_maps_without_labels_have_no_scores():
    nothing = np.zeros(SHAPE, np.uint8)
    scores = score(case(nothing, nothing), LABELS)
    assert set(scores.values.values()) == {None}
    assert scores.details == {}
    one = nothing.copy()
    one[0] = 1
    assert score(case(one, nothing), LABELS).values == {"dice_mean": 0, "hd95_mean_mm": None, "labels_in_one": 1}


def test_maps_of_different_integers_are_one_set_of_labels():
    labels = np.random.default_rng(0).integers(0, 5, SHAPE)
    assert score(case(labels.astype(np.uint8), labels.astype(np.uint32)), LABELS).values == {
        "dice_mean": 1,
        "hd95_mean_mm": 0,
        "labels_in_one": 0,
    }
