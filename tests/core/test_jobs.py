import os
import signal
import tempfile
import time

import dask
import psutil
import pytest
from distributed import LocalCluster

from transmodal.core import jobs
from transmodal.core.errors import ConfigError, DataError, OutOfMemory
from transmodal.core.jobs import HERE, Workers, run_jobs


def halve(number: int) -> int:
    time.sleep(0.02 * number)
    if number % 2:
        raise DataError(f"{number} is odd")
    return number // 2


def listening(_: int) -> list[str]:
    return [c.laddr.ip for c in psutil.Process().net_connections(kind="inet") if c.status == psutil.CONN_LISTEN]


def process(_: int) -> int:
    time.sleep(0.2)
    return os.getpid()


def kill(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_every_case_comes_back_with_its_result_or_its_error():
    outcomes = dict(run_jobs(halve, [4, 1, 2], HERE))
    assert (outcomes[4], outcomes[2]) == (2, 1)
    assert isinstance(outcomes[1], DataError)
    assert "1 is odd" in str(outcomes[1])


def test_one_worker_is_this_process():
    assert dict(run_jobs(process, [0, 1], HERE)) == {0: os.getpid(), 1: os.getpid()}


def test_nobody_else_can_talk_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    addresses = dict(run_jobs(listening, [0], HERE))[0]
    assert set(addresses) <= {"127.0.0.1"}
    assert not list(tmp_path.iterdir())


def test_no_cases_are_no_work():
    assert list(run_jobs(halve, [], HERE)) == []


def test_a_fault_of_the_program_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(run_jobs(lambda case: 1 // case, [0], HERE))


def test_a_case_that_its_process_does_not_survive_is_out_of_memory():
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        outcomes = dict(run_jobs(kill, [7], Workers(2)))
    assert isinstance(outcomes[7], OutOfMemory)
    assert "give fewer --workers" in str(outcomes[7])


def test_several_workers_are_several_processes():
    pids = set(dict(run_jobs(process, list(range(6)), Workers(2))).values())
    assert len(pids) == 2
    assert os.getpid() not in pids


def test_a_scheduler_is_used_by_its_address():
    with LocalCluster(n_workers=1, processes=False, protocol="tcp://", host="127.0.0.1", dashboard_address=None) as cluster:
        assert dict(run_jobs(halve, [2, 6], Workers(scheduler=cluster.scheduler_address))) == {2: 1, 6: 3}


def test_impossible_workers_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match="--workers 0"):
        Workers(0)
    monkeypatch.setattr(jobs, "_CONNECT_SECONDS", 1)
    with pytest.raises(ConfigError, match=r"--scheduler tcp://127.0.0.1:9: no dask scheduler answers"):
        list(run_jobs(halve, [2], Workers(scheduler="tcp://127.0.0.1:9")))
