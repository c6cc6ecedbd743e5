"""The process that runs wandb for one run, told what to do through a pipe.

A process of its own, because wandb reaches far: it starts a server, hooks the interpreter's exit
and the standard streams, and may wait for a network. Here it can fail, hang or be killed and the
training does not notice; runs of one multirun cannot meet; and where the training itself is
killed, the pipe ends and the run is still closed, with all its history, as a failed one.
"""

import contextlib
import json
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from fracnet.training.run_folder import write_whole

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
        from fracnet.training.tracking.media import log_media

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
