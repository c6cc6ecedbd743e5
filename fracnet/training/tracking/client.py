"""The training process's end of the pipe: it never waits for wandb, except at the very end."""

import json
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fracnet

# What a person sets up wandb with. Everything else of its environment would be overruled or, like
# WANDB_SERVICE and WANDB_RUN_ID, tie the run to another one.
KEPT = (
    "WANDB_API_KEY",
    "WANDB_BASE_URL",
    "WANDB_CONFIG_DIR",
    "WANDB_CREDENTIALS_FILE",
    "WANDB_HTTP_TIMEOUT",
    "WANDB_IDENTITY_TOKEN_FILE",
    "WANDB_INSECURE_DISABLE_SSL",
)


class Client:
    """Starts the process that runs wandb and passes messages to it.

    folder: an existing folder for what wandb stores beside the run, and its working directory.
    """

    def __init__(self, folder: Path) -> None:
        self._out: queue.SimpleQueue[tuple[str, Any] | None] = queue.SimpleQueue()
        self._in: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fracnet.training.tracking.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=environment(folder),
            start_new_session=True,  # Ctrl-C is meant for the training process
        )
        # Threads, since a process that hangs lets its pipe fill up; daemons, since it may for ever.
        threading.Thread(target=self._write, name="wandb-out", daemon=True).start()
        threading.Thread(target=self._read, name="wandb-in", daemon=True).start()

    def send(self, kind: str, content: Any) -> None:
        """Hand over a message of plain values and arrays; returns at once."""
        self._out.put((kind, content))

    def replies(self) -> Iterator[dict[str, Any]]:
        """What has been answered since the last call."""
        while True:
            try:
                reply = self._in.get_nowait()
            except queue.Empty:
                return
            if reply is None:
                self._in.put(None)  # the last word there is; `close` waits for it
                return
            yield reply

    def close(self, seconds: float) -> tuple[bool, list[dict[str, Any]]]:
        """Wait for the process to end, and end it if it does not.

        Returns:
            Whether it ended by itself, and what it had still to say.
        """
        self._out.put(None)
        deadline = time.monotonic() + seconds
        said = []
        try:
            while (
                reply := self._in.get(timeout=max(0.0, deadline - time.monotonic()))
            ) is not None:
                said.append(reply)
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except (queue.Empty, subprocess.TimeoutExpired):
            return False, said
        finally:
            # Also on Ctrl-C. The server that wandb has started ends with its parent.
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
        return True, said

    def _write(self) -> None:
        assert self._process.stdin is not None
        try:
            with self._process.stdin as pipe:
                while (message := self._out.get()) is not None:
                    pickle.dump(message, pipe)
                    pipe.flush()
        except OSError:
            pass  # the process is gone: `close` finds out, and nobody else needs to know

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as pipe:
            for line in pipe:
                self._in.put(json.loads(line))
        self._in.put(None)


def environment(folder: Path) -> dict[str, str]:
    """The environment of the process: everything that wandb keeps lies in `folder`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_") or k in KEPT}
    package = str(Path(fracnet.__file__).resolve().parents[1])
    return kept | {
        "PYTHONPATH": os.pathsep.join(filter(None, [kept.get("PYTHONPATH"), package])),
        "WANDB_CACHE_DIR": str(folder / "cache"),
        "WANDB_DATA_DIR": str(folder / "cache"),
        "WANDB_ERROR_REPORTING": "false",  # otherwise wandb tells its makers of its errors
    }
