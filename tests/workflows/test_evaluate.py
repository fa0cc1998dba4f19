import csv
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from transmodal.core.errors import CasesFailed, ConfigError, FileError
from transmodal.core.files import read_json, write_json
from transmodal.core.record import make_record
from transmodal.core.volume import Grid, Volume
from transmodal.evaluation.results import read_scores
from transmodal.evaluation.tissue import Tissues, tissue_protocol
from transmodal.imaging.grid import resample
from transmodal.imaging.scan import read_scan, write_scan
from transmodal.workflows.evaluate import evaluate
from transmodal.workflows.segment import segment


@pytest.fixture
def references(heads: Path, tmp_path: Path) -> Path:
    return shutil.copytree(heads, tmp_path / "references")


@pytest.fixture
def predictions(references: Path, tmp_path: Path) -> Path:
    """CTs that are 10 HU too high in the first head, 20 in the second, and so on."""
    folder = tmp_path / "predictions"
    for number, path in enumerate(cases(references), start=1):
        ct = read_scan(path / "ct.nii.gz", "ct")
        write_scan(ct.with_array(ct.array + np.int16(10 * number)), folder / path.name / "sct.nii.gz")
    return folder


def cases(references: Path) -> list[Path]:
    return sorted((references / "Task1" / "brain").iterdir())


def test_scores_of_known_errors(predictions, references, tmp_path):
    sheet = evaluate(predictions, references, tmp_path / "scores")
    assert [case.scores["synthrad2023"].values["mae_hu"] for case in sheet.cases] == [10, 20, 30, 40]
    assert [case.scores["tissue"].values["bias_bone_hu"] for case in sheet.cases] == [10, 20, 30, 40]
    summary = sheet.summary["synthrad2023"]["mae_hu"]
    assert (summary.mean, summary.median, summary.sd) == (25, 25, pytest.approx(np.std([10, 20, 30, 40], ddof=1)))
    assert {case.mask_source for case in sheet.cases} == {"beside the true image"}
    assert sheet.label == "predictions" and sheet.simulated is None


def test_what_is_written_is_what_is_returned(predictions, references, tmp_path):
    out = tmp_path / "scores"
    sheet = evaluate(predictions, references, out, protocols=["synthrad2023", "synthrad2025"])
    assert read_scores(out) == sheet
    rows = list(csv.DictReader((out / "scores.csv").read_text().splitlines()))
    assert [row["case"] for row in rows] == ["head0", "head1", "head2", "head3"]
    assert float(rows[0]["synthrad2025.ms_ssim"]) == sheet.cases[0].scores["synthrad2025"].values["ms_ssim"]
    record = read_json(out / "record.json")
    assert record["command"] == "evaluate"
    assert len(record["inputs"]) == 8
    assert (out / sheet.cases[0].prediction).is_file() and not Path(sheet.cases[0].prediction).is_absolute()
    assert (out / str(sheet.cases[0].source)).name == "mr.nii.gz"


def test_a_bad_case_does_not_stop_the_others(predictions, references, tmp_path):
    (predictions / "head1" / "sct.nii.gz").write_bytes(b"not a scan")
    shutil.copytree(predictions / "head0", predictions / "stranger")
    shutil.rmtree(predictions / "head3")
    with pytest.raises(CasesFailed, match=r"(?s)2 of 4 .*stranger.*head1"):
        evaluate(predictions, references, tmp_path / "scores")
    sheet = read_scores(tmp_path / "scores")
    assert [case.case for case in sheet.cases] == ["head0", "head2"]
    assert [failure.case for failure in sheet.failures] == ["stranger", "head1"]
    assert sheet.unpredicted == ("head3",)


def test_another_grid_is_refused_unless_asked_for(predictions, references, tmp_path):
    path = predictions / "head0" / "sct.nii.gz"
    sct = read_scan(path, "ct")
    affine = sct.affine.copy()
    affine[:3, 3] += 1.0
    write_scan(resample(sct, Grid(sct.shape, affine)), path)
    with pytest.raises(CasesFailed, match=r"head0: .*different grids"):
        evaluate(predictions, references, tmp_path / "refused")
    sheet = evaluate(predictions, references, tmp_path / "resampled", resample=True)
    assert [case.resampled for case in sheet.cases] == [True, False, False, False]


def test_where_the_mask_comes_from(predictions, references, tmp_path):
    for path in cases(references):
        (tmp_path / "masks" / path.name).mkdir(parents=True)
        shutil.move(path / "mask.nii.gz", tmp_path / "masks" / path.name)
    computed = evaluate(predictions, references, tmp_path / "computed")
    assert {case.mask_source for case in computed.cases} == {"head mask computed from the true CT"}
    given = evaluate(predictions, references, tmp_path / "given", masks=tmp_path / "masks")
    assert {case.mask_source for case in given.cases} == {"given"}
    shutil.rmtree(tmp_path / "masks" / "head2")
    with pytest.raises(CasesFailed, match=r"head2: .*ct\.nii\.gz: --masks"):
        evaluate(predictions, references, tmp_path / "missing", masks=tmp_path / "masks")


def test_an_empty_mask_is_a_result_with_reasons(predictions, references, tmp_path):
    path = cases(references)[0] / "mask.nii.gz"
    mask = read_scan(path, "mask")
    write_scan(mask.with_array(np.zeros(mask.shape, bool)), path)
    sheet = evaluate(predictions, references, tmp_path / "scores")
    assert sheet.cases[0].scores["synthrad2023"].reasons.keys() == {"mae_hu", "psnr_db", "ssim"}
    assert sheet.summary["synthrad2023"]["mae_hu"].left_out == 1
    assert next(csv.DictReader((tmp_path / "scores" / "scores.csv").read_text().splitlines()))["synthrad2023.mae_hu"] == ""


def test_records_name_the_method_and_the_origin(predictions, references, tmp_path):
    write_json(predictions / "record.json", make_record("synthesize", settings={"title": "U-Net", "model": "run"}).model_dump(mode="json"))
    write_json(references / "record.json", make_record("simulate", seed=3).model_dump(mode="json"))
    sheet = evaluate(predictions, references / "Task1" / "brain", tmp_path / "scores")
    assert (sheet.label, sheet.simulated) == ("U-Net", True)
    assert sheet.made_by is not None and sheet.made_by.command == "synthesize"


def test_the_record_of_another_command_is_not_overwritten(predictions, references, tmp_path):
    for folder, command in ((predictions, "synthesize"), (references, "simulate")):
        write_json(folder / "record.json", make_record(command).model_dump(mode="json"))
        with pytest.raises(FileError, match="was not written by evaluate"):
            evaluate(predictions, references, folder)
        assert read_json(folder / "record.json")["command"] == command


def test_a_record_that_is_none_of_ours_is_passed_over(predictions, references, tmp_path):
    for folder in (predictions, references, tmp_path):
        (folder / "record.json").write_text('{"title": "notes of another program"}')
    sheet = evaluate(predictions, references, tmp_path / "scores")
    assert (sheet.label, sheet.simulated, sheet.made_by) == ("predictions", None, None)


def test_masks_of_bone_beside_cts_that_are_called_by_their_case_do_not_stand_in_for_them(predictions, references, tmp_path):
    named = tmp_path / "named"
    for path in predictions.iterdir():
        write_scan(read_scan(path / "sct.nii.gz", "ct"), named / f"{path.name}.nii.gz")
    segment(named, named, synthetic=True)
    assert evaluate(named, references, tmp_path / "scores").product == "image"


def test_synthetic_mrs_have_their_own_protocol(references, tmp_path):
    for path in cases(references):
        write_scan(read_scan(path / "mr.nii.gz", "mr"), tmp_path / "predictions" / path.name / "smr.nii.gz")
    sheet = evaluate(tmp_path / "predictions", references, tmp_path / "scores", direction="ct2mr")
    assert [protocol.name for protocol in sheet.protocols] == ["mr"]
    assert sheet.summary["mr"]["mae_grey"].mean == 0
    with pytest.raises(ConfigError, match=r"synthrad2023.*direction"):
        evaluate(tmp_path / "predictions", references, tmp_path / "scores", direction="ct2mr", protocols=["synthrad2023"])


def test_masks_of_bone_are_scored_against_the_k_means_of_the_true_cts(predictions, references, tmp_path):
    masks = tmp_path / "masks"
    segment(predictions, masks, synthetic=True)
    found, direct = (evaluate(folder, references, tmp_path / folder.name / "scores", protocols=["bone"]) for folder in (predictions, masks))
    assert direct.product == "bone" and found.product == "image"
    assert [case.scores for case in direct.cases] == [case.scores for case in found.cases]
    assert direct.summary["bone"]["dice_bone"].mean == 1  # of phantoms, the classes of k-means are far apart
    assert direct.summary["bone"]["dice_bone_ceiling"].left_out == 4
    assert [protocol.name for protocol in evaluate(masks, references, tmp_path / "default").protocols] == ["bone"]
    with pytest.raises(ConfigError, match="masks of bone; take bone"):
        evaluate(masks, references, tmp_path / "scores", protocols=["tissue"])


def test_a_mask_of_bone_beside_the_true_ct_is_the_truth(predictions, references, tmp_path):
    for path in cases(references):
        ct = read_scan(path / "ct.nii.gz", "ct")
        truth = ct.array > 500
        truth[:, :, ct.shape[2] // 2 :] = False
        write_scan(ct.with_array(truth, "mask"), path / "bone.nii.gz")
    sheet = evaluate(predictions, references, tmp_path / "scores", protocols=["bone"])
    for case in sheet.cases:
        values = case.scores["bone"].values
        assert values["dice_bone"] == values["dice_bone_ceiling"] == pytest.approx(2 / 3, abs=0.01)
        assert values["recall_bone"] == 1


def test_a_protocol_made_for_the_purpose(predictions, references, tmp_path):
    sheet = evaluate(predictions, references, tmp_path / "scores", protocols=[tissue_protocol(Tissues(bone_hu=2000))])
    assert sheet.summary["tissue"]["dice_bone"].left_out == 4
    assert sheet.cases[0].scores["tissue"].reasons["dice_bone"] == "neither image has bone inside the mask"


def test_real_grids_far_from_canonical(shared_data, tmp_path):
    """A left-handed or permuted file scores as its neighbour does."""
    scan = read_scan(shared_data / "heads" / "t2_head.nii.gz", "mr")
    ct = Volume(8 * scan.array.astype(np.int16)[::3, ::3, ::3] - 1000, scan.affine @ np.diag([3, 3, 3, 1]), "ct")
    write_scan(ct, tmp_path / "references" / "a" / "ct.nii.gz")
    write_scan(ct.with_array(ct.array + np.int16(7)), tmp_path / "predictions" / "a" / "sct.nii.gz")
    write_scan(ct.with_array(np.ones(ct.shape, bool), "mask"), tmp_path / "references" / "a" / "mask.nii.gz")
    sheet = evaluate(tmp_path / "predictions", tmp_path / "references", tmp_path / "scores")
    assert sheet.summary["synthrad2023"]["mae_hu"].mean == 7


def test_a_case_without_what_a_protocol_asks_for_has_no_values_and_the_name_of_the_file(predictions, references, tmp_path):
    for path in cases(references)[1:]:
        shutil.copy(path / "labels.nii.gz", predictions / path.name / "sct_labels.nii.gz")
    sheet = evaluate(predictions, references, tmp_path / "scores", protocols=["labels"])
    first, second = sheet.cases[:2]
    assert first.scores["labels"].reasons["dice_mean"] == "there is no sct_labels.nii.gz beside the synthetic CT"
    assert (first.scores["labels"].values["dice_mean"], first.scores["labels"].details) == (None, {})
    assert second.scores["labels"].values == {"dice_mean": 1, "hd95_mean_mm": 0, "labels_in_one": 0}
    assert second.companions.keys() == {"reference/labels", "prediction/labels"}
    assert (tmp_path / "scores" / second.companions["prediction/labels"]).is_file()
    assert sheet.summary["labels"]["dice_mean"].left_out == 1
    record = read_json(tmp_path / "scores" / "record.json")
    assert record["inputs"]["head1/prediction/labels"] == record["inputs"]["head1/reference/labels"]


def test_details_have_a_column_each_and_are_empty_where_a_case_has_none(predictions, references, tmp_path):
    path = cases(references)[0]
    labels = read_scan(path / "labels.nii.gz", "labels")
    write_scan(labels, predictions / path.name / "sct_labels.nii.gz")
    evaluate(predictions, references, tmp_path / "scores", protocols=["labels"])
    rows = list(csv.DictReader((tmp_path / "scores" / "scores.csv").read_text().splitlines()))
    columns = [f"labels.dice_{label}" for label in np.unique(labels.array) if label > 0]
    assert [rows[0][column] for column in columns] == ["1.0"] * 3
    assert [rows[1][column] for column in columns] == [""] * 3


def test_what_lies_beside_the_images_is_resampled_with_them(predictions, references, tmp_path):
    path = predictions / "head0" / "sct_uncertainty.nii.gz"
    ct = read_scan(cases(references)[0] / "ct.nii.gz", "ct")
    coarse = Grid((20, 24, 22), ct.affine @ np.diag([2.0, 2.0, 2.0, 1.0]))
    write_scan(Volume(np.full(coarse.shape, 20, np.float32), coarse.affine, "uncertainty"), path)
    with pytest.raises(CasesFailed, match=r"sct_uncertainty\.nii\.gz lie on different grids"):
        evaluate(predictions, references, tmp_path / "refused", protocols=["uncertainty"])
    sheet = evaluate(predictions, references, tmp_path / "scores", protocols=["uncertainty"], resample=True)
    assert sheet.cases[0].scores["uncertainty"].details["coverage_68"] == 1  # the error is 10 HU everywhere


def test_a_prescription_is_for_the_protocol_dose(predictions, references, tmp_path):
    with pytest.raises(ConfigError, match="add --protocol dose"):
        evaluate(predictions, references, tmp_path / "scores", prescription_gy=60.0)


def test_an_extra_that_is_missing_is_told_before_anything_is_read(predictions, references, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymedphys", None)
    with pytest.raises(ConfigError, match=r"transmodal\[dose\]"):
        evaluate(predictions, references, tmp_path / "scores", protocols=["synthrad2023", "dose"])
    assert not (tmp_path / "scores").exists()


def test_dose_is_scored_against_the_prescription_that_is_given(predictions, references, tmp_path):
    pytest.importorskip("pymedphys", reason="the extra dose is not installed")
    for path in cases(references)[:1]:
        ct = read_scan(path / "ct.nii.gz", "ct")
        dose = np.zeros(ct.shape, np.float32)
        dose[18:22, 22:26, 20:24] = 60.0
        write_scan(ct.with_array(dose, "dose"), path / "dose.nii.gz")
        write_scan(ct.with_array(1.01 * dose, "dose"), predictions / path.name / "dose.nii.gz")
    sheet = evaluate(predictions, references, tmp_path / "scores", protocols=["dose"], prescription_gy=60.0)
    assert "60 Gy" in sheet.protocols[0].mask
    assert sheet.cases[0].scores["dose"].values == {"mae_target": pytest.approx(0.01, abs=1e-6), "gamma_pass": 1}
