"""Start `python ...` without its imports: a fork of a process that has done nothing but import.

Most of what a short training takes is the import of torch, Lightning and pandas. `Warm` is a Popen
of which only the start differs: exit codes, signals, process groups, streams, arguments and the
environment are those of a new interpreter, and the process is a child of the one that asks for it.

Not for tests of what an interpreter does at its start: imports and their warnings, options such as
`-X`, the locale, variables that are read before the first line of Python. All forks of one test
process share the hash seed of strings.

With NESTED in its environment a child forks what it starts itself as well, and so do its children:
jobs of a sweep, workers of joblib, further processes of a run. Each keeps a copy of itself, from
before it ran anything, to fork from; so parents, process groups and sessions remain those of
production. What others start, such as Ray and Slurm, begins with new interpreters.
"""

import atexit
import fcntl
import gc
import importlib
import multiprocessing.util
import os
import pickle
import runpy
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from ctypes import CDLL
from pathlib import Path
from types import ModuleType
from typing import Any

ENVIRONMENT = dict(os.environ)
"""Of the process that forks: as it was when the tests were collected, before any changed it."""
IMPORTED = ("fracnet.training.preflight", "fracnet.training.run", "fracnet.training.record")
"""What `fracnet.train` imports, without itself: `-m` must run it, not find it."""
NESTED = "FRACNET_TEST_WARM_CHILDREN"
"""Of a child: set for it to fork its own children."""
PR_SET_CHILD_SUBREAPER = 36
HIGH = 500
"""File descriptors from here on are those of this module alone."""
LENGTH = struct.Struct("!I")
LOCK = threading.Lock()
SERVERS: dict[int, socket.socket] = {}
"""By process: the way to the one that forks for it, which ends with it."""


class Warm(subprocess.Popen[Any]):
    """`Popen` for a command that begins with sys.executable, then `-m`, `-c` or a script."""

    def _execute_child(self, args: Any, *details: Any) -> None:  # type: ignore[override]
        # The order of the details is that of these versions.
        if sys.platform != "linux" or not (3, 11) <= sys.version_info < (3, 14):
            return super()._execute_child(args, *details)  # type: ignore[misc]
        cwd, environment, pipes = details[4], details[5], details[9:15]
        new_session, group = details[-2:]
        numbers = (pipes[0], pipes[3], pipes[5])
        self.pid = _fork(
            list(map(str, args)),
            {n: n if fd == -1 else fd for n, fd in enumerate(numbers)},
            os.environ if environment is None else environment,
            folder=cwd or ".",
            new_session=bool(new_session),
            group=os.getpgid(0) if group == -1 else group,
        )
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


class WarmOrNew(Warm):
    """What `Popen` is in a child with NESTED: that of Python commands is warm."""

    def _execute_child(self, args: Any, *details: Any) -> None:  # type: ignore[override]
        executable, before_start, _, kept = details[:4]
        words = [args] if isinstance(args, str | bytes | os.PathLike) else list(args)
        if _is_python(words) and executable is None and before_start is None and not kept:
            return super()._execute_child(words, *details)
        return super(Warm, self)._execute_child(args, *details)  # type: ignore[misc]


def _is_python(words: Sequence[Any]) -> bool:
    """Whether a command is one that `Warm` runs."""
    if len(words) < 2 or words[0] != sys.executable:
        return False
    return words[1] in ("-m", "-c") or not str(words[1]).startswith("-")


def _fork(
    command: Sequence[str],
    streams: Mapping[int, int],
    environment: Mapping[str, str],
    *,
    folder: Any = ".",
    new_session: bool = False,
    group: int | None = None,
) -> int:
    """The process id of a new child of this process.

    streams: its file descriptors and those of this process that they are. group: None for that of
    this process.
    """
    executable, *arguments = command
    assert executable == sys.executable, executable
    job = {
        "arguments": arguments,
        "folder": os.path.abspath(folder),
        "environment": dict(environment),
        "new_session": new_session,
        "group": os.getpgid(0) if group is None else group,
        "interrupt": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
        "streams": list(streams),
    }
    data, prctl = pickle.dumps(job), CDLL(None).prctl
    with LOCK:
        server = _server()
        # Whose parent ends becomes a child of the nearest process above that has asked for it.
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        try:
            socket.send_fds(server, [LENGTH.pack(len(data))], list(streams.values()))
            server.sendall(data)
            return int(LENGTH.unpack(_receive(server, LENGTH.size))[0])
        finally:
            prctl(PR_SET_CHILD_SUBREAPER, 0)


def _server() -> socket.socket:
    """The way to the process that forks for this one."""
    if os.getpid() not in SERVERS:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env=ENVIRONMENT, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
            )  # fmt: skip
        process.returncode = 0  # it ends after this process, which would warn of it
        atexit.register(ours.close)
        SERVERS[os.getpid()] = ours
    return SERVERS[os.getpid()]


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (more := connection.recv(size - len(data))):
            raise EOFError
        data += more
    return data


def _serve(connection: socket.socket) -> dict[str, Any]:
    """Fork for each request. Returns in the children alone: what each has to run."""
    while True:
        try:
            head, streams, _, _ = socket.recv_fds(connection, LENGTH.size, 100)
            if not head:
                raise EOFError
            job = pickle.loads(_receive(connection, LENGTH.unpack(head)[0]))
        except EOFError:  # the process that asks has ended
            os._exit(0)
        answer, adopted = os.pipe(), os.pipe()
        if (between := os.fork()) == 0:
            if child := os.fork():
                os.write(answer[1], LENGTH.pack(child))
                os._exit(0)
            connection.close()
            os.close(adopted[1])
            os.read(adopted[0], 1)  # returns when the process between the two has ended
            for number in (*answer, adopted[0]):
                os.close(number)
            if job["new_session"]:
                os.setsid()
            else:
                os.setpgid(0, job["group"])
            if job["environment"].get(NESTED):
                ours, theirs = socket.socketpair()
                if os.fork() == 0:
                    os.setpgid(0, 0)  # a signal to the group is not for this process
                    ours.close()
                    for number in streams:
                        os.close(number)
                    connection = theirs
                    continue
                theirs.close()
                SERVERS[os.getpid()] = socket.socket(fileno=_moved(ours.detach()))
            moved = list(map(_moved, streams))
            for number, stream in zip(job["streams"], moved, strict=True):
                os.dup2(stream, number)
                os.close(stream)
            return dict(job)
        os.waitpid(between, 0)
        connection.sendall(os.read(answer[0], LENGTH.size))
        for number in (*answer, *adopted, *streams):
            os.close(number)


def _moved(number: int) -> int:
    """Another number for a file descriptor, which is in nobody's way."""
    moved = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, HIGH)
    os.close(number)
    return moved


def _become(job: dict[str, Any]) -> None:
    """Give this process what a new one would have."""
    # Not at the top: the process that forks has imported both by now, and a start of the tests,
    # which imports this module too, need not wait for them.
    import numpy as np
    import torch

    interrupt = signal.SIG_IGN if job["interrupt"] else signal.default_int_handler
    signal.signal(signal.SIGINT, interrupt)
    os.chdir(job["folder"])
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ.clear()
    os.environ.update(job["environment"])
    if (own := os.environ.get("OMP_NUM_THREADS")) and own != threads:
        torch.set_num_threads(int(own))
    encoding, at_once = sys.stdout.encoding, bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdin = os.fdopen(0, encoding=encoding, closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding=encoding, closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding, "backslashreplace", closefd=False)
    sys.stdout.reconfigure(write_through=at_once)
    np.random.seed()  # noqa: NPY002 - the global state is a copy
    if os.environ.get("FRACNET_TEST_CHARTS") == "no":
        importlib.import_module("blank_charts").draw_nothing()
    if os.environ.get(NESTED):
        _fork_children()
    gc.enable()


def _fork_children() -> None:
    """Let this process start others as `Warm` does."""

    def fork_exec(
        command: Sequence[str], kept: Sequence[int], env: Mapping[str, str] | None = None
    ) -> int:
        streams = {number: number for number in (0, 1, 2, *map(int, kept))}
        return _fork(command, streams, {**os.environ, **(env or {})})

    def spawnv_passfds(path: Any, command: Sequence[Any], kept: Sequence[int]) -> int:
        words = list(map(os.fsdecode, command))
        if os.fsdecode(path) == words[0] and _is_python(words):
            return fork_exec(words, kept)
        return new_process(path, command, kept)

    new_process = multiprocessing.util.spawnv_passfds
    multiprocessing.util.spawnv_passfds = spawnv_passfds
    # Joblib's way to start its workers, which it imports when it does.
    name = "joblib.externals.loky.backend.fork_exec"
    sys.modules[name] = ModuleType(name)
    sys.modules[name].fork_exec = fork_exec  # type: ignore[attr-defined]
    subprocess.Popen = WarmOrNew  # type: ignore[misc]


def _paths(environment: dict[str, str] | Any) -> list[str]:
    return [os.path.abspath(path) for path in environment.get("PYTHONPATH", "").split(":") if path]


def _end(code: Any) -> None:
    """End as an interpreter does, but do not take a second to free all that was imported."""
    if isinstance(code, str):
        print(code, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else bool(code))


def _run(arguments: list[str], common: list[str]) -> None:
    """As the interpreter does with its arguments. common: sys.path without what varies."""
    option, *rest = arguments
    if option == "-c":
        code, *rest = rest
        sys.argv = [option, *rest]
        sys.path = ["", *_paths(os.environ), *common]
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), vars(main))
    elif option == "-m":
        module, *rest = rest
        sys.argv = [option, *rest]
        sys.path = [os.getcwd(), *_paths(os.environ), *common]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path = [str(Path(option).parent.absolute()), *_paths(os.environ), *common]
        runpy.run_path(option, run_name="__main__")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the tests
    own = {str(Path(__file__).parent), *_paths(os.environ)}
    common = [path for path in sys.path if path not in own]
    gc.disable()
    deferred = importlib.import_module("fracnet.utils.deferred")
    deferred.defer()  # as each command does
    for name in IMPORTED:
        importlib.import_module(name)
    quick_configs = importlib.import_module("quick_configs")
    quick_configs.compose_quickly(setattr)
    quick_configs.compose_defaults()
    gc.freeze()  # not to be searched, and so copied, in each child
    job = _serve(socket.socket(fileno=int(sys.argv[1])))
    _become(job)
    try:
        _run(job["arguments"], common)
    except SystemExit as stop:
        _end(stop.code)
    except Exception:
        sys.excepthook(*sys.exc_info())
        _end(1)
    _end(0)
