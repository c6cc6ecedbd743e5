"""The training process's end of the pipe: it never waits for wandb, except at the very end.

Tables, charts and images as wandb wants them; used in the process that runs wandb alone.

The process that runs wandb for one run, told what to do through a pipe.

A process of its own, because wandb reaches far: it starts a server, hooks the interpreter's exit
and the standard streams, and may wait for a network. Here it can fail, hang or be killed and the
training does not notice; runs of one multirun cannot meet; and where the training itself is
killed, the pipe ends and the run is still closed, with all its history, as a failed one.
"""

import contextlib
import io
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import fracnet
from fracnet.runs.run_folder import write_whole

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
            [sys.executable, "-P", "-m", "fracnet.training.wandb_process"],
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


# Charts that the W&B site draws from a table: its name there, and column for each role.
CHARTS = {
    "roc": (
        "wandb/area-under-curve/v0",
        {"x": "false positive rate", "y": "sensitivity", "class": "class"},
    ),
    "precision_recall": (
        "wandb/area-under-curve/v0",
        {"x": "recall", "y": "precision", "class": "class"},
    ),
    "confusion_matrix": (
        "wandb/confusion_matrix/v1",
        {"Actual": "Actual", "Predicted": "Predicted", "nPredictions": "nPredictions"},
    ),
}


def log_media(run: Any, content: dict[str, Any]) -> None:
    """Log `tables` {key: (columns, rows)}, drawn as charts where W&B has one, and pictures.

    `images` are {key: [(caption, pixels)]}, `figures` {key: content of a PNG file}.
    """
    import wandb
    from PIL import Image

    shown: dict[str, Any] = {}
    for key, (columns, rows) in content["tables"].items():
        chart = CHARTS.get(key.rpartition("/")[2])
        if chart is None:
            shown[key] = table(run, key, columns, rows)
            continue
        name, roles = chart
        titles = {"title": key, "x-axis-title": roles.get("x"), "y-axis-title": roles.get("y")}
        shown[key] = wandb.plot_table(
            name,
            table(run, f"{key}_table", columns, rows),  # the key under which W&B looks for it
            roles,
            {role: title for role, title in titles.items() if title},
        )
    for key, images in content["images"].items():
        shown[key] = [wandb.Image(pixels, caption=caption) for caption, pixels in images]
    for key, content_of_file in content["figures"].items():
        shown[key] = wandb.Image(Image.open(io.BytesIO(content_of_file)))
    run.log(shown)


def table(run: Any, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    """A wandb.Table stored as a file of the run.

    Bound by hand: a table that is not bound yet is also uploaded as an artifact, and the manifest
    of an artifact holds the local path of every file.
    """
    import wandb

    made = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
    made.bind_to_run(run, key, run.step)
    return made


LAST = "last_epoch"  # file in this process's folder: which epoch W&B knows
KILLED = 137  # the exit code of a run whose process was gone: 128 + SIGKILL


class Session:
    """One W&B run."""

    def __init__(self, replies: IO[str]) -> None:
        self._replies = replies
        self._run: Any = None

    def tell(self, event: str, **content: Any) -> None:
        """One line to the training process; it may be gone."""
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps({"event": event, **content}), file=self._replies, flush=True)

    def attempt(self, doing: str, step: Callable[..., Any], *content: Any) -> bool:
        """Do it, and report what goes wrong."""
        try:
            step(*content)
        # On purpose everything: whatever wandb or its server thinks of raising, now or in a later
        # release, costs the run its tracking and nothing else, and is told to the person.
        except (Exception, SystemExit) as error:
            lines = str(error).strip().splitlines() or [""]
            self.tell("trouble", doing=doing, error=f"{type(error).__name__}: {lines[0]}"[:300])
            return False
        return True

    def start(self, content: dict[str, Any]) -> None:
        """Open the run; online only if the server answers in time, else offline."""
        if content["mode"] == "online" and self.attempt("to go online", self._open, content):
            return
        self.attempt("to start", self._open, {**content, "mode": "offline"})

    def _open(self, content: dict[str, Any]) -> None:
        import wandb

        settings = wandb.Settings(**content["settings"])
        self._run = wandb.init(
            **content["run"], mode=content["mode"], config=content["config"], settings=settings
        )
        self._run.define_metric("epoch")
        self._run.define_metric("*", step_metric="epoch")
        url = None if content["mode"] == "offline" else self._run.url
        self.tell("started", mode=content["mode"], url=url, folder=self._run.settings.sync_dir)

    def epoch(self, row: dict[str, Any]) -> None:
        """The row of one epoch."""
        if self._run is not None:
            self.attempt("to log an epoch", self._log, row)

    def _log(self, row: dict[str, Any]) -> None:
        self._run.log(row, step=row["epoch"], commit=True)
        write_whole(Path(LAST), str(row["epoch"]))

    def results(self, content: dict[str, Any]) -> None:
        """Summary, tables, charts and example images."""
        pass

        if self._run is not None:
            self.attempt("to store the summary", self._run.summary.update, content["summary"])
            self.attempt("to log tables and charts", log_media, self._run, content)

    def finish(self, exit_code: int) -> None:
        """Close the run."""
        if self._run is not None and self.attempt("to finish", self._run.finish, exit_code):
            self.tell("finished")
        self._run = None


def last_epoch(folder: Path) -> int:
    """The last epoch that W&B was told of, counted from 1; 0 where there was none."""
    path = folder / LAST
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return int(text) if text.isdigit() else 0


def messages(pipe: IO[bytes]) -> Iterator[tuple[str, Any]]:
    """What the training process says, until it ends or is gone."""
    while True:
        try:
            yield pickle.load(pipe)
        except (EOFError, pickle.UnpicklingError):
            return


def main() -> None:
    """Serve one run, from its `start` to its `finish`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the training process decides when it is over
    # wandb gets neither the pipe nor a place to ask questions or to chat.
    commands, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    session = Session(replies)
    for kind, content in messages(commands):
        getattr(session, kind)(content)
        if kind == "finish":
            return
    session.finish(KILLED)
    sys.exit(1)


if __name__ == "__main__":
    main()
