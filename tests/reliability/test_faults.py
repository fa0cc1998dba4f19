"""What a machine does to running work: kills, signals, full disks, too little memory, no network.

Processes are forked from one that has imported everything, so that a delay falls into the work and not into the imports.
"""

import contextlib
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from command_line import call
from phantoms import phantom
from transmodal import cli
from transmodal.core.errors import OutOfMemory
from transmodal.core.files import LOCK_NAME, PARTIAL_SUFFIX, sha256
from transmodal.core.volume import Volume
from transmodal.data.manifest import read_manifest
from transmodal.data.store import Dataset
from transmodal.engine.checkpoint import load_tree
from transmodal.engine.train import WEIGHTS_NAME
from transmodal.imaging import stream
from transmodal.imaging.scan import read_scan, write_scan

ROUNDS = 25
STOPPED = 130
TINY = (
    "method.network.channels=[4,4,8,8]",
    "view.size=[32,32]",
    "train.steps=40",
    "train.batch_size=4",
    "train.validate_every=10",
    "train.validation_batches=1",
    "train.validation_fraction=0.25",
    "train.checkpoint_every=2",
)


def assigned(settings: Sequence[str]) -> list[str]:
    """Settings as words of the command line."""
    return [word for setting in settings for word in ("--set", setting)]


@pytest.fixture(scope="session")
def server() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"transmodal.workflows.{name}" for name in ("prepare", "train", "synthesize")])
    return context


def _work(words: list[str], memory: int | None, file_size: int | None, errors: str) -> None:
    """What a process does: a command, within limits, that writes its messages to a file."""
    with open(errors, "a", buffering=1) as sys.stderr:  # noqa: PTH123
        if memory is not None:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * os.sysconf("SC_PAGE_SIZE") + memory
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        if file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
        cli.main(words)


@pytest.fixture
def begin(server, tmp_path):
    """Start a command in a process of its own; the messages of all come into ``errors``."""
    begun: list[ForkServerProcess] = []

    def start(*words: object, memory: int | None = None, file_size: int | None = None) -> ForkServerProcess:
        arguments = ([str(word) for word in words], memory, file_size, str(tmp_path / "errors"))
        begun.append(server.Process(target=_work, args=arguments))
        begun[-1].start()
        return begun[-1]

    yield start
    for process in begun:
        process.kill()


def finish(process: ForkServerProcess) -> int:
    process.join(300)
    assert process.exitcode is not None
    return process.exitcode


def partials(folder: Path) -> list[Path]:
    return list(folder.rglob(f"*{PARTIAL_SUFFIX}*"))


def images(dataset: Path) -> dict[str, bytes]:
    data = Dataset(dataset)
    return {f"{s.id}/{name}": data.read_all(s.id, name).tobytes() for s in data.manifest.subjects for name in s.images}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_tree(run / WEIGHTS_NAME)["generator"]


class Prepared:
    """`prepare` of four heads."""

    def __init__(self, heads: Path, dataset: Path, run: Path) -> None:
        self.source = heads

    def words(self, out: Path) -> list[object]:
        return ["prepare", self.source, out, "--native"]

    def assert_whole(self, out: Path, expected: Path) -> None:
        """A subject whose note is there is there entirely."""
        data, truth = Dataset(expected), images(expected)
        for note in out.glob("subjects/*.json"):
            name = json.loads(note.read_text())["subject"]["id"]
            for image in data.manifest.subject(name).images:
                assert _read_all(out, expected, name, image) == truth[f"{name}/{image}"]

    def assert_same(self, out: Path, expected: Path) -> None:
        assert images(out) == images(expected)
        first, second = (
            [subject.model_copy(update={"steps": None}) for subject in read_manifest(folder).subjects] for folder in (out, expected)
        )
        assert first == second  # but for the seconds that they took


def _read_all(dataset: Path, manifest_of: Path, subject: str, image: str) -> bytes:
    """The manifest of a dataset is written last, so that of a whole one stands in for it."""
    data = Dataset(manifest_of)
    data.folder = dataset
    return data.read_all(subject, image).tobytes()


class Trained:
    """`train` of a tiny network."""

    def __init__(self, heads: Path, dataset: Path, run: Path) -> None:
        self.source = dataset

    def words(self, out: Path) -> list[object]:
        return ["train", "unet2d-quick", self.source, out, *assigned(TINY), "--resume"]

    def assert_whole(self, out: Path, expected: Path) -> None:
        for path in (*out.glob("checkpoints/step-*"), *out.glob(WEIGHTS_NAME)):
            load_tree(path)
        for path in out.glob("*.json"):
            json.loads(path.read_text())

    def assert_same(self, out: Path, expected: Path) -> None:
        one, two = weights(out), weights(expected)
        assert one.keys() == two.keys()
        assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
        assert (out / "metrics.csv").read_bytes() == (expected / "metrics.csv").read_bytes()


class Synthesized:
    """`synthesize` of four heads."""

    def __init__(self, heads: Path, dataset: Path, run: Path) -> None:
        self.source, self.run = heads, run

    def words(self, out: Path) -> list[object]:
        return ["synthesize", self.source, out, "--model", self.run]

    def assert_whole(self, out: Path, expected: Path) -> None:
        for path in out.glob("*/sct.nii.gz"):
            assert sha256(path) == sha256(expected / path.relative_to(out))

    def assert_same(self, out: Path, expected: Path) -> None:
        self.assert_whole(out, expected)
        assert len(list(out.glob("*/sct.nii.gz"))) == 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Prepared, Trained, Synthesized], ids=lambda kind: kind.__name__)
def test_25_kills_at_any_moment_leave_whole_files_and_work_that_goes_on(kind, begin, heads, dataset, run, tmp_path):
    """A round that ends before its kill begins anew; the last one of all is left to finish what the others left."""
    work, out, expected = kind(heads, dataset, run), tmp_path / "out", tmp_path / "expected"
    finish(begin("recipes"))  # the server is warm then
    started = time.monotonic()
    assert finish(begin(*work.words(expected))) == 0
    duration, delays, kills = time.monotonic() - started, random.Random(0), 0
    while kills < ROUNDS:
        process = begin(*work.words(out))
        process.join(delays.uniform(0, duration))
        process.kill()
        code = finish(process)
        if code == 0:
            work.assert_same(out, expected)
            shutil.rmtree(out)
            continue
        assert code == -9, (tmp_path / "errors").read_text()
        kills += 1
        work.assert_whole(out, expected)
    assert finish(begin(*work.words(out))) == 0, (tmp_path / "errors").read_text()
    work.assert_same(out, expected)
    assert partials(out) == [] and not list(out.rglob(LOCK_NAME))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Prepared, Synthesized], ids=lambda kind: kind.__name__)
def test_a_signal_ends_with_the_documented_code_and_nothing_half_done(kind, begin, heads, dataset, run, tmp_path):
    """Training has its own test of this: tests/workflows/test_train.py."""
    work, out, expected = kind(heads, dataset, run), tmp_path / "out", tmp_path / "expected"
    assert finish(begin(*work.words(expected))) == 0
    process = begin(*work.words(out))
    while not any(out.rglob("*.json")):
        time.sleep(0.001)
    process.terminate()
    assert finish(process) in (STOPPED, 0)
    assert partials(out) == [] and not list(out.rglob(LOCK_NAME))
    work.assert_whole(out, expected)
    assert finish(begin(*work.words(out))) == 0
    work.assert_same(out, expected)


@contextlib.contextmanager
def mounted(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A disk in memory of so many kilobytes; skips where mounting is not permitted."""
    folder.mkdir()
    if not shutil.which("mount"):
        pytest.skip("there is no program to mount a small disk with")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def mr(heads) -> Path:
    return heads / "Task1" / "brain" / "head0" / "mr.nii.gz"


def test_a_result_that_does_not_fit_on_the_disk_leaves_the_old_one(run, mr, tmp_path, capsys):
    old = Volume(np.full((4, 4, 4), 7, np.int16), np.eye(4), "ct")
    with mounted(tmp_path / "disk", 8) as disk:
        write_scan(old, disk / "sct.nii.gz")
        code, error = call(capsys, "synthesize", mr, disk / "sct.nii.gz", "--model", run)
        assert (code, "No space left on device" in error, "Traceback" in error) == (3, True, False)
        assert str(disk / "sct.nii.gz") in error
        assert read_scan(disk / "sct.nii.gz", "ct").array.tolist() == old.array.tolist()
        assert [path.name for path in disk.iterdir()] == ["sct.nii.gz"]


@pytest.mark.parametrize("why", ["read-only", "full"])
def test_an_output_that_is_known_not_to_be_writable_is_refused_before_the_work(why, run, mr, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("transmodal.workflows.synthesize.load_ensemble", lambda *_: pytest.fail("the work had begun"))
    with mounted(tmp_path / "disk", 8) as disk:
        if why == "full":
            with contextlib.suppress(OSError), (disk / "other").open("wb", buffering=0) as stream:
                while True:
                    stream.write(bytes(4096))
        else:
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        code, error = call(capsys, "synthesize", mr, disk / "new" / "sct.nii.gz", "--model", run)
    assert code == 3
    assert why in error and str(disk / "new" / "sct.nii.gz") in error


# What else is on a disk of 24 kB that is full: almost nothing where the work itself fills it, all where it writes little.
BALLAST = {"prepare": 4 << 10, "train": 4 << 10, "fit": 24 << 10, "evaluate": 24 << 10}
REASONS = {"full": "No space left on device", "read-only": "Read-only file system"}


@pytest.mark.parametrize("state", REASONS)
@pytest.mark.parametrize("command", BALLAST)
def test_every_command_names_the_disk_that_is_full_or_read_only(command, state, heads, dataset, tmp_path, capsys):
    for name in ("sct", "ct"):
        write_scan(phantom(0)["ct"], tmp_path / "scored" / "a" / f"{name}.nii.gz")
    with mounted(tmp_path / "disk", 24) as disk:
        words = {
            "prepare": ("prepare", heads, disk / "out", "--native"),
            "train": ("train", "unet2d-quick", dataset, disk / "out", *assigned(TINY)),
            "fit": ("train", "baseline-constant", dataset, disk / "out", *assigned(("train.steps=1", "train.batch_size=1"))),
            "evaluate": ("evaluate", tmp_path / "scored", tmp_path / "scored", disk / "out"),
        }[command]
        if state == "full":
            (disk / "ballast").write_bytes(bytes(BALLAST[command]))
        else:
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        code, error = call(capsys, *words)
        assert partials(disk) == []
    assert code in (2, 3) and "Traceback" not in error
    assert f"{disk / 'out'}" in error and REASONS[state] in error


def test_a_limit_on_the_size_of_files_is_an_error_that_leaves_nothing(begin, run, mr, tmp_path):
    process = begin("synthesize", mr, tmp_path / "out" / "sct.nii.gz", "--model", run, file_size=500)
    assert finish(process) == 3
    error = (tmp_path / "errors").read_text()
    assert "sct.nii.gz: cannot be written (File too large)" in error and "Traceback" not in error
    assert list((tmp_path / "out").iterdir()) == []


def test_a_scan_larger_than_the_memory_is_refused_before_it_is_read(run, mr, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(stream, "_memory_limit", lambda: 1000)
    code, error = call(capsys, "synthesize", mr, tmp_path / "sct.nii.gz", "--model", run)
    assert code == OutOfMemory.exit_code
    assert str(mr) in error and "40x48x44 voxels need" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="how much memory a process has is read from /proc")
def test_memory_that_ends_within_the_work_is_an_error_with_advice(begin, run, tmp_path):
    """200 MB more than the libraries take, for a scan of 500 MB."""
    array = np.zeros((1000, 1000, 250), np.int16)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([0.25, 0.25, 1, 1])), tmp_path / "mr.nii")
    process = begin("synthesize", tmp_path / "mr.nii", tmp_path / "out" / "sct.nii.gz", "--model", run, memory=200 << 20)
    assert finish(process) == OutOfMemory.exit_code, (tmp_path / "errors").read_text()
    error = (tmp_path / "errors").read_text()
    assert "mr.nii: there is not enough memory for it" in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_one_bad_case_in_a_hundred(run, tmp_path, capsys):
    good = phantom(0, shape=(24, 28, 26), spacing_mm=8.0)["mr"]
    write_scan(good, tmp_path / "good.nii.gz")
    for number in range(100):
        folder = tmp_path / "in" / f"{number:02d}"
        folder.mkdir(parents=True)
        os.link(tmp_path / "good.nii.gz", folder / "mr.nii.gz")
    bad = tmp_path / "in" / "42" / "mr.nii.gz"
    content = bad.read_bytes()
    bad.unlink()
    bad.write_bytes(content[:-100])
    code, error = call(capsys, "synthesize", tmp_path / "in", tmp_path / "out", "--model", run)
    assert code == 2
    assert f"1 of 100 scans could not be synthesized:\n42: {bad}" in error
    assert len(list((tmp_path / "out").glob("*/sct.nii.gz"))) == 99
    assert not (tmp_path / "out" / "42" / "sct.nii.gz").exists()


@pytest.mark.slow
def test_no_network(heads, tmp_path):
    """In a network of its own, which has not even a loopback that is up."""
    alone = ["unshare", "-n", sys.executable, "-m", "transmodal.cli"]
    if not shutil.which("unshare") or subprocess.run(["unshare", "-n", "true"], check=False).returncode:
        pytest.skip("a network of its own (unshare -n) is not permitted here")
    dataset, run, out = (tmp_path / name for name in ("dataset", "run", "out"))
    for words in (
        ("--help",),
        ("recipes", "--details"),
        ("prepare", heads, dataset, "--native"),
        ("train", "unet2d-quick", dataset, run, *assigned(("train.steps=2", *TINY[:2]))),
        ("synthesize", heads, out, "--model", run),
        ("evaluate", out, heads, tmp_path / "scores"),
        ("report", tmp_path / "scores", run, tmp_path / "report.html"),
    ):
        done = subprocess.run([*alone, *map(str, words)], capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, (words, done.stderr)
    assert not re.search(r"""(src|href)=["']?http|url\(http""", (tmp_path / "report.html").read_text(encoding="utf-8"))
