"""A W&B run that fails at a chosen place: at init, log, image or finish."""

import errno
import time
from types import SimpleNamespace
from typing import Any

import pytest


def fail(how: str) -> None:
    """`raises`, `exits`, `disk` or `hangs`."""
    if how == "hangs":
        time.sleep(600)
    if how == "disk":
        raise OSError(errno.ENOSPC, "No space left on device")
    if how == "exits":
        raise SystemExit(3)
    raise RuntimeError("as requested\nand a second line")


class FakeRun:
    """What the loggers use of a W&B run."""

    def __init__(self, place: str, how: str) -> None:
        self._place, self._how = place, how
        self.settings = SimpleNamespace(sync_dir="somewhere/wandb/offline-run-x")
        self.summary: dict[str, Any] = {}
        self.step, self.url, self.id = 0, None, "x"
        self.rows: list[dict[str, Any]] = []
        self.exit_code: int | None = None

    def at(self, place: str) -> None:
        if place == self._place:
            fail(self._how)

    def log(self, row: dict[str, Any], **arguments: Any) -> None:
        self.at("log")
        self.rows.append(row)

    def define_metric(self, name: str, **arguments: Any) -> None:
        """Nothing."""

    def finish(self, exit_code: int) -> None:
        self.at("finish")
        self.exit_code = exit_code


def install(patch: pytest.MonkeyPatch, fault: str) -> FakeRun:
    """Replace `wandb.init` and the media; `fault` is e.g. `log hangs`, or `nowhere`."""
    place, _, how = fault.partition(" ")
    run = FakeRun(place, how)

    def init(**arguments: Any) -> FakeRun:
        run.at("init")
        return run

    def image(*arguments: Any, **more: Any) -> None:
        run.at("image")

    def table(**arguments: Any) -> Any:
        return SimpleNamespace(bind_to_run=lambda *more: None)

    patch.setattr("wandb.init", init)
    patch.setattr("wandb.Image", image)
    patch.setattr("wandb.Table", table)
    patch.setattr("wandb.plot_table", lambda *arguments: None)
    return run
