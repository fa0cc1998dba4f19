"""Progress bars: on a terminal, and silent where the output is a file or a pipe."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items while a bar on standard error shows how many are done and how long the rest will take.

    Parameters
    ----------
    items : iterable
    description : str
        What is being done, such as ``"synthesizing"``.
    total : int, optional
        How many there are; by default the length of `items`, where it has one.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield from progress.track(items, description=description, total=total)
