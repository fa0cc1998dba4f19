import numpy as np
import pytest

from small_cases import case_of, column, noisy_case
from transmodal.evaluation.protocol import score
from transmodal.evaluation.tissue import Tissues, tissue_classes, tissue_protocol


def test_tissue_errors_add_up_to_the_whole():
    case = noisy_case()
    values = score(case, tissue_protocol(Tissues())).values
    classes = tissue_classes(case.reference.array, case.inside, Tissues())
    assert sum(np.count_nonzero(c) for c in classes.values()) == np.count_nonzero(case.inside)
    whole = sum(np.count_nonzero(region) * values[f"bias_{name}_hu"] for name, region in classes.items()) / case.inside.size
    assert values["bias_hu"] == pytest.approx(whole)


def test_thresholds_bound_the_classes_and_are_stated():
    reference = column(-201.0, -200.0, 300.0, 301.0)
    classes = tissue_classes(reference.array, np.ones(reference.shape, bool), Tissues(bone_hu=300))
    assert [name for voxel in range(4) for name, region in classes.items() if region[voxel, 0, 0]] == ["air", "soft", "soft", "bone"]
    scores = score(case_of(reference, reference.array + 1), tissue_protocol(Tissues(bone_hu=300)))
    assert scores.values["dice_bone"] == pytest.approx(2 / 3)
    assert "bone above 300 HU" in scores.mask and "−200 HU" in scores.mask
