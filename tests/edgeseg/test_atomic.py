"""A write that is cut short leaves the earlier file; a lock lets one in at a time and never outlives its process."""

import errno
import logging
import os
import subprocess
import sys
import threading

import pytest

from edgeseg.atomic import FileLock, atomic_write, storage_errors
from edgeseg.errors import StorageError

FULL = OSError(errno.ENOSPC, "No space left on device")


def holder(path, code="input()"):
    """A process that holds the lock `path` while it runs `code`."""
    script = (
        f"from edgeseg.atomic import FileLock\nwith FileLock({str(path)!r}, 'x'):\n  print(1, flush=True)\n  {code}"
    )
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "1\n"
    return process


def write_half(target, error):
    with atomic_write(target) as temporary:
        temporary.write_text("half")
        raise error


def test_the_new_file_takes_the_place_of_the_old(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with atomic_write(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x"), FULL])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises((type(error), StorageError)):
        write_half(target, error)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_disk_that_is_full_at_the_last_moment_is_a_storage_error(tmp_path, monkeypatch):
    def fsync(descriptor):
        raise FULL

    monkeypatch.setattr(os, "fsync", fsync)
    with (
        pytest.raises(StorageError, match=r"cannot write .*a\.txt: the disk is full"),
        atomic_write(tmp_path / "a.txt") as temporary,
    ):
        temporary.write_text("new")
    assert os.listdir(tmp_path) == []


def test_a_file_too_large_for_the_process_is_a_storage_error(tmp_path):
    script = (
        "import resource, sys\nfrom edgeseg.atomic import atomic_write\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"with atomic_write({str(tmp_path / 'a.txt')!r}) as path: path.write_bytes(bytes(2000))"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "StorageError: cannot write" in process.stderr
    assert os.listdir(tmp_path) == []


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with atomic_write(tmp_path / "link") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_a_folder_that_is_missing_or_in_the_way_is_refused(tmp_path):
    with pytest.raises(StorageError, match="there is no folder"), atomic_write(tmp_path / "no" / "a.txt"):
        pass
    with pytest.raises(StorageError, match="no file has this name"), atomic_write(tmp_path):
        pass


def test_only_errors_of_storage_are_translated():
    with pytest.raises(FileNotFoundError), storage_errors("read it"):
        raise FileNotFoundError(errno.ENOENT, "No such file", "a.txt")
    with pytest.raises(StorageError, match=r"permission is denied \(a\.txt\)"), storage_errors("read it"):
        raise PermissionError(errno.EACCES, "Permission denied", "a.txt")


def test_a_second_process_is_told_or_waits(tmp_path, caplog):
    process = holder(tmp_path / "lock")
    with pytest.raises(StorageError, match="another process"), FileLock(tmp_path / "lock", "build", wait=False):
        pass
    threading.Timer(0.2, process.communicate, ["\n"]).start()
    with caplog.at_level(logging.WARNING, "edgeseg"), FileLock(tmp_path / "lock", "build"):
        process.wait()
    assert "cannot build yet: another process" in caplog.text


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    process = holder(tmp_path / "lock")
    process.kill()
    process.communicate()
    with FileLock(tmp_path / "lock", "build", wait=False):
        pass


def test_one_thread_taking_its_own_lock_twice_is_a_fault_not_a_hang(tmp_path):
    with FileLock(tmp_path / "lock", "build"), pytest.raises(RuntimeError, match="this thread"):
        FileLock(tmp_path / "lock", "build").__enter__()


def test_threads_take_turns(tmp_path):
    inside, most = [], []

    def work():
        with FileLock(tmp_path / "lock", "count"):
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="a link is where a file should be"):
        FileLock(tmp_path / "lock", "build").__enter__()
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_file_replaced_while_waiting_is_locked_anew(tmp_path):
    code = f"input(); import os; os.remove({str(tmp_path / 'lock')!r})"
    process = holder(tmp_path / "lock", code)
    threading.Timer(0.2, process.communicate, ["\n"]).start()
    with FileLock(tmp_path / "lock", "build"):
        assert (tmp_path / "lock").exists()
    process.wait()
