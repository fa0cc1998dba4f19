"""What training says as it goes: a progress bar, ``metrics.csv``, TensorBoard events, and pictures."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from transmodal.core.files import write_text
from transmodal.engine.preview import Columns, draw, write_png

METRICS_NAME = "metrics.csv"
PREVIEWS_NAME = "previews"


class TrainingLog:
    """Records metrics by step, and shows the latest ones beside a bar.

    Parameters
    ----------
    run : Path
        The run's folder.
    total : int
        Steps of the whole training.
    start : int
        Steps that are done already; rows after them, left by a process that was killed, are forgotten.
    quiet : bool
        No bar; rows are still recorded.
    """

    def __init__(self, run: Path, total: int, start: int, quiet: bool) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._path, self._quiet = run / METRICS_NAME, quiet
        self._rows = [row for row in read_metrics(self._path) if int(row["step"]) <= start]
        self._events = SummaryWriter(str(run / "tensorboard"), purge_step=start + 1 if start else None)
        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        self._bar = Progress(*columns, TextColumn("{task.fields[metrics]}"), console=console, disable=quiet or not console.is_terminal)
        self._task = self._bar.add_task("training", total=total, completed=start, metrics="")
        self._shown: dict[str, str] = {}

    def __enter__(self) -> "TrainingLog":
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()
        self._events.close()

    def advance(self, step: int) -> None:
        """Move the bar to `step`."""
        self._bar.update(self._task, completed=step)

    def recorded(self, split: str) -> list[dict[str, float]]:
        """The metrics of every row of a split so far, those from before an interruption among them."""
        return [
            {name: float(value) for name, value in row.items() if name not in ("step", "split")}
            for row in self._rows
            if row["split"] == split
        ]

    def record(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Keep the metrics of a step; ``split`` is ``train``, or ``validation``, which is also printed."""
        self._rows.append({"step": str(step), "split": split, **{name: f"{value:.6g}" for name, value in metrics.items()}})
        for name, value in metrics.items():
            self._events.add_scalar(f"{split}/{name}", value, step)
        shown = " ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        if split == "validation" and not self._quiet:
            self._bar.console.print(f"step {step}: validation {shown}", markup=False, highlight=False)
        self._shown[split] = f"{split}: {shown}"
        self._bar.update(self._task, metrics=" | ".join(self._shown.values()))

    def show(self, step: int, columns: Columns) -> None:
        """Keep a picture of the images of a step in ``previews/``, and in TensorBoard."""
        if columns:
            picture = draw(columns)
            write_png(self._path.parent / PREVIEWS_NAME / f"step_{step:08d}.png", picture)
            self._events.add_image("preview", picture, step, dataformats="HW")

    def flush(self) -> None:
        """Write what was recorded."""
        columns = list(dict.fromkeys(name for row in self._rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(self._path, text.getvalue())
        self._events.flush()


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of a ``metrics.csv``; none if there is no such file. Empty cells are left out."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(stream)]
