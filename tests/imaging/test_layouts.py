"""Layouts of files: what is found, under which name, and what is said of what cannot be used."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transmodal.core.errors import ConfigError, DataError, FileError
from transmodal.core.files import sha256
from transmodal.core.volume import Volume
from transmodal.imaging.layouts import find_subjects
from transmodal.imaging.layouts.bids_names import Name, parse_name, result_name
from transmodal.imaging.layouts.subjects import number_or_text, safe_names
from transmodal.imaging.scan import write_scan


def touch(folder: Path, *names: str) -> Path:
    """Empty files: a layout is recognized and read without opening any scan."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def listed(source: Path, layout="auto", **options) -> dict[str, dict[str, str]]:
    """The path of each scan by subject and kind, relative to the source."""
    root = source if source.is_dir() else source.parent
    found = find_subjects(source, layout, **options)
    return {s.id: {kind: scan.path.relative_to(root).as_posix() for kind, scan in s.files.items()} for s in found.subjects}


def attributes(source: Path, **options) -> dict[str, dict]:
    return {s.id: s.attributes for s in find_subjects(source, **options).subjects}


LAYOUTS = {
    "synthrad 2023": (
        ["Task1/brain/1BA001/mr.nii.gz", "Task1/brain/1BA001/ct.nii.gz", "Task1/brain/1BA001/mask.nii.gz", "Task1/overview/a.png"],
        "synthrad",
        {"1BA001": {"mr": "Task1/brain/1BA001/mr.nii.gz", "ct": "Task1/brain/1BA001/ct.nii.gz", "mask": "Task1/brain/1BA001/mask.nii.gz"}},
    ),
    "synthrad 2025": (
        ["1HNA001/mr.mha", "1HNA001/ct.mha", "1HNB002/ct.mha", "1HNB002/._mr.mha"],
        "synthrad",
        {"1HNA001": {"mr": "1HNA001/mr.mha", "ct": "1HNA001/ct.mha"}, "1HNB002": {"ct": "1HNB002/ct.mha"}},
    ),
    "bids": (
        [
            *("dataset_description.json", "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_T2w.nii.gz", "sub-01/anat/sub-01_ct.nii.gz"),
            *("sub-02/ses-a/anat/sub-02_ses-a_T2w.nii.gz", "sub-02/ses-b/anat/sub-02_ses-b_T1w.nii.gz", "sub-01/func/sub-01_bold.nii.gz"),
            "derivatives/strip/sub-01/anat/sub-01_desc-brain_mask.nii.gz",
            "derivatives/strip/sub-01/anat/sub-01_space-MNI152NLin2009cAsym_desc-brain_mask.nii.gz",
            "derivatives/ours/sub-01/anat/sub-01_space-T1w_desc-synthetic_ct.nii.gz",
            "derivatives/ours/sub-02/ses-a/anat/sub-02_ses-a_mask.nii.gz",
        ],
        "bids",
        {
            "sub-01": {
                "mr": "sub-01/anat/sub-01_T1w.nii.gz",
                "ct": "sub-01/anat/sub-01_ct.nii.gz",
                "brain": "derivatives/strip/sub-01/anat/sub-01_desc-brain_mask.nii.gz",
            },
            "sub-02_ses-a": {
                "mr": "sub-02/ses-a/anat/sub-02_ses-a_T2w.nii.gz",
                "mask": "derivatives/ours/sub-02/ses-a/anat/sub-02_ses-a_mask.nii.gz",
            },
            "sub-02_ses-b": {"mr": "sub-02/ses-b/anat/sub-02_ses-b_T1w.nii.gz"},
        },
    ),
    "bids, MR and CT in two sessions": (
        ["sub-01/ses-mr/anat/sub-01_ses-mr_T1w.nii.gz", "sub-01/ses-ct/anat/sub-01_ses-ct_ct.nii.gz"],
        "bids",
        {"sub-01": {"mr": "sub-01/ses-mr/anat/sub-01_ses-mr_T1w.nii.gz", "ct": "sub-01/ses-ct/anat/sub-01_ses-ct_ct.nii.gz"}},
    ),
    "nnU-Net without a description": (
        ["imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "labelsTr/a.nii.gz", "imagesTs/b_0000.nii.gz", "targetsTr/a.nii.gz"],
        "nnunet",
        {
            "a": {"mr": "imagesTr/a_0000.nii.gz", "ct": "targetsTr/a.nii.gz", "labels": "labelsTr/a.nii.gz"},
            "b": {"mr": "imagesTs/b_0000.nii.gz"},
        },
    ),
    "paired folders": (
        ["MR/a.nii.gz", "MR/b_mr.nii.gz", "CT/a.mha", "CT/b_ct.mha", "CT/c.mha", "masks/a.nii.gz"],
        "folders",
        {
            "a": {"mr": "MR/a.nii.gz", "ct": "CT/a.mha", "mask": "masks/a.nii.gz"},
            "b": {"mr": "MR/b_mr.nii.gz", "ct": "CT/b_ct.mha"},
            "c": {"ct": "CT/c.mha"},
        },
    ),
    "paired folders of folders": (
        ["mr/a/scan.nii.gz", "mr/b/scan.nii.gz", "ct/a/scan.nii.gz", "mr/c/mr.nii.gz", "ct/c/ct.nii.gz", "mr/c/mask.nii.gz"],
        "folders",
        {
            "a-scan": {"mr": "mr/a/scan.nii.gz", "ct": "ct/a/scan.nii.gz"},
            "b-scan": {"mr": "mr/b/scan.nii.gz"},
            "c": {"mr": "mr/c/mr.nii.gz", "ct": "ct/c/ct.nii.gz", "mask": "mr/c/mask.nii.gz"},
        },
    ),
    "unpaired folders": (
        ["mr/x.nii.gz", "mr/deep/y.nii.gz", "mr/deep/y_mask.nii.gz", "ct/z.nii.gz"],
        "unpaired",
        {"mr-x": {"mr": "mr/x.nii.gz"}, "mr-y": {"mr": "mr/deep/y.nii.gz", "mask": "mr/deep/y_mask.nii.gz"}, "ct-z": {"ct": "ct/z.nii.gz"}},
    ),
}


@pytest.mark.parametrize(("names", "layout", "expected"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout_is_recognized_and_read(names, layout, expected, tmp_path):
    touch(tmp_path, *names)
    (tmp_path / "dataset_description.json").write_text("{}") if (tmp_path / "dataset_description.json").exists() else None
    found = find_subjects(tmp_path)
    assert (found.layout, found.reason != "") == (layout, True)
    assert "because" in found.explanation and "--layout" in found.explanation
    assert not [subject.problem for subject in found.subjects if subject.problem]
    assert listed(tmp_path) == listed(tmp_path, layout) == expected
    assert find_subjects(tmp_path, layout).reason == ""


def test_nothing_that_is_known(tmp_path):
    touch(tmp_path, "trainA/1.png", "notes.txt", "some/scan.nii.gz")
    with pytest.raises(DataError, match=r"no layout is recognized: no folder below it holds a file mr\.\* or ct\.\*"):
        find_subjects(tmp_path)
    for layout in ("synthrad", "bids", "nnunet", "folders", "unpaired"):
        with pytest.raises(DataError):
            find_subjects(tmp_path, layout)
    for layout in ("dicom", "csv"):
        with pytest.raises(FileError):
            find_subjects(tmp_path, layout)
    with pytest.raises(FileError, match="not a folder"):
        find_subjects(tmp_path / "notes.txt", "bids")
    with pytest.raises(FileError, match="no such folder"):
        find_subjects(tmp_path / "absent")


def test_a_link_to_a_subject_is_followed_and_a_loop_is_not(tmp_path):
    touch(tmp_path / "elsewhere", "1BA002/mr.nii.gz")
    touch(tmp_path / "source", "1BA001/mr.nii.gz")
    (tmp_path / "source" / "1BA002").symlink_to(tmp_path / "elsewhere" / "1BA002")
    (tmp_path / "source" / "1BA001" / "loop").symlink_to(tmp_path / "source")
    assert list(listed(tmp_path / "source")) == ["1BA001", "1BA002"]


def test_names_of_synthrad_tell_the_centre_and_a_description_tells_more(tmp_path):
    touch(tmp_path, "1BA001/mr.nii.gz", "2PC014/mr.nii.gz", "1HND105/mr.mha", "sim0001/mr.nii.gz")
    (tmp_path / "2PC014" / "subject.json").write_text(json.dumps({"attributes": {"hospital": "Here", "age_years": 50}}))
    assert attributes(tmp_path) == {
        "1BA001": {"region": "brain", "hospital": "A"},
        "2PC014": {"region": "pelvis", "hospital": "Here", "age_years": 50},
        "1HND105": {"region": "head and neck", "hospital": "D"},
        "sim0001": {},
    }


def test_one_bad_subject_does_not_stop_the_listing(tmp_path):
    touch(tmp_path, "a/mr.nii.gz", "a/mr.mha", "b/mr.nii.gz", "c/mr.nii.gz", "c/subject.json", "a/ct.nii.gz")
    problems = {s.id: s.problem for s in find_subjects(tmp_path).subjects}
    assert isinstance(problems["a"], DataError)
    assert "2 files would do as mr: mr.mha, mr.nii.gz" in str(problems["a"])
    assert problems["b"] is None
    assert isinstance(problems["c"], FileError)
    only_ct = {s.id: s.problem for s in find_subjects(tmp_path, wanted=("ct",)).subjects}
    assert only_ct["a"] is None
    chosen = {s.id: s for s in find_subjects(tmp_path, mr_series="*.mha").subjects}
    assert chosen["a"].files["mr"].name == "mr.mha"
    assert "--mr-series *.mha: no file" in str(chosen["b"].problem)


def test_landmarks_beside_the_scans(tmp_path):
    touch(tmp_path, "a/mr.nii.gz", "a/ct.nii.gz", "a/mr_landmarks.csv", "a/ct_landmarks.csv")
    (subject,) = find_subjects(tmp_path).subjects
    assert subject.landmarks == {"mr": tmp_path / "a/mr_landmarks.csv", "ct": tmp_path / "a/ct_landmarks.csv"}


def test_a_table_beside_the_subjects_adds_attributes(tmp_path):
    touch(tmp_path, "1BA001/mr.nii.gz", "odd name/mr.nii.gz")
    (tmp_path / "subjects.csv").write_text("subject,hospital,age_years\n1BA001,North,34\nodd name,,7.5\nabsent,South,1\n")
    assert attributes(tmp_path) == {"1BA001": {"region": "brain", "hospital": "North", "age_years": 34}, "odd-name": {"age_years": 7.5}}
    (tmp_path / "subjects.csv").write_text("subject,hospital\n1BA0001,North\n")
    with pytest.raises(DataError, match=r"none of its subjects \(1BA0001 \.\.\.\) is one of those there"):
        find_subjects(tmp_path)


def test_bids_attributes_come_from_the_participants_and_the_sidecar(tmp_path):
    touch(tmp_path, "sub-1/anat/sub-1_T1w.nii.gz", "sub-2/ses-x/anat/sub-2_ses-x_ct.nii.gz", "sub-2/ses-y/anat/sub-2_ses-y_ct.nii.gz")
    (tmp_path / "participants.tsv").write_text("participant_id\tage\tsex\nsub-1\t41\tF\nsub-2\tn/a\tM\n")
    sidecar = {"Manufacturer": "Acme", "MagneticFieldStrength": 3, "ScanningSequence": ["GR", "IR"], "EchoTime": 0.003}
    (tmp_path / "sub-1/anat/sub-1_T1w.json").write_text(json.dumps(sidecar))
    assert attributes(tmp_path) == {
        "sub-1": {"vendor": "Acme", "field_strength_t": 3, "technique": "GR\\IR", "age_years": 41, "sex": "F"},
        "sub-2_ses-x": {"person": "sub-2", "sex": "M"},
        "sub-2_ses-y": {"person": "sub-2", "sex": "M"},
    }


def test_two_runs_in_bids_must_be_chosen_from(tmp_path):
    touch(tmp_path, "sub-1/anat/sub-1_run-1_T1w.nii.gz", "sub-1/anat/sub-1_run-2_T1w.nii.gz", "sub-1/anat/sub-1_T2w.nii.gz")
    (subject,) = find_subjects(tmp_path).subjects
    assert "2 files would do as mr: sub-1_run-1_T1w.nii.gz, sub-1_run-2_T1w.nii.gz" in str(subject.problem)
    assert listed(tmp_path, mr_series="*run-2*") == {"sub-1": {"mr": "sub-1/anat/sub-1_run-2_T1w.nii.gz"}}
    assert listed(tmp_path, mr_series="*_T2w*") == {"sub-1": {"mr": "sub-1/anat/sub-1_T2w.nii.gz"}}


def test_names_of_bids():
    name = parse_name(Path("sub-01_ses-2_acq-mprage_run-1_T1w.nii.gz"))
    assert name == Name({"sub": "01", "ses": "2", "acq": "mprage", "run": "1"}, "T1w")
    assert name.folder == Path("sub-01/ses-2/anat")
    assert str(result_name(name, "mr2ct")) == "sub-01_ses-2_acq-mprage_run-1_space-T1w_desc-synthetic_ct"
    assert str(result_name(Name({"sub": "01"}, "ct"), "ct2mr")) == "sub-01_space-ct_desc-synthetic_T1w"
    assert str(result_name(name, "mr2ct", "bone")) == "sub-01_ses-2_acq-mprage_run-1_space-T1w_desc-bone_mask"
    assert [parse_name(Path(text)) for text in ("mr.nii.gz", "01_T1w.nii.gz", "sub-_T1w.nii", "sub-1_x_T1w.nii", "ses-1_T1w.nii")] == [
        None
    ] * 5


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ({"channel_names": {"0": "MR", "1": "CT"}}, {"mr": "0000", "ct": "0001"}),
        ({"channel_names": {"0": "CT", "1": "T1"}}, {"mr": "0001", "ct": "0000"}),
        ({"modality": {"0": "CT"}}, {"ct": "0000"}),
        ({"channel_names": {"0": "T1", "1": "T2"}}, {"mr": "0000"}),
        ({"channel_names": {"0": "MR"}, "labels": {"background": 0, "CT": 1}}, {"mr": "0000", "ct": "a.mha"}),
    ],
    ids=str,
)
def test_channels_of_nnunet(description, expected, tmp_path):
    touch(tmp_path, "imagesTr/a_0000.mha", "imagesTr/a_0001.mha", "labelsTr/a.mha")
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    files = listed(tmp_path)["a"]
    assert {kind: name for kind in ("mr", "ct") if (name := files.get(kind))} == {
        kind: f"labelsTr/{name}" if name == "a.mha" else f"imagesTr/a_{name}.mha" for kind, name in expected.items()
    }


def test_two_folders_anywhere_are_unpaired_whatever_is_in_them(tmp_path):
    touch(tmp_path / "a", "1BA001/mr.nii.gz", "1BA001/ct.nii.gz", "1BA001/mask.nii.gz")
    touch(tmp_path / "b", "one/scan.nii.gz", "two/scan.nii.gz", "other.nii.gz")
    found = find_subjects(tmp_path / "a", ct_source=tmp_path / "b")
    assert found.layout == "unpaired"
    assert {s.id: sorted(s.files) for s in found.subjects} == {
        "mr-1BA001": ["mask", "mr"],
        "ct-one-scan": ["ct"],
        "ct-two-scan": ["ct"],
        "ct-other": ["ct"],
    }
    with pytest.raises(ConfigError, match="--ct"):
        find_subjects(tmp_path / "a", "synthrad", ct_source=tmp_path / "b")
    with pytest.raises(FileError, match="no such folder"):
        find_subjects(tmp_path / "a", ct_source=tmp_path / "absent")


def table(folder: Path, text: str, name: str = "scans.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_table_of_scans(tmp_path):
    touch(tmp_path / "data", "a b.nii.gz", "x.mha", "y.mha", "points.csv", "m.nii.gz")
    rows = ["p1,data/a b.nii.gz,data/x.mha,data/m.nii.gz,data/points.csv,North,34,007", "", "p2,,data/y.mha,,,n/a,,"]
    text = "\ufeff" + "\n".join(["Subject,MR,CT,mask,mr_landmarks,hospital,age_years,code", *rows, ""])
    one, two = find_subjects(table(tmp_path, text)).subjects
    assert (one.id, two.id) == ("p1", "p2")
    assert one.landmarks == {"mr": tmp_path / "data/points.csv"}
    assert one.attributes == {"hospital": "North", "age_years": 34, "code": "007"}
    assert listed(tmp_path / "scans.csv")["p1"] == {"mr": "data/a b.nii.gz", "ct": "data/x.mha", "mask": "data/m.nii.gz"}
    assert (set(two.files), two.attributes) == ({"ct"}, {})
    semicolons = table(tmp_path, "mr;ct\ndata/x.mha;data/y.mha\n", "b.csv")
    tabs = table(tmp_path, "mr\tct\ndata/x.mha\tdata/y.mha\n", "b.tsv")
    assert listed(semicolons) == listed(tabs) == {"x": {"mr": "data/x.mha", "ct": "data/y.mha"}}


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", FileError, "empty table"),
        ("mr,ct\n", DataError, "no rows"),
        ("mri,ctt\na,b\n", ConfigError, "no scans in a column mr or ct; its columns with contents are ctt, mri"),
        ("mr,mr\nx.mha,x.mha\n", FileError, "line 1: every column needs a name of its own"),
        ("mr,ct\nx.mha,x.mha\nx.mha\n", FileError, "line 3: 1 cells, and the header names 2 columns"),
        ("subject,mr,ct\na,x.mha,\nb,,\n", DataError, "line 3: neither an MR nor a CT"),
        ("subject,mr\na,x.mha\na,x.mha\n", DataError, "line 3: a row above is called a already"),
        ('mr\n"x.mha\n', FileError, "cannot be read as a table"),
    ],
    ids=repr,
)
def test_mistakes_in_a_table_are_named_with_their_line(text, error, message, tmp_path):
    touch(tmp_path, "x.mha")
    with pytest.raises(error, match=message):
        find_subjects(table(tmp_path, text))


def test_a_row_whose_scan_is_absent_spoils_itself_only(tmp_path):
    touch(tmp_path, "x.mha")
    one, two = find_subjects(table(tmp_path, "subject,mr\na,x.mha\nb,y.mha\n")).subjects
    assert one.problem is None
    assert "line 3, mr: " in str(two.problem)
    assert "y.mha: there is no such file" in str(two.problem)


def test_a_source_reads_digests_and_travels(tmp_path):
    volume = Volume(np.arange(60, dtype=np.float32).reshape(3, 4, 5), np.diag([2.0, 2, 2, 1]), "mr")
    write_scan(volume, tmp_path / "a" / "mr.nii.gz")
    (subject,) = pickle.loads(pickle.dumps(find_subjects(tmp_path).subjects))
    scan = subject.files["mr"]
    np.testing.assert_array_equal(scan.read("mr").array, volume.array)
    assert scan.digest() == sha256(tmp_path / "a" / "mr.nii.gz")
    assert scan.name == "mr.nii.gz"


@given(
    st.lists(
        st.one_of(st.text(max_size=20), st.sampled_from(["a b", "a-b", "A-B", "../../x", "<script>", "", ".", "é" * 300])), unique=True
    )
)
def test_any_names_become_distinct_names_of_folders(names):
    safe = safe_names(names)
    assert len({name.casefold() for name in safe}) == len(names)
    for old, new in zip(names, safe, strict=True):
        assert new == Path(new).name
        assert new[0] not in ".-_"
        assert len(new) <= 120
        assert set(new) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
        assert old != new or safe_names([old]) == [old]


def test_a_name_that_is_safe_stays():
    assert safe_names(["a-b", "a b", "1BA001", "../../x"]) == ["a-b", safe_names(["a b", "a-b"])[0], "1BA001", "x"]


@given(st.decimals(-1000000, 1000000, places=6).map(float))
def test_numbers_are_read_and_other_texts_stay(number):
    assert number_or_text(str(number)) == pytest.approx(number)
    for text in ("007", "nan", "inf", "1_000", "0x10", "1٣", "12 years", "1e999", "", "٣"):
        assert number_or_text(text) == text
