"""Work across cases: one after the other in this process, several processes at once, or a cluster, through dask.distributed."""

import contextlib
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from transmodal.core.errors import ConfigError, OutOfMemory, TransmodalError

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster

Case = TypeVar("Case")
Result = TypeVar("Result")

_CONNECT_SECONDS = 20


@dataclass(frozen=True)
class Workers:
    """Who does the work.

    Parameters
    ----------
    count : int
        Processes on this machine that share its cores; 1 works within the process that asks.
    scheduler : str, optional
        Address of a dask scheduler, such as ``tcp://node1:8786``, whose workers are used instead. They must see the same folders
        under the same names.

    Raises
    ------
    ConfigError
        If `count` is less than 1.
    """

    count: int = 1
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"--workers {self.count}: at least one")


HERE = Workers()


def run_jobs(
    function: Callable[[Case], Result], cases: Sequence[Case], workers: Workers
) -> Iterator[tuple[Case, Result | TransmodalError]]:
    """Call `function` for every case, and yield each case with its result, or its error, in the order in which they end.

    Parameters
    ----------
    function : callable
        What it reads and writes is its own affair. With other processes it and the cases are pickled.
    cases : sequence
    workers : Workers

    Yields
    ------
    (case, result or TransmodalError)
        `OutOfMemory` if the processes that were given the case were killed. Any other exception is a fault of the program, and is raised.

    Raises
    ------
    ConfigError
        If there is no scheduler at the given address.
    """
    from distributed import as_completed

    with _client(workers) as client:
        pending = {client.submit(_guarded, function, case, pure=False): case for case in cases}
        for future in as_completed(list(pending), loop=client.loop):
            yield pending.pop(future), _outcome(future)


def _guarded(function: Callable[[Case], Result], case: Case) -> Result | TransmodalError:
    """An error of one case is a result, so that it neither stops the others nor is logged as a fault."""
    try:
        return function(case)
    except TransmodalError as error:
        return error


def _outcome(future: "Future") -> Any:
    """What `_guarded` returned, or that no process survived the case."""
    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker:
        return OutOfMemory(
            "every process that was given it was killed, as the system does when memory runs out; give fewer --workers, or use a machine "
            "with more memory"
        )


@contextlib.contextmanager
def _client(workers: Workers) -> "Iterator[Client]":
    from distributed import Client

    if workers.scheduler is not None:
        try:
            client = Client(workers.scheduler, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"--scheduler {workers.scheduler}: no dask scheduler answers there ({error}); start one with: dask scheduler"
            ) from error
        with client:
            yield client
        return
    with _local_cluster(workers.count) as cluster, Client(cluster, set_as_default=False) as client:
        yield client


@contextlib.contextmanager
def _local_cluster(count: int) -> "Iterator[LocalCluster]":
    """Workers on this machine that nobody else can talk to, and that leave nothing behind."""
    import dask.config
    from distributed import LocalCluster

    # Dask serves status pages on all interfaces unless it is told an address; so it gets this machine's own, and no pages.
    private = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}
    no_pages: dict[str, object] = {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}
    # A worker that holds a large scan is not to be stopped for it.
    # Scans are passed to workers as they are; dask would warn of every one.
    large: dict[str, object] = {"distributed.admin.large-graph-warning-threshold": "100GB"}
    settings = {"memory_limit": 0, "silence_logs": logging.ERROR, **private, **_threads_or_processes(count)}
    with (
        tempfile.TemporaryDirectory(prefix="transmodal-") as scratch,
        dask.config.set({**no_pages, **large, "temporary-directory": scratch}),
        warnings.catch_warnings(),
    ):
        # Without a network there is no address to be reached at, nor need of one.
        warnings.filterwarnings("ignore", "Couldn't detect a suitable IP address", RuntimeWarning)
        with contextlib.closing(LocalCluster(**settings)) as cluster:
            yield cluster


def _threads_or_processes(count: int) -> dict[str, object]:
    if count == 1:
        return {"n_workers": 1, "threads_per_worker": 1, "processes": False}
    threads = str(max(1, (os.cpu_count() or 1) // count))
    share = {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": threads, "OMP_NUM_THREADS": threads}
    return {"n_workers": count, "threads_per_worker": 1, "processes": True, "host": "127.0.0.1", "env": share}
