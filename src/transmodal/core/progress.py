"""Progress bars: on a terminal, and silent where the output is a file or a pipe."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

# The bar that is shown, if there is one: only one of nested ones can be.
_shown: list[str] = []


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items while a bar on standard error shows how many are done and how long the rest will take.

    Within work that has a bar already no other is shown.

    Parameters
    ----------
    items : iterable
    description : str
        What is being done, such as ``"synthesizing"``.
    total : int, optional
        How many there are; by default the length of `items`, where it has one.
    """
    if _shown:
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        _shown.append(description)
        try:
            yield from progress.track(items, description=description, total=total)
        finally:
            _shown.pop()
