import csv
import json
import shutil

import pytest

from phantoms import phantom, write_subject
from transmodal.core.errors import CasesFailed, ConfigError, DataError, Interrupted
from transmodal.core.files import write_text
from transmodal.core.jobs import Workers
from transmodal.data.manifest import RegistrationNote, read_manifest, write_manifest
from transmodal.evaluation.results import read_scores
from transmodal.imaging.preparation import Preparation
from transmodal.workflows import study as workflow
from transmodal.workflows.prepare import prepare
from transmodal.workflows.study import list_cells, run_study

BASELINES = """
title = "Two baselines"
description = "Which is better?"
folds = 2
repeats = 2
protocols = ["synthrad2023"]

[[arms]]
name = "constant"
recipe = "baseline-constant"

[[arms]]
name = "threshold"
recipe = "baseline-threshold"

[[tables]]
kind = "scores"
title = "All"
source = "table 1"
statistic = "mean_sd"
heads = ["Method"]
columns = [{ label = "MAE", protocol = "synthrad2023", metric = "mae_hu", decimals = 1 }]
compare = [["threshold", "constant"]]

[[tables.rows]]
arm = "constant"
labels = ["One value"]
published = [[200.0, 10.0]]

[[tables.rows]]
arm = "threshold"
labels = ["Three values"]
published = [[100.0, 10.0]]
"""

ONCE = BASELINES.replace("repeats = 2", "")
BRIEF = BASELINES.replace("folds = 2\nrepeats = 2", "test_fraction = 0.3")
OTHERWISE = BASELINES.replace(
    'recipe = "baseline-constant"',
    'recipe = "baseline-constant"\nset = ["train.steps=1", "train.batch_size=1", "train.validation_fraction=0"]',
)
BY_HOSPITAL = BASELINES.replace("repeats = 2", 'subsets = ["hospital", "vendor"]').replace(
    'name = "threshold"', 'name = "threshold"\ntrained_on = "other"'
)


def write(folder, text):
    write_text(folder / "baselines.toml", text)
    return str(folder / "baselines.toml")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Four phantoms as small as heads can be found in."""
    folder = tmp_path_factory.mktemp("small")
    for k in range(4):
        write_subject(folder / "heads" / f"head{k}", phantom(k, shape=(24, 28, 26), spacing_mm=7.5))
    prepare(folder / "heads", folder / "dataset", Preparation(spacing_mm="native"), layout="synthrad")
    return folder / "dataset"


@pytest.fixture(scope="module")
def done(dataset, tmp_path_factory):
    """The study of baselines, done."""
    folder = tmp_path_factory.mktemp("study")
    return folder, run_study(write(folder, BASELINES), dataset, folder / "out")


def test_every_subject_is_tested_once_in_each_repeat_by_every_arm(done):
    _, results = done
    assert len(results.cells) == 2 * 2 * 2
    for arm in ("constant", "threshold"):
        for repeat in (1, 2):
            cells = [cell.scores for cell in results.cells if cell.scores.arm == arm and cell.scores.repeat == repeat]
            assert sorted(case for cell in cells for case in cell.cases) == ["head0", "head1", "head2", "head3"]
            assert [cell.fold for cell in cells] == [1, 2]
    by_fold = [{frozenset(cell.scores.cases) for cell in results.cells if cell.scores.fold == fold} for fold in (1, 2)]
    assert [len(tested) for tested in by_fold] == [1, 1]  # the same division in all arms and repeats


def test_the_tables_hold_the_scores_of_the_cells_beside_the_published_ones(done):
    folder, results = done
    scored = {}
    for path in sorted((folder / "out" / "cells" / "threshold" / "repeat-1").rglob("scores.json")):
        scored |= {case.case: case.scores["synthrad2023"].values["mae_hu"] for case in read_scores(path.parent).cases}
    row = results.tables[0].rows[1]
    assert row.cases == {name: (value,) for name, value in sorted(scored.items())}
    mean = sum(scored.values()) / 4
    assert row.entries[0].values[0] == pytest.approx(mean)
    lines = (folder / "out" / "tables.md").read_text(encoding="utf-8").splitlines()
    assert "| Method | MAE | paper |" in lines
    assert next(line for line in lines if line.startswith("| Three values |")).endswith("| 100.0 ± 10.0 |")
    assert json.loads((folder / "out" / "study.json").read_text())["tables"][0]["rows"][1]["entries"][0]["count"] == 4
    with (folder / "out" / "tables.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["row"] == "Three values" and row["statistic"] == "mean"]
    assert [(float(row["ours"]), float(row["published"]), row["count"]) for row in rows] == [(pytest.approx(mean), 100.0, "4")]


def test_what_is_done_is_not_done_again(done, dataset, monkeypatch):
    folder, results = done

    def refuse(*_, **__):
        raise AssertionError("done twice")

    for name in ("train", "synthesize", "evaluate", "write_scan"):
        monkeypatch.setattr(workflow, name, refuse)
    again = run_study(str(folder / "baselines.toml"), dataset, folder / "out")
    assert again.cells == results.cells
    assert again.tables == results.tables


def test_a_study_that_was_killed_does_the_rest(dataset, tmp_path, monkeypatch):
    source, calls, real = write(tmp_path, ONCE), [], workflow.evaluate

    def dying(*given, **choices):
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given, **choices)

    monkeypatch.setattr(workflow, "evaluate", dying)
    with pytest.raises(KeyboardInterrupt):
        run_study(source, dataset, tmp_path / "out")
    assert list_cells(source, dataset, tmp_path / "out")[-1] == "baselines: 4 cells, 3 to do"
    run_study(source, dataset, tmp_path / "out")
    assert len(calls) == 4 + 1
    assert list_cells(source, dataset, tmp_path / "out")[-1] == "baselines: 4 cells, 0 to do"


def test_a_signal_ends_the_study_and_not_just_a_cell(dataset, tmp_path, monkeypatch):
    begun = []

    def interrupted(recipe, dataset, run, **choices):
        begun.append(run)
        raise Interrupted("stopped after step 3")

    monkeypatch.setattr(workflow, "train", interrupted)
    with pytest.raises(Interrupted, match="stopped in constant/repeat-1/fold-1; the same command does the rest"):
        run_study(write(tmp_path, ONCE), dataset, tmp_path / "out")
    assert len(begun) == 1


def test_a_cell_that_fails_does_not_stop_the_others_and_is_named(dataset, tmp_path, monkeypatch):
    real = workflow.train

    def failing(recipe, dataset, run, **choices):
        if "constant/repeat-1/fold-2" in run.as_posix():
            raise DataError("out of luck")
        return real(recipe, dataset, run, **choices)

    monkeypatch.setattr(workflow, "train", failing)
    source = write(tmp_path, ONCE)
    with pytest.raises(CasesFailed, match=r"1 of 4 cells failed.*\nconstant/repeat-1/fold-2: out of luck"):
        run_study(source, dataset, tmp_path / "out")
    text = (tmp_path / "out" / "tables.md").read_text(encoding="utf-8")
    assert "Failed, and left out: constant/repeat-1/fold-2: out of luck" in text
    assert "(n = 2 to 4)" in text
    monkeypatch.undo()
    assert run_study(source, dataset, tmp_path / "out").failed == ()


def test_other_settings_do_not_pass_for_those_that_are_done(done, dataset, tmp_path):
    folder, _ = done
    assert list_cells(write(tmp_path, OTHERWISE), dataset, folder / "out")[-1] == "baselines: 8 cells, 4 to do"


def test_a_cell_of_other_settings_is_not_overwritten(dataset, tmp_path):
    source = write(tmp_path, ONCE)
    done = run_study(source, dataset, tmp_path / "out")
    write(tmp_path, OTHERWISE.replace("repeats = 2", ""))
    with pytest.raises(CasesFailed, match=r"2 of 4 cells failed.*\n.*cannot be resumed, because recipe is not what the run began with"):
        run_study(source, dataset, tmp_path / "out")
    write(tmp_path, ONCE)
    assert list_cells(source, dataset, tmp_path / "out")[-1] == "baselines: 4 cells, 0 to do"
    assert run_study(source, dataset, tmp_path / "out").cells == done.cells


def test_with_other_protocols_a_run_is_kept_and_scored_anew(dataset, tmp_path):
    source = write(tmp_path, BRIEF)
    run_study(source, dataset, tmp_path / "out")
    runs = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("run.json")}
    write(tmp_path, BRIEF.replace('protocols = ["synthrad2023"]', 'protocols = ["synthrad2023", "tissue"]'))
    assert list_cells(source, dataset, tmp_path / "out")[-1] == "baselines: 2 cells, 2 to do"
    results = run_study(source, dataset, tmp_path / "out")
    assert all(any(key.startswith("tissue.") for key in scores) for cell in results.cells for scores in cell.scores.cases.values())
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("run.json")} == runs


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"scaled": True}, "scaled was False, and is True"),
        ({"assignments": ["predict.overlap=0.25"]}, r"assignments was \[\], and is \['predict.overlap=0.25'\]"),
    ],
)
def test_a_folder_of_other_results_is_refused_and_stays_as_it_is(done, dataset, choices, message):
    folder, _ = done
    before = {path: path.read_bytes() for path in (folder / "out").glob("*.*")}
    for call in (run_study, list_cells):
        with pytest.raises(ConfigError, match=f"out: holds other results .{message}.; give another folder"):
            call(str(folder / "baselines.toml"), dataset, folder / "out", **choices)
    assert {path: path.read_bytes() for path in (folder / "out").glob("*.*")} == before


def test_the_folder_of_another_study_or_command_or_dataset_is_refused(done, dataset, tmp_path):
    folder, _ = done
    write_text(tmp_path / "other.toml", BASELINES)
    with pytest.raises(ConfigError, match="study was baselines, and is other"):
        run_study(str(tmp_path / "other.toml"), dataset, folder / "out")
    with pytest.raises(ConfigError, match=r"\(command was prepare, and is study\)"):
        run_study(str(folder / "baselines.toml"), dataset, dataset)
    manifest = read_manifest(dataset)
    write_manifest(tmp_path, manifest.model_copy(update={"subjects": manifest.subjects[::-1]}))
    with pytest.raises(ConfigError, match=r"dataset was [0-9a-f]{64}, and is [0-9a-f]{64}"):
        run_study(str(folder / "baselines.toml"), tmp_path, folder / "out")


def test_scans_that_lie_where_a_study_would_write_stay(dataset, tmp_path):
    scan = tmp_path / "out" / "heads" / "head2" / "mr.nii.gz"
    scan.parent.mkdir(parents=True)
    scan.write_bytes(b"the original")
    with pytest.raises(ConfigError, match="holds heads, which no study made"):
        run_study(write(tmp_path, BRIEF), dataset, tmp_path / "out")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [scan]
    assert scan.read_bytes() == b"the original"


def test_a_folder_is_a_studys_from_its_first_step_on(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(workflow, "_write_heads", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        run_study(write(tmp_path, BRIEF), dataset, tmp_path / "out")
    with pytest.raises(ConfigError, match="scaled was False"):
        run_study(str(tmp_path / "baselines.toml"), dataset, tmp_path / "out", scaled=True)


def test_whatever_ends_a_study_the_tables_of_what_is_done_are_written_first(dataset, tmp_path, monkeypatch):
    real = workflow.train

    def breaking(recipe, dataset, run, **choices):
        if "constant" not in run.as_posix():
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return real(recipe, dataset, run, **choices)

    monkeypatch.setattr(workflow, "train", breaking)
    with pytest.raises(RuntimeError, match="CUDA error"):
        run_study(write(tmp_path, BRIEF), dataset, tmp_path / "out")
    text = (tmp_path / "out" / "tables.md").read_text(encoding="utf-8")
    assert "- left out: 1 of 2 cells, which are not done yet\n" in text
    assert "(n = 0 to 1)" in text


def test_the_registration_and_its_floor_are_told_with_the_scores(dataset, tmp_path):
    registered = shutil.copytree(dataset, tmp_path / "dataset")
    manifest, identity = read_manifest(registered), tuple(tuple(float(i == j) for j in range(4)) for i in range(4))
    floors = [{"mae_hu": mae} for mae in (8.0, 10.0, 12.0, 14.0)]
    notes = [RegistrationNote(kind="rigid", matrix=identity, free_form=False, moved_mm=1, doubt_mm=0.5, floor=floor) for floor in floors]
    subjects = [
        s.model_copy(update={"steps": s.steps.model_copy(update={"registration": note})})
        for s, note in zip(manifest.subjects, notes, strict=True)
    ]
    write_manifest(registered, manifest.model_copy(update={"subjects": tuple(subjects)}))
    run_study(write(tmp_path, BRIEF), registered, tmp_path / "out")
    sheet = read_scores(next((tmp_path / "out").rglob("scores.json")).parent)
    assert (sheet.registration, sheet.floor) == ("rigid registration by mutual information (elastix)", {"mae_hu": 11.0})
    text = (tmp_path / "out" / "tables.md").read_text(encoding="utf-8").replace("\u00a0", " ")
    assert "second registration places them, by synthrad2023: MAE 11.0 HU." in text


def test_all_versions_that_cells_were_made_by_are_told(done, dataset, tmp_path):
    folder, _ = done
    out = shutil.copytree(folder / "out", tmp_path / "out")
    note = next((out / "cells").rglob("cell.json"))
    values = json.loads(note.read_text())
    current = values["versions"]["numpy"]
    write_text(note, json.dumps({**values, "versions": {**values["versions"], "numpy": "1.0"}}))
    run_study(str(folder / "baselines.toml"), dataset, out)
    assert f"numpy 1.0 and {current}," in (out / "tables.md").read_text(encoding="utf-8")


def test_a_prior_whose_atlases_failed_says_so(dataset, tmp_path, monkeypatch):
    real = workflow.train

    def failing(recipe, dataset, run, **choices):
        if "constant" in run.as_posix():
            raise DataError("out of luck")
        return real(recipe, dataset, run, **choices)

    monkeypatch.setattr(workflow, "train", failing)
    text = ONCE.replace("folds = 2", "test_fraction = 0.3").replace('recipe = "baseline-constant"', 'recipe = "atlas-affine"')
    source = write(tmp_path, text.replace('recipe = "baseline-threshold"', 'recipe = "unet2d-atlas-prior"\natlases = "constant"'))
    with pytest.raises(
        CasesFailed, match="threshold/repeat-1/fold-1: constant/repeat-1/fold-1: the atlases that it builds on were not made"
    ):
        run_study(source, dataset, tmp_path / "out")


def test_a_dry_run_lists_the_cells_and_writes_nothing(dataset, tmp_path):
    lines = list_cells(write(tmp_path, BASELINES), dataset, tmp_path / "out")
    assert lines[0] == "constant/repeat-1/fold-1: 2 train, 0 validate, 2 tested, to do"
    assert len(lines) == 8 + 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_subsets_are_tested_by_themselves_with_attributes_from_a_table(dataset, tmp_path):
    write_text(tmp_path / "attributes.csv", "subject,hospital\nhead0,A\nhead1,A\nhead2,B\nhead3,B\n")
    results = run_study(write(tmp_path, BY_HOSPITAL), dataset, tmp_path / "out", attributes=tmp_path / "attributes.csv")
    tested = {(cell.scores.arm, cell.scores.subset): [] for cell in results.cells}
    for cell in results.cells:
        tested[cell.scores.arm, cell.scores.subset].append((cell.train, sorted(cell.scores.cases)))
    assert [len(names) for _, names in tested["constant", "hospital A"]] == [1, 1]
    assert [train for train, _ in tested["constant", "hospital A"]] == [3, 3]  # the other of A, and both of B
    assert tested["threshold", "hospital B"] == [(2, ["head2", "head3"])]  # one training on A for all of B
    assert [row.subset for row in results.tables[0].rows] == ["hospital A", "hospital A", "hospital B", "hospital B"]
    assert results.remarks == ("left out: vendor, of which the dataset has nothing only",)


def test_a_dataset_without_the_attributes_is_told_what_to_do(dataset, tmp_path):
    with pytest.raises(DataError, match="by --attributes or when preparing"):
        run_study(write(tmp_path, BY_HOSPITAL), dataset, tmp_path / "out")
    write_text(tmp_path / "attributes.csv", "subject,hospital\nnobody,A\n")
    with pytest.raises(DataError, match="the dataset has no nobody"):
        run_study(write(tmp_path, BY_HOSPITAL), dataset, tmp_path / "out", attributes=tmp_path / "attributes.csv")


def test_no_person_is_trained_on_and_tested(dataset, tmp_path):
    sessions = shutil.copytree(dataset, tmp_path / "dataset")
    manifest = read_manifest(sessions)
    people = {"head0": "one", "head1": "one", "head2": "two", "head3": "two"}
    subjects = [s.model_copy(update={"attributes": {"person": people[s.id]}}) for s in manifest.subjects]
    write_manifest(sessions, manifest.model_copy(update={"subjects": tuple(subjects)}))
    results = run_study(write(tmp_path, ONCE), sessions, tmp_path / "out")
    assert {frozenset(cell.scores.cases) for cell in results.cells} == {frozenset({"head0", "head1"}), frozenset({"head2", "head3"})}
    row = results.tables[0].rows[0]
    assert (len(row.cases), row.entries[0].count) == (4, 2)  # of two people


def test_an_arm_may_be_trained_on_some_of_the_people_only(dataset, tmp_path):
    source = write(tmp_path, BASELINES.replace('recipe = "baseline-constant"', 'recipe = "baseline-constant"\nsubjects = 1'))
    lines = list_cells(source, dataset, tmp_path / "out")
    assert {line.partition(": ")[2] for line in lines if line.startswith("constant")} == {"1 train, 0 validate, 2 tested, to do"}


def test_those_without_a_pair_are_trained_on_only_where_that_can_be(dataset, tmp_path):
    manifest = read_manifest(dataset)
    lonely = manifest.subject("head3")
    lonely = lonely.model_copy(update={"images": {name: image for name, image in lonely.images.items() if name.startswith("mr")}})
    subjects = (*(subject for subject in manifest.subjects if subject.id != "head3"), lonely)
    write_manifest(tmp_path, manifest.model_copy(update={"subjects": subjects}))
    text = BASELINES.replace("folds = 2\nrepeats = 2", "test_fraction = 0.3").replace("baseline-threshold", "cyclegan")
    lines = list_cells(write(tmp_path, text), tmp_path, tmp_path / "out", assignments=["train.steps=1", "train.batch_size=1"])
    assert lines[:2] == [
        "constant/repeat-1/fold-1: 1 train, 1 validate, 1 tested, to do",
        "threshold/repeat-1/fold-1: 2 train, 1 validate, 1 tested, to do",
    ]


@pytest.mark.slow
def test_several_processes_make_the_same_tables(done, dataset, tmp_path):
    folder, results = done
    assert run_study(str(folder / "baselines.toml"), dataset, tmp_path / "out", workers=Workers(2)).tables == results.tables


@pytest.mark.slow
def test_atlases_of_a_prior_are_the_run_of_their_arm_in_the_same_fold(dataset, tmp_path):
    text = ONCE.replace("folds = 2", "test_fraction = 0.3").replace('recipe = "baseline-constant"', 'recipe = "atlas-affine"')
    small = '["method.network.channels=[4,4,8,8]", "view.size=[32,32]", "predict.patch=[32,32]", "train.steps=2", "train.batch_size=1"]'
    prior = f'recipe = "unet2d-atlas-prior"\natlases = "constant"\nset = {small[:-1]}, "train.validation_fraction=0"]'
    source = write(tmp_path, text.replace('recipe = "baseline-threshold"', prior))
    results = run_study(source, dataset, tmp_path / "out")
    assert results.failed == ()
    atlases, run = (tmp_path / "out" / "cells" / arm / "repeat-1" / "fold-1" / "run" for arm in ("constant", "threshold"))
    assert json.loads((run / "run.json").read_text())["recipe"]["method"]["atlases"] == str(atlases)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('recipe = "baseline-constant"', 'recipe = "no-such"', "there is no recipe 'no-such'"),
        ('metric = "mae_hu"', 'metric = "mae"', "synthrad2023.mae is no metric; there are mae_hu"),
        ('protocol = "synthrad2023"', 'protocol = "cyclegan"', "constant, threshold is not scored by cyclegan"),
        ('protocols = ["synthrad2023"]', 'protocols = ["synthrad2023", "mr"]', "constant does mr2ct, and the protocol mr is for mr"),
        ("folds = 2", "folds = 9", "4 subjects cannot be divided into 9 folds"),
        ("folds = 2", "folds = 2\ntest_fraction = 0.5", "give one"),
        ("repeats = 2", 'subsets = ["age"]\nrepeats = 2', "the dataset has no subsets to compare: left out: age"),
        ('source = "table 1"', 'source = "table 1"\nform = "rows"', "form"),
        ("folds = 2", "", "need each other"),
        ('name = "threshold"', 'name = "constant"', "two arms have the same name"),
        ('arm = "threshold"', 'arm = "absent"', "absent"),
        ("[200.0, 10.0]", "[200.0]", "constant: published has not 2 numbers"),
        ('name = "threshold"', 'name = "threshold"\natlases = "constant"', "the recipe baseline-threshold does not build on atlases"),
        ('name = "threshold"', 'name = "threshold"\natlases = "none"', "atlases of threshold: the name of an arm"),
        (
            'name = "threshold"',
            'name = "threshold"\nset = ["train.seed = 3"]',
            "train.seed = 3 would not be heeded.*set seed in",
        ),
    ],
)
def test_a_study_that_makes_no_sense_is_refused(dataset, tmp_path, old, new, message):
    with pytest.raises((ConfigError, DataError), match=message):
        list_cells(write(tmp_path, BASELINES.replace(old, new, 1)), dataset, tmp_path / "out")
