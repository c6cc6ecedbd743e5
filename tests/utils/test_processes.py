"""Locks against other processes, and whether a recorded process still lives."""

import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from fracnet.utils.errors import Terminated, UserError, stop_behind
from fracnet.utils.files import CannotWrite
from fracnet.utils.processes import is_gone, locked, preemption, sigterm_raises, this_process

HOLD = """
import sys, time
from pathlib import Path
from fracnet.utils.processes import locked
with locked(Path(sys.argv[1]), "run=x"):
    print("held", flush=True)
    time.sleep(100)
"""


def test_a_lock_keeps_others_out_until_its_process_ends(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(UserError, match=f"run=x is in use by .*process {holder.pid} on "):
        locked(lock, "run=x").__enter__()
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert is_gone(this_process() | {"pid": holder.pid})
    with locked(lock, "run=x"), locked(lock, "run=x"):
        assert lock.exists()
    assert not lock.exists()


def test_a_link_in_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "private"
    target.write_text("mine")
    (tmp_path / ".lock").symlink_to(target)
    with pytest.raises(UserError), locked(tmp_path / ".lock", "run=x"):
        pass
    assert target.read_text() == "mine"


def test_a_full_disk_names_the_lock_and_leaves_none(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(CannotWrite, match=r"Cannot write .*/\.lock: "):
            locked(tmp_path / ".lock", "run=x").__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not any(tmp_path.iterdir())


def test_a_process_is_gone_when_its_number_belongs_to_another() -> None:
    own = this_process()
    assert not is_gone(own)
    assert is_gone(own | {"start": "another"})
    assert not is_gone(own | {"machine": "another", "start": "another"}), "nobody can know"
    assert not is_gone(None)


def test_sigterm_is_raised_once_and_then_ignored_until_the_block_ends() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def end_twice() -> None:
        with sigterm_raises():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Terminated):
        end_twice()
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_is_obeyed_the_second_time_where_the_first_was_lost() -> None:
    with sigterm_raises():
        with suppress(Terminated):  # as Python does where a finalizer is interrupted
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Terminated):
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_a_finalizer_is_obeyed(number: int) -> None:
    class Freed:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)

    def work() -> None:
        with sigterm_raises():
            Freed()
            time.sleep(5)

    with pytest.raises((Terminated, KeyboardInterrupt)) as caught:
        work()
    assert isinstance(caught.value, Terminated) == (number == signal.SIGTERM)


def test_a_terminal_that_closes_ends_the_block_except_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with pytest.raises(Terminated, match="by SIGHUP"), sigterm_raises():
            os.kill(os.getpid(), signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with sigterm_raises():
            os.kill(os.getpid(), signal.SIGHUP)
            preemption.wait()
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_sighup_does_not_end_the_wait_for_a_save() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with sigterm_raises():
            preemption.wait()
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGHUP)
            assert str(preemption.received) == "by SIGHUP"
            with pytest.raises(Terminated, match="by SIGTERM"):
                os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_closes_ends_a_further_process_of_a_run_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with sigterm_raises():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
            with pytest.raises(Terminated, match="by SIGTERM"):
                os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_closes_ends_a_server_as_sigterm_does() -> None:
    ended: list[int] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with sigterm_raises():
            signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert ended == [signal.SIGTERM]


def test_an_error_of_a_cleanup_does_not_hide_the_signal() -> None:
    def fail() -> None:
        try:
            raise Terminated("by SIGTERM")
        finally:
            raise RuntimeError("a loader is not open")

    with pytest.raises(RuntimeError) as caught:
        fail()
    assert isinstance(stop_behind(caught.value), Terminated)
    assert stop_behind(ValueError("x")) is None
