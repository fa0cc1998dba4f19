import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from transmodal.core.errors import DataError
from transmodal.core.record import make_record
from transmodal.imaging.grid import isotropic_grid, resample
from transmodal.imaging.scan import read_scan, write_scan
from transmodal.workflows.evaluate import evaluate
from transmodal.workflows.report import report
from transmodal.workflows.segment import segment

HOSTILE = "<script>x"


@pytest.fixture(scope="module")
def scores(heads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scores of two methods beside the images that they are of; one case has a hostile name."""
    folder = tmp_path_factory.mktemp("scored")
    shutil.copytree(heads / "Task1" / "brain", folder / "references")
    (folder / "references" / "head3").rename(folder / "references" / HOSTILE)
    for name, error in (("good", 10), ("bad", 90)):
        for number, path in enumerate(sorted((folder / "references").iterdir())):
            ct = read_scan(path / "ct.nii.gz", "ct")
            write_scan(ct.with_array(ct.array + np.int16(error + number)), folder / name / path.name / "sct.nii.gz")
        evaluate(folder / name, folder / "references", folder / "scores" / name)
    return folder / "scores"


def make_run(folder: Path) -> Path:
    folder.mkdir()
    (folder / "metrics.csv").write_text("step,split,loss\n1,train,0.5\n2,train,0.4\n2,validation,0.45\n")
    return folder


def test_a_report_of_two_methods_and_a_run(scores, tmp_path):
    out = tmp_path / "report.html"
    report([scores / "good", scores / "bad", make_run(tmp_path / "my-run")], out)
    text = out.read_text(encoding="utf-8")
    assert out.stat().st_size < 5_000_000
    assert text.count('<img src="data:image/png') == 7  # three cases by each method, and one by both
    assert "<title>Synthetic CT: good, bad</title>" in text
    assert "Training: my-run" in text
    assert HOSTILE not in text and "&lt;script&gt;x" in text


def test_two_methods_of_one_name_are_told_apart(scores, tmp_path):
    again = shutil.copytree(scores / "good", tmp_path / "again")
    report([scores / "good", again], tmp_path / "report.html", title="Twice")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<title>Twice</title>" in text
    assert "good (good)" in text and "good (again)" in text


def test_runs_have_the_titles_of_their_recipes_and_are_told_apart(tmp_path):
    runs = []
    for name, title in (("a", "CycleGAN"), ("b", "MR-GAN"), ("c", "MR-GAN")):
        (tmp_path / name).mkdir()
        runs.append(make_run(tmp_path / name / "mr2ct"))
        record = make_record("train", settings={"title": title}).model_dump(mode="json")
        (runs[-1] / "record.json").write_text(json.dumps(record))
    report(runs, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for heading in ("Training: CycleGAN<", "Training: MR-GAN (mr2ct) [2]<", "Training: MR-GAN (mr2ct) [3]<"):
        assert heading in page
    for name in ("CycleGAN", "MR-GAN (mr2ct) [2]", "MR-GAN (mr2ct) [3]"):
        assert f"{name}/metrics.csv" in page  # among the inputs of the report, each with its hash


def test_images_that_are_gone_are_said_to_be(scores, tmp_path):
    moved = shutil.copytree(scores / "good", tmp_path / "moved")
    report([moved], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "data:image/png" not in text
    assert text.count("is not shown:") == 4


def test_a_folder_of_neither_kind_is_named(tmp_path):
    with pytest.raises(DataError, match=r"scores.json.*metrics.csv"):
        report([tmp_path], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_masks_of_bone_have_tables_and_no_slices(heads, tmp_path):
    segment(heads, tmp_path / "masks")
    evaluate(tmp_path / "masks", heads, tmp_path / "scores")
    report([tmp_path / "scores"], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<title>Mask of bone: masks" in page
    assert "head0 is not shown: slices are drawn of synthetic images only" in page


def test_a_case_can_be_chosen_to_look_into(scores, tmp_path):
    report([scores / "good", scores / "bad"], tmp_path / "chosen.html", view=["head1"])
    text = (tmp_path / "chosen.html").read_text(encoding="utf-8")
    assert "Look into head1" in text and text.count('class="viewer"') == 1
    report([scores / "good"], tmp_path / "none.html", view=[])
    assert 'class="viewer"' not in (tmp_path / "none.html").read_text(encoding="utf-8")
    with pytest.raises(DataError, match=r"--view head9: no method has a case of this name; there are .*head0, head1"):
        report([scores / "good"], tmp_path / "absent.html", view=["head9"])
    assert not (tmp_path / "absent.html").exists()


@pytest.mark.slow
def test_a_method_that_was_scored_on_another_grid_is_shown_on_that_of_the_first(scores, tmp_path):
    references = scores.parent / "references"
    for path in references.iterdir():
        grid = isotropic_grid(read_scan(path / "ct.nii.gz", "ct").grid, 7.0)
        for name, modality in (("ct", "ct"), ("mask", "mask")):
            write_scan(resample(read_scan(path / f"{name}.nii.gz", modality), grid), tmp_path / "coarse" / path.name / f"{name}.nii.gz")
    evaluate(scores.parent / "bad", tmp_path / "coarse", tmp_path / "scores", resample=True)
    report([scores / "good", tmp_path / "scores"], tmp_path / "report.html", view=["head0"])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Look into head0" in page
    assert "not scored on the same voxels of every case" in page


def test_images_without_true_ones_can_be_looked_at(scores, tmp_path):
    predictions = shutil.copytree(scores.parent / "good", tmp_path / "model")
    report([predictions], tmp_path / "report.html", view=["head2"], scans=scores.parent / "references")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<title>Synthetic images: model</title>" in text
    assert "nothing is known of their errors" in text
    (told,) = re.findall(r'<script type="application/json">(.*?)</script>', text)
    assert [panel["title"] for panel in json.loads(told)["panels"]] == ["MR", "model"]
    assert "bone0" in text and 'data-file="reference"' not in text
    report([predictions], tmp_path / "alone.html")
    assert json.loads(re.findall(r'<script type="application/json">(.*?)</script>', (tmp_path / "alone.html").read_text())[0])["panels"]


def test_a_damaged_image_without_a_true_one_is_named(scores, tmp_path):
    predictions = shutil.copytree(scores.parent / "good", tmp_path / "model")
    (predictions / "head0" / "sct.nii.gz").write_bytes(b"nothing")
    with pytest.raises(DataError, match="there is nothing to show\nhead0 by model is not shown: "):
        report([predictions], tmp_path / "report.html", view=["head0"])
    assert not (tmp_path / "report.html").exists()
    report([predictions], tmp_path / "report.html", view=["head0", "head1"])
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "head0 by model is not shown: " in text and str(tmp_path) not in text


def test_slices_stand_in_for_the_viewer(scores, tmp_path):
    predictions = shutil.copytree(scores.parent / "good", tmp_path / "model")
    report([predictions], tmp_path / "report.html", view=["head1"], viewer=False)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'class="viewer"' not in text and text.count('<img src="data:image/png') == 1


def test_a_method_may_be_called_anything(scores, tmp_path):
    strange = shutil.copytree(scores / "good", tmp_path / "run_$\\x$")
    sheet = json.loads((strange / "scores.json").read_text())
    (strange / "scores.json").write_text(json.dumps({**sheet, "label": "run_$\\x$ ^{"}))
    predictions = shutil.copytree(scores.parent / "good", tmp_path / "a$b$\\q")
    report([strange, predictions], tmp_path / "report.html", view=["head1"])
    report([strange], tmp_path / "one.html")
    assert "run_$\\x$" in (tmp_path / "one.html").read_text(encoding="utf-8")
