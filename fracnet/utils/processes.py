"""Processes: which one writes a run folder, whether it still lives, and SIGTERM as an exception."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from fracnet.utils import distributed
from fracnet.utils.errors import Interrupted, Terminated, UserError, stop_behind
from fracnet.utils.files import append_to, cannot_write


def this_process() -> dict[str, Any]:
    """What identifies this process later: process id, start and machine, for `is_gone`."""
    pid = os.getpid()
    return {"pid": pid, "start": _start_of(pid), "machine": _machine()}


def is_gone(process: Any) -> bool:
    """Whether the process that `this_process` described has ended; False where nobody can know."""
    if not isinstance(process, Mapping) or process.get("machine") != _machine():
        return False
    pid = process.get("pid")
    if not isinstance(pid, int) or not 0 < pid < 2**31:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it lives, and belongs to somebody else
    # Process ids are given out again.
    return _start_of(pid) != process.get("start")


def remote_host(process: Any) -> str | None:
    """The host of a process that cannot be seen from here; None for one of this machine."""
    here = _machine()
    there = process.get("machine", here) if isinstance(process, Mapping) else here
    return None if there == here else str(there).partition(" pid:")[0]


def _machine() -> str:
    """Host and process namespace: a process id means nothing outside of them."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""  # a system without /proc has one namespace
    return f"{socket.gethostname()} {namespace}".strip()


def _start_of(pid: int) -> str | None:
    """Boot and clock tick of a process's start; None if it has ended, or without /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the name in parentheses, which may hold spaces; then state, ..., start.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{boot} {fields[19]}"


_held: dict[Path, int] = {}
"""Locks of this process: how many blocks are inside of each."""


@contextmanager
def locked(path: Path, name: str) -> Iterator[None]:
    """Hold the lock file `path` against other processes; in this process it may be nested.

    The file is removed at the end. name: what is locked, for the message.

    Raises UserError, at once, where another process holds it; CannotWrite for a folder in which
    nothing can be written.
    """
    path = path.parent.resolve() / path.name  # a link is refused, not followed
    descriptor = None if path in _held else _acquire(path, name)
    _held[path] = _held.get(path, 0) + 1
    try:
        yield
    finally:
        _held[path] -= 1
        if not _held[path]:
            del _held[path]
        if descriptor is not None:
            path.unlink(missing_ok=True)
            os.close(descriptor)


def _acquire(path: Path, name: str) -> int:
    while True:
        descriptor = append_to(path)
        try:
            # A POSIX lock: children do not inherit it, so a killed run leaves none behind.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            holder = path.read_text(encoding="utf-8", errors="replace").strip()[:100]
            os.close(descriptor)
            raise UserError(
                f"{name} is in use by another fracnet process{f' ({holder})' if holder else ''}; "
                "wait until it has ended, or stop it."
            ) from error
        except OSError:
            return descriptor  # a file system without locks
        try:
            same = os.path.samestat(os.fstat(descriptor), path.stat())
        except FileNotFoundError:
            same = False
        if same:  # otherwise its last holder has just removed it
            try:
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
            except OSError as error:
                path.unlink(missing_ok=True)
                os.close(descriptor)
                raise cannot_write(path, error) from error
            return descriptor
        os.close(descriptor)


PREEMPTION = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""Signals by which a cluster, or a terminal that closes, ends a process with time left to save."""


class Preemption:
    """A request to end, which a training obeys once it has saved itself.

    received: the pending request.
    """

    def __init__(self) -> None:
        self.received: Terminated | None = None
        self._handler: Any = None
        self._numbers: tuple[signal.Signals, ...] = ()
        self._waits = False

    def listen(self, handler: Any, numbers: Iterable[signal.Signals]) -> dict[int, Any]:
        """Install a handler, which calls `request`; what it replaces, by signal."""
        self._handler, self._numbers, self.received = handler, tuple(numbers), None
        return {number: signal.signal(number, handler) for number in self._numbers}

    def request(self, number: int) -> None:
        """Raise `Terminated`, or leave it in `received` to be raised; a second one raises.

        Not while the first one, or a Ctrl-C, is ending the command: that lets it record its end;
        nor SIGHUP, which a terminal that closes may send twice, and a logout after SIGTERM.
        """
        if (ending := sys.exception()) is not None and stop_behind(ending):
            return
        if number == signal.SIGHUP and self._waits and self.received is not None:
            return
        stop = Terminated(f"by {signal.Signals(number).name}")
        stop.number = number
        if self._waits and self.received is None:
            self.received = stop
            return
        raise stop

    def wait(self) -> None:
        """Let requests wait: the caller checks `received` soon.

        Installs the handler again, in front of what a library has set in the meantime.
        """
        if self._handler is None or threading.current_thread() is not threading.main_thread():
            return
        self._waits = True
        for number in self._numbers:
            signal.signal(number, self._handler)

    def wait_no_longer(self) -> None:
        """Let a request raise at once from here on."""
        self._waits = False

    def end(self) -> None:
        """Forget the handler, which has been removed."""
        self._handler, self._waits = None, False


preemption = Preemption()
"""That of this process."""


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Raise `Terminated` where a signal of `PREEMPTION` arrives, so that an end can be recorded.

    Changes nothing where somebody handles or ignores SIGTERM already, or outside of the main
    thread, nor for another of the signals that is handled or ignored, as SIGHUP is by nohup, nor
    for SIGHUP in the further processes of a run, which may wait where Python hears no signal.

    Python ignores exceptions in finalizers and callbacks of weak references, which are called at
    any time, often by imports. A signal whose exception was ignored, also Ctrl-C, is sent again.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    owner = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a fork, such as a worker of a loader
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if number == signal.SIGHUP and signal.getsignal(signal.SIGTERM) is not handle:
            signal.raise_signal(signal.SIGTERM)  # a server's event loop would lose an exception
            return
        preemption.request(number)

    def send_again(ignored: Any) -> None:
        stop = ignored.exc_value
        if isinstance(stop, Interrupted | KeyboardInterrupt):
            number = stop.number if isinstance(stop, Terminated) else signal.SIGINT
            # From a thread, because here, too, Python would ignore what it raises.
            threading.Timer(0.01, os.kill, (os.getpid(), number)).start()
        else:
            hook(ignored)

    hook = sys.unraisablehook
    numbers = PREEMPTION if distributed.rank() == 0 else PREEMPTION[:2]
    free = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    before = preemption.listen(handle, free)
    sys.unraisablehook = send_again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        preemption.end()
        for number, earlier in before.items():
            signal.signal(number, earlier)


def ask_for_requeue(stop: BaseException) -> None:
    """Ask Slurm to start this job again where its warning, SIGUSR1, has ended it."""
    job = os.environ.get("SLURM_JOB_ID")
    if job and isinstance(stop, Terminated) and "SIGUSR1" in str(stop):
        array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        name = f"{array}_{task}" if array else job
        done = subprocess.run(["scontrol", "requeue", name], capture_output=True, text=True)
        outcome = "requeued" if done.returncode == 0 else f"not requeued: {done.stderr.strip()}"
        print(f"Slurm job {name} {outcome}", flush=True)
