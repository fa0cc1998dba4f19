from pathlib import Path

import pytest

from transmodal.core.errors import DataError
from transmodal.evaluation.cases import Pair, companion, companion_of_prediction, find_images, holds, match


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ("a/sct.nii.gz", "b/sct.mha"),
        ("Task1/brain/a/sct.nii.gz", "Task1/brain/b/sct.nii.gz", "Task1/brain/b/mr.nii.gz"),
        ("a.nii.gz", "b.nrrd", "notes.txt", "a_mask.nii.gz"),
        ("a_sct.nii.gz", "b_sct.nii.gz", "a_mr.nii.gz", "b_ct.nii.gz"),
        ("deep/a_sct.nii.gz", "deeper/still/b_sct.nii.gz"),
        ("a/sct.nii.gz", "a/sct_uncertainty.nii.gz", "b/sct.nii.gz", "b/bone.nii.gz"),
        ("a.nii.gz", "a_uncertainty.nii.gz", "b.nii.gz", "b_bone.nii.gz"),
        ("a_sct.nii.gz", "a_sct_uncertainty.nii.gz", "b_sct.nii.gz"),
        ("a/sct.nii.gz", "a/sct_cycle.nii.gz", "b/sct.nii.gz"),
        ("a.nii.gz", "a_cycle.nii.gz", "b.nii.gz"),
        ("a_sct.nii.gz", "a_sct_cycle.nii.gz", "b_sct.nii.gz"),
    ],
)
def test_every_layout_gives_the_same_cases(tmp_path, names):
    assert list(find_images(touch(tmp_path, *names), "sct")) == ["a", "b"]


@pytest.mark.parametrize("name", ["a/bone.nii.gz", "b/a_bone.mha", "sub-1/anat/sub-1_space-T1w_desc-bone_mask.nii.gz"])
def test_masks_of_bone_are_known_by_their_names(tmp_path, name):
    assert not holds(touch(tmp_path, "bone/a.nii.gz", "sub-2/anat/sub-2_T1w.nii.gz"), "bone")
    assert holds(touch(tmp_path, name), "bone")
    assert not holds(tmp_path, "sct")


def test_cases_pair_by_name_across_layouts(tmp_path):
    predictions = touch(tmp_path / "p", "a.nii.gz", "b.nii.gz", "only-here.nii.gz")
    references = touch(tmp_path / "r", "Task1/brain/a/ct.nii.gz", "Task1/brain/b/ct.nii.gz", "Task1/brain/only-there/ct.nii.gz")
    matching = match(predictions, references, "sct", "ct")
    assert [(pair.case, pair.prediction.name, pair.reference.parent.name) for pair in matching.pairs] == [
        ("a", "a.nii.gz", "a"),
        ("b", "b.nii.gz", "b"),
    ]
    assert matching.unreferenced == ("only-here",)
    assert matching.unpredicted == ("only-there",)


def test_a_prediction_carries_the_safe_name_of_its_reference(tmp_path):
    predictions, references = touch(tmp_path / "p", "an-odd-name/sct.nii.gz"), touch(tmp_path / "r", "an odd name/ct.nii.gz", "b/ct.nii.gz")
    assert [pair.case for pair in match(predictions, references, "sct", "ct").pairs] == ["an odd name"]


def test_one_folder_may_hold_both_sides(tmp_path):
    folder = touch(tmp_path, "a/sct.nii.gz", "a/ct.nii.gz")
    assert [pair.case for pair in match(folder, folder, "sct", "ct").pairs] == ["a"]


def test_two_folders_of_one_scan_are_a_pair(tmp_path):
    predictions, references = touch(tmp_path / "mine", "sct.nii.gz"), touch(tmp_path / "theirs", "ct.nii.gz")
    assert [pair.case for pair in match(predictions, references, "sct", "ct").pairs] == ["theirs"]


def test_no_match_names_both_sides_and_the_rule(tmp_path):
    predictions, references = touch(tmp_path / "p", "a.nii.gz"), touch(tmp_path / "r", *(f"x{i}/ct.nii.gz" for i in range(7)))
    with pytest.raises(DataError, match=r"(?s)CASE/sct\.nii\.gz.*predictions: a.*references: x0.*7 in all"):
        match(predictions, references, "sct", "ct")


def test_two_predictions_of_one_reference_are_refused_with_both_names(tmp_path):
    predictions = touch(tmp_path / "sct", "sub-01_ses-1/sct.nii.gz", "sub-01_ses-2/sct.nii.gz")
    references = touch(tmp_path / "ct", "sub-01/ct.nii.gz")
    with pytest.raises(DataError, match=r"sub-01_ses-1.*and.*sub-01_ses-2.*are both of sub-01"):
        match(predictions, references, "sct", "ct")


def test_refusals(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        find_images(tmp_path / "absent", "ct")
    with pytest.raises(DataError, match="no scan of any case"):
        find_images(touch(tmp_path / "empty", "readme.txt"), "ct")
    with pytest.raises(DataError, match="two scans are called a"):
        find_images(touch(tmp_path / "double", "brain/a/ct.nii.gz", "pelvis/a/ct.nii.gz"), "ct")


def test_companions_lie_beside_the_image(tmp_path):
    touch(tmp_path, "a/ct.nii.gz", "a/mask.mha", "b.nii.gz", "b_mask.nii.gz", "c_ct.nii.gz", "c_mr.nii.gz")
    assert companion(tmp_path / "a/ct.nii.gz", "a", "mask") == tmp_path / "a/mask.mha"
    assert companion(tmp_path / "a/ct.nii.gz", "a", "mr") is None
    assert companion(tmp_path / "b.nii.gz", "b", "mask") == tmp_path / "b_mask.nii.gz"
    assert companion(tmp_path / "c_ct.nii.gz", "c", "mr") == tmp_path / "c_mr.nii.gz"


@pytest.mark.parametrize(
    ("image", "names"),
    [
        ("p/a/sct.nii.gz", ("p/a/sct_labels.nii.gz", "p/a/labels.nii.gz")),
        ("p/a_sct.nii.gz", ("p/a_sct_labels.mha", "p/a_labels.nii.gz")),
        ("p/a.nii.gz", ("p/a_labels.nii.gz",)),
        ("p/sub-1_space-T1w_desc-synthetic_ct.nii.gz", ("p/sub-1_space-T1w_desc-labels_ct.nii.gz",)),
    ],
)
def test_what_belongs_to_a_synthetic_image_is_called_after_it_or_lies_alone_with_it(tmp_path, image, names):
    touch(tmp_path, image, *names, "r/a/ct.nii.gz")
    pair = Pair("a", tmp_path / image, tmp_path / "r/a/ct.nii.gz")
    for name in names:  # the first first
        assert companion_of_prediction(pair, "labels") == tmp_path / name
        (tmp_path / name).unlink()
    assert companion_of_prediction(pair, "labels") is None


def test_what_is_named_by_the_case_belongs_to_the_true_image_beside_a_synthetic_one(tmp_path):
    touch(tmp_path, "a/ct.nii.gz", "a/sct.nii.gz", "a/labels.nii.gz")
    pair = Pair("a", tmp_path / "a/sct.nii.gz", tmp_path / "a/ct.nii.gz")
    assert companion_of_prediction(pair, "labels") is None
    assert companion(pair.reference, "a", "labels") == tmp_path / "a/labels.nii.gz"


def test_bids_predictions_pair_by_subject_and_session(tmp_path):
    references = touch(
        tmp_path / "raw",
        *(f"sub-1/ses-{k}/anat/sub-1_ses-{k}_{suffix}.nii.gz" for k in "ab" for suffix in ("ct", "T1w", "mask")),
        *("sub-2/ses-mr/anat/sub-2_ses-mr_T1w.nii.gz", "sub-2/ses-ct/anat/sub-2_ses-ct_ct.nii.gz"),
    )
    predictions = touch(
        tmp_path / "made",
        "sub-1/ses-b/anat/sub-1_ses-b_space-T1w_desc-synthetic_ct.nii.gz",
        "sub-2/ses-mr/anat/sub-2_ses-mr_acq-x_space-T1w_desc-synthetic_ct.nii.gz",
    )
    matching = match(predictions, references, "sct", "ct")
    assert [(pair.case, pair.reference.name) for pair in matching.pairs] == [
        ("sub-1_ses-b", "sub-1_ses-b_ct.nii.gz"),
        ("sub-2", "sub-2_ses-ct_ct.nii.gz"),
    ]
    assert matching.unpredicted == ("sub-1_ses-a",)
    reference = matching.pairs[0].reference
    assert companion(reference, "sub-1_ses-b", "mask") == reference.with_name("sub-1_ses-b_mask.nii.gz")
    assert companion(reference, "sub-1_ses-b", "mr") == reference.with_name("sub-1_ses-b_T1w.nii.gz")
    assert companion(reference, "sub-1_ses-b", "labels") is None
    assert sorted(find_images(references, "mask")) == ["sub-1_ses-a", "sub-1_ses-b"]
    with pytest.raises(DataError, match="no scan of any case"):
        find_images(predictions, "smr")
