from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transmodal.core.errors import DataError, GeometryError
from transmodal.core.volume import Volume
from transmodal.evaluation.bone import _first_of_three, bone_mask, bone_threshold_hu, segment_bone


def image(*values):
    """Voxels of the first values in a head, and one row of air outside of it."""
    array = np.array([values, [9999] * len(values)], dtype=np.float32)[..., None]
    return array, np.array([[True] * len(values), [False] * len(values)])[..., None]


def test_three_values_are_three_classes():
    ct, mask = image(-1000, -1000, 40, 40, 40, 1200)
    np.testing.assert_array_equal(bone_mask(ct, mask)[:, :, 0], [[False] * 5 + [True], [False] * 6])
    assert bone_threshold_hu(ct, mask) == 44  # the lower edge of the bin after [40, 44)


def test_a_voxel_belongs_to_the_class_of_its_bin():
    """Bins are 4 HU wide, and the first begins at -1024."""
    ct, mask = image(*[-1024] * 50, *[0] * 50, *[3] * 50, *[1000] * 50, 4)
    assert not bone_mask(ct, mask)[0, -1, 0]
    assert bone_threshold_hu(*image(-1024, 0, 3.9, 1000)) == 4


@given(st.lists(st.floats(-1500, 4000, width=32), min_size=4, max_size=40))
def test_no_other_thresholds_leave_less_variance_within_the_classes(values):
    ct, mask = image(*values)
    threshold = bone_threshold_hu(ct, mask)
    bins = np.clip((np.floor(np.where(mask, ct, -1024.0)) + 1024) // 4, 0, 1023)[:, :, 0].ravel()
    edges = np.unique(bins)
    if len(edges) < 3:
        assert np.isnan(threshold)
        return
    costs = {(a, b): _within(bins, a, b) for a in edges[1:] for b in edges[1:] if a < b}
    chosen = edges[edges >= (threshold + 1024) / 4][0]
    assert min(cost for (_, upper), cost in costs.items() if upper == chosen) <= min(costs.values()) * (1 + 1e-4) + 1e-4


@given(st.lists(st.integers(0, 10**8), min_size=3, max_size=14).filter(lambda counts: sum(map(bool, counts)) >= 3))
def test_the_classes_of_a_large_head_are_those_of_exact_fractions(counts):
    def spread(first, end):
        number, total = sum(counts[first:end]), sum(k * counts[k] for k in range(first, end))
        return sum(k * k * counts[k] for k in range(first, end)) - Fraction(total**2, number) if number else None

    found = _first_of_three(np.array(counts, dtype=np.int64))
    costs = {}
    for low in range(1, len(counts) - 1):
        for high in range(low + 1, len(counts)):
            parts = [spread(0, low), spread(low, high), spread(high, len(counts))]
            if None not in parts:
                costs[low, high] = sum(parts)
    least = min(costs.values())
    assert min(cost for (_, high), cost in costs.items() if high == found) <= least * (1 + Fraction(1, 10**9))


def _within(bins, lower, upper):
    classes = bins[bins < lower], bins[(bins >= lower) & (bins < upper)], bins[bins >= upper]
    return sum(((c - c.mean()) ** 2).sum() for c in classes)


def test_lloyds_iterations_end_where_we_begin(simulated_head):
    ct, mask = simulated_head["ct"].array, simulated_head["mask"].array
    levels = np.floor((np.clip(np.where(mask, ct, -1024), -1024, 3071) + 1024) / 4)
    upper = (bone_threshold_hu(ct, mask) + 1024) / 4
    soft = levels[(levels > 100) & (levels < upper)]
    centres = np.array([levels[levels <= 100].mean(), soft.mean(), levels[levels >= upper].mean()])
    for _ in range(100):
        classes = np.abs(levels[..., None] - centres).argmin(axis=-1)
        centres = np.array([levels[classes == k].mean() for k in range(3)])
    assert np.mean((classes == 2) != bone_mask(ct, mask)) < 1e-3


def test_the_bone_of_a_simulated_head_is_found_whatever_is_outside(simulated_head):
    ct, mask = simulated_head["ct"].array, simulated_head["mask"].array
    bone = bone_mask(ct, mask)
    assert 150 < bone_threshold_hu(ct, mask) < 800
    assert 0.05 < bone.sum() / mask.sum() < 0.4
    np.testing.assert_array_equal(bone_mask(np.where(mask, ct, 3000), mask), bone)
    assert not bone[~mask].any()


def test_too_few_levels_are_refused_for_a_mask_and_no_bone_in_a_score():
    ct, mask = image(-1000, -1000, 40)
    assert np.isnan(bone_threshold_hu(*image(40, 40, 40)))
    assert not bone_mask(*image(40, 40, 40)).any()
    assert not bone_mask(ct, np.zeros_like(mask)).any()
    volume, head = Volume(np.full((2, 2, 2), 40), np.eye(4), "ct"), Volume(np.ones((2, 2, 2), bool), np.eye(4), "mask")
    with pytest.raises(DataError, match="fewer than three grey levels"):
        segment_bone(volume, head)
    with pytest.raises(DataError, match="not in a volume of the modality mr"):
        segment_bone(volume.with_array(volume.array, "mr"), head)
    with pytest.raises(GeometryError, match="the head mask"):
        segment_bone(volume, Volume(np.ones((2, 2, 2), bool), 2 * np.eye(4) - np.diag([0, 0, 0, 1]), "mask"))
