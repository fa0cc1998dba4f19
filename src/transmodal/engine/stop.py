"""Signals that end a training well."""

import signal
import threading
import types
from typing import Any

import torch
from lightning_fabric import Fabric


class Stop:
    """Turns the first SIGINT or SIGTERM into a wish that is granted at the end of the step; a second SIGINT is not held back."""

    def __init__(self) -> None:
        self._asked = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: types.FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True

    def requested(self, fabric: Fabric) -> bool:
        """Whether any process was asked to stop."""
        if fabric.world_size == 1:
            return self._asked
        votes = fabric.all_reduce(torch.tensor(float(self._asked), device=fabric.device), reduce_op="sum")
        return bool(votes > 0)  # pyright: ignore[reportOperatorIssue]
