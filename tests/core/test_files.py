import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from transmodal.core.errors import BusyError, DataError, FileError, OutOfMemory, about
from transmodal.core.files import (
    LOCK_NAME,
    PARTIAL_SUFFIX,
    atomic_folder,
    atomic_path,
    folder_lock,
    folders_below,
    read_json,
    require_room,
    write_json,
    write_text,
)


def test_an_exception_leaves_the_old_file(tmp_path):
    target = tmp_path / "scan.nii.gz"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_temporary_file_keeps_the_suffix_and_the_result_is_readable_by_others(tmp_path):
    target = tmp_path / "folder" / "scan.nii.gz"
    with atomic_path(target) as temporary:
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("new")
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write_slowly(target: Path) -> None:
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        time.sleep(60)


def test_a_killed_writer_leaves_the_old_file_and_the_next_one_sweeps_up(tmp_path):
    target = tmp_path / "scan.nii"
    write_text(target, "old")
    process = multiprocessing.get_context("spawn").Process(target=_write_slowly, args=(target,))
    process.start()
    while not list(tmp_path.glob(f".*{PARTIAL_SUFFIX}*")):
        time.sleep(0.02)
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert target.read_text() == "old"
    write_text(target, "new")
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_or_a_file_in_the_way_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be written"):
        write_text(tmp_path / "file" / "scan.nii", "x")


def test_names_with_wildcards_and_unicode_are_ordinary(tmp_path):
    target = tmp_path / ("[a]*? ß " + "x" * 190)
    write_text(target, "new")
    assert target.read_text() == "new"


def test_a_held_folder_refuses_a_second_process(tmp_path):
    with folder_lock(tmp_path), pytest.raises(BusyError, match=str(os.getpid())), folder_lock(tmp_path):
        pass
    with folder_lock(tmp_path):
        pass


def test_a_lock_whose_owner_is_gone_is_taken_over(tmp_path):
    with folder_lock(tmp_path):
        owner = json.loads((tmp_path / LOCK_NAME).read_text())
    process = multiprocessing.get_context("spawn").Process(target=print)
    process.start()
    process.join()
    (tmp_path / LOCK_NAME).write_text(json.dumps({**owner, "pid": process.pid}))
    with folder_lock(tmp_path):
        pass


def test_a_lock_of_another_machine_is_respected(tmp_path):
    (tmp_path / LOCK_NAME).write_text(json.dumps({"pid": 1, "host": "somewhere-else"}))
    with pytest.raises(BusyError, match="somewhere-else"), folder_lock(tmp_path):
        pass


def test_json_round_trip_and_faults(tmp_path):
    write_json(tmp_path / "a.json", {"name": "Müller", "n": 1})
    assert read_json(tmp_path / "a.json") == {"name": "Müller", "n": 1}
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(FileError, match=r"b.json: not readable as JSON"):
        read_json(tmp_path / "b.json")
    with pytest.raises(FileError, match="no such file"):
        read_json(tmp_path / "c.json")


def test_a_folder_is_whole_or_absent(tmp_path):
    target = tmp_path / "a" / "series"
    with pytest.raises(RuntimeError), atomic_folder(target) as temporary:
        (temporary / "1").write_text("half")
        raise RuntimeError
    assert list(target.parent.iterdir()) == []
    with atomic_folder(target) as temporary:
        (temporary / "1").write_text("whole")
        assert not target.exists()
    assert (target / "1").read_text() == "whole"
    assert target.stat().st_mode & 0o777 == 0o777 & ~_umask()


def test_a_folder_takes_no_ones_place(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "empty").mkdir()
    for name in ("file", "full"):
        with pytest.raises(FileError, match="there is something already"), atomic_folder(tmp_path / name):
            pass
    with atomic_folder(tmp_path / "empty") as temporary:
        (temporary / "1").touch()
    assert [path.name for path in (tmp_path / "empty").iterdir()] == ["1"]


def test_what_a_killed_writer_of_a_folder_left_is_swept(tmp_path):
    stale = tmp_path / f".4194999{PARTIAL_SUFFIX}.series.abc"
    stale.mkdir()
    (stale / "1").touch()
    with atomic_folder(tmp_path / "series") as temporary:
        (temporary / "1").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["series"]


def test_folders_are_walked_once_whatever_links_there_are(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "loop").symlink_to(tmp_path)
    (tmp_path / "elsewhere").symlink_to(tmp_path / "a")
    (tmp_path / "file").touch()
    assert folders_below(tmp_path) == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


def test_what_stands_in_the_way_is_known_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="read-only or no folder"):
        require_room(tmp_path / "file" / "sct.nii.gz")
    require_room(tmp_path / "new" / "folder" / "sct.nii.gz")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_error_names_its_file_once_and_keeps_its_class():
    path = Path("scan.nii")
    with pytest.raises(DataError, match=r"^scan\.nii: no head"), about(path):
        raise DataError("no head")
    with pytest.raises(DataError, match=r"^other\.nii: no head"), about(path, Path("other.nii")):
        raise DataError("other.nii: no head")
    with pytest.raises(OutOfMemory, match=r"^scan\.nii: there is not enough memory"), about(path):
        raise MemoryError
