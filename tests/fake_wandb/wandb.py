"""Stands in for wandb in the process that runs it; FAKE_WANDB says where it goes wrong and how."""

import errno
import os
import time
from typing import Any

PLACE, _, HOW = os.environ["FAKE_WANDB"].partition(" ")


def reached(place: str) -> None:
    if place != PLACE:
        return
    if HOW == "hangs":
        time.sleep(600)
    if HOW == "disk":
        raise OSError(errno.ENOSPC, "No space left on device")
    if HOW == "exits":
        os._exit(3)
    raise RuntimeError("as it was told\nand a second line")


class Settings:
    def __init__(self, **words: Any) -> None:
        self.sync_dir = "somewhere/wandb/offline-run-x"


class Run:
    settings, summary, step, url = Settings(), dict[str, Any](), 0, None

    def define_metric(self, *names: str, **words: Any) -> None: ...

    def log(self, row: dict[str, Any], **words: Any) -> None:
        reached("log")

    def finish(self, exit_code: int) -> None:
        reached("finish")


class Table:
    def __init__(self, **words: Any) -> None: ...

    def bind_to_run(self, *words: Any) -> None: ...


def plot_table(*words: Any) -> None: ...


def Image(*words: Any, **more: Any) -> None:
    reached("image")


def init(**words: Any) -> Run:
    reached("init")
    return Run()
