import pytest

from transmodal.evaluation.results import CaseFailure
from transmodal.reporting.words import cautions, extremes, lead, ranked, without_folders


def test_cases_are_ranked_without_those_that_have_no_value(sheet_of):
    sheet = sheet_of({"a": 30.0, "b": None, "c": 10.0, "d": 20.0})
    assert [case.case for case in ranked(sheet)] == ["c", "d", "a"]
    assert [(place, case.case) for place, case in extremes(sheet)] == [("Best", "c"), ("Median", "d"), ("Worst", "a")]


def test_each_case_is_shown_once(sheet_of):
    assert [(place, case.case) for place, case in extremes(sheet_of({"a": 2.0, "b": 1.0}))] == [("Best", "b"), ("Worst", "a")]
    assert [place for place, _ in extremes(sheet_of({"a": 2.0}))] == ["Best"]
    assert extremes(sheet_of({})) == []


def test_the_lead_says_what_was_scored_and_how(sheet_of):
    text = " ".join(lead("U-Net", sheet_of({"a": 50.0, "b": 70.0})))
    for part in (
        "U-Net: synthetic CT of 2 cases",
        "SynthRAD 2023",
        "mask: beside the true image",
        "MAE\u00a060.0 (14.1)\u00a0HU",
        "[−1024, 3000] HU",
        "best case is a (50.0\u00a0HU)",
        "worst b (70.0\u00a0HU)",
    ):
        assert part in text
    assert lead("U-Net", sheet_of({})) == ["No case of U-Net could be scored."]


def test_cautions_follow_from_the_scores(sheet_of):
    few = cautions([("one", sheet_of({"a": 1.0, "b": 2.0}))])
    assert any("2 cases are few" in caution for caution in few)
    assert any("not recorded" in caution for caution in few)
    many = sheet_of({f"c{i}": 1.0 for i in range(10)}, simulated=True)
    assert [caution.split(":")[0] for caution in cautions([("one", many)])] == ["The heads are simulated"]
    known = sheet_of({f"c{i}": 1.0 for i in range(10)}, registration="rigid mutual information", unpredicted=("x",))
    text = " ".join(cautions([("one", known)]))
    assert "by rigid mutual information" in text and "had no prediction (x)" in text


def test_cautions_on_several_methods(sheet_of):
    failures = (CaseFailure(case="b", message="b: broken"),)
    text = " ".join(cautions([("one", sheet_of({"a": 1.0, "b": 2.0})), ("two", sheet_of({"a": 1.0}, failures=failures))]))
    assert "not scored on the same cases" in text
    assert "two: one case could not be scored (b)" in text
    assert "two trainings of one method" in text
    assert "same voxels" not in text


def test_a_case_that_was_scored_in_another_mask_is_a_caution(sheet_of):
    one, two = sheet_of({"a": 1.0, "b": 2.0}), sheet_of({"a": 1.0, "b": 2.0})
    two = two.model_copy(update={"cases": (two.cases[0], two.cases[1].model_copy(update={"mask_voxels": 999}))})
    assert "not scored on the same voxels of every case" in " ".join(cautions([("one", one), ("two", two)]))


def test_the_registration_floor_is_said_where_it_was_measured(sheet_of):
    maes = {f"c{i}": 1.0 for i in range(10)}
    known = sheet_of(maes, registration="rigid registration", floor={"mae_hu": 7.25, "ssim": 0.9871})
    (said,) = cautions([("unet", known)])
    assert "is MAE\u00a07.2\u00a0HU, SSIM\u00a00.987 (SynthRAD 2023): differences as small as that mean nothing" in said
    (unknown,) = cautions([("unet", sheet_of(maes, registration="rigid registration"))])
    assert "there is no registration floor to compare with" in unknown


@pytest.mark.parametrize(
    ("message", "shortened"),
    [
        ("/home/ann/scans/case7/ct.nii.gz: damaged", "…/case7/ct.nii.gz: damaged"),
        ("../scans/case7/ct.nii.gz and /data/a/b.nii", "…/case7/ct.nii.gz and …/a/b.nii"),
        ("cohort/private/Smith_John/3/ct.nii.gz: damaged", "…/3/ct.nii.gz: damaged"),
        ("case7: mm/voxel of 3/4", "case7: mm/voxel of 3/4"),
    ],
)
def test_no_more_of_a_path_than_a_file_and_its_folder(message, shortened):
    assert without_folders(message) == shortened


def test_a_path_that_is_known_is_shortened_whatever_it_holds():
    paths = ("/data/trials/John Smith/1/ct.nii.gz", "scans of Ann, 7/sct.nii.gz")
    message = f"{paths[0]}: not on the grid of {paths[1]}"
    assert without_folders(message, paths) == "…/1/ct.nii.gz: not on the grid of …/scans of Ann, 7/sct.nii.gz"
