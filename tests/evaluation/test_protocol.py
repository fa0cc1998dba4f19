import numpy as np
import pytest

from small_cases import SHAPE, case_of, column, noisy_case, volume
from transmodal.core.errors import DataError, GeometryError
from transmodal.evaluation.protocol import IDENTICAL, NOT_DEFINED, Case, Companion, MetricNote, Protocol, ProtocolNote, score
from transmodal.evaluation.synthrad import SYNTHRAD2023

METRIC = MetricNote(name="m", label="M", unit="", better="lower", undefined="for want of it")


def protocol(found, **changes):
    return Protocol(
        ProtocolNote(name="p", title="P", modality="ct", mask="all", clip="none", metrics=(METRIC,)), lambda case: found, **changes
    )


def test_a_value_that_is_none_has_its_reason():
    assert score(noisy_case(), protocol({"m": 2.0})).values == {"m": 2.0}
    for found, reason in ((float("nan"), "for want of it"), (float("inf"), IDENTICAL), ("said of this case", "said of this case")):
        scores = score(noisy_case(), protocol({"m": found}))
        assert (scores.values, scores.reasons) == ({"m": None}, {"m": reason})


def test_what_the_note_does_not_list_is_a_detail():
    scores = score(noisy_case(), protocol({"m_1": 1.0, "m": 2.0, "m_2": float("nan"), "m_3": "not here"}))
    assert scores.values == {"m": 2.0}
    assert scores.details == {"m_1": 1.0, "m_2": None, "m_3": None}
    assert scores.reasons == {"m_2": NOT_DEFINED, "m_3": "not here"}


def test_a_required_companion_that_is_missing_is_named_and_nothing_is_computed():
    asked = protocol(
        {"m": 2.0}, companions=(Companion("labels", "labels", of="both"), Companion("bone", "mask", of="reference", required=False))
    )
    labels = volume(np.ones(SHAPE, np.uint8), "labels")
    none, one = score(noisy_case(), asked), score(noisy_case(reference_labels=labels), asked)
    assert none.values == one.values == {"m": None}
    assert one.reasons == {"m": "there is no sct_labels.nii.gz beside the synthetic CT"}
    assert none.reasons["m"] == "there is no labels.nii.gz beside the true CT, " + one.reasons["m"]
    assert score(noisy_case(reference_labels=labels, prediction_labels=labels), asked).values == {"m": 2.0}


def test_a_case_lies_on_one_grid_and_is_finite():
    ct, mask = column(0, 1), column(1, 1, modality="mask")
    with pytest.raises(GeometryError, match="the prediction"):
        Case(ct, volume(np.zeros((2, 1, 1)), spacing=2.0), mask)
    with pytest.raises(GeometryError, match="bone beside the reference"):
        Case(ct, ct, mask, {("reference", "bone"): column(1, 1, 1, modality="mask")})
    with pytest.raises(DataError, match="the prediction: 1 voxels"):
        Case(ct, column(np.nan, 1), mask)


def test_images_of_another_modality_are_refused():
    with pytest.raises(DataError, match="modality mr"):
        score(noisy_case("mr"), SYNTHRAD2023)
    ct = column(0, 1)
    with pytest.raises(DataError, match="modality mask"):
        score(case_of(ct, column(1, 1, modality="mask")), SYNTHRAD2023)
    with pytest.raises(DataError, match="the reference is of the modality mask"):
        score(case_of(column(1, 1, modality="mask"), ct), protocol({"m": 0.0}, takes_masks=True))


def test_an_infinite_psnr_is_not_a_number_in_a_file():
    reference = noisy_case().reference
    scores = score(case_of(reference, reference), SYNTHRAD2023)
    assert scores.values == {"mae_hu": 0.0, "psnr_db": None, "ssim": pytest.approx(1)}
    assert scores.reasons == {"psnr_db": IDENTICAL}
