"""What the benchmarks share that train through the command line."""

import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from transmodal.core.files import read_json, write_json
from transmodal.evaluation.results import read_scores
from transmodal.evaluation.statistics import Summary


def transmodal(*arguments: str | Path) -> tuple[float, float]:
    """Run a command of transmodal; return its wall time and its CPU time in seconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    print("transmodal", *arguments, file=sys.stderr, flush=True)
    subprocess.run([Path(sys.executable).with_name("transmodal"), *arguments], check=True)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - began
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def train_once(recipe: str, settings: Sequence[str], dataset: Path, run: Path) -> dict[str, float]:
    """Train a run, unless that is done; return what it cost, which is kept beside the run."""
    note = run.with_suffix(".cost.json")
    if not note.is_file():
        assignments = [text for setting in settings for text in ("--set", setting)]
        wall, cpu = transmodal("train", recipe, dataset, run, "--resume", *assignments)
        write_json(note, {"wall_s": wall, "cpu_s": cpu})
    return read_json(note)


def summary(scores: Path) -> dict[str, dict[str, Summary]]:
    """Statistics of an evaluation: protocol, then metric."""
    return read_scores(scores).summary


def cell(value: Summary, digits: int) -> str:
    """Mean and standard deviation over the cases."""
    return "–" if value.mean is None or value.sd is None else f"{value.mean:.{digits}f} ({value.sd:.{digits}f})"
