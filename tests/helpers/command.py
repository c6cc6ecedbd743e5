"""Run a command as a user would, in this process or in a new one."""

import logging
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from helpers.warm import Warm
from hydra.core.hydra_config import HydraConfig

from fracnet.config import hydra_cli
from fracnet.evaluate import evaluate
from fracnet.train import train
from fracnet.training import sweep


class CommandResult(NamedTuple):
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


def run_train(overrides: Sequence[str], capsys: pytest.CaptureFixture[str]) -> CommandResult:
    """`python -m fracnet.train OVERRIDES` without the cost of a new process."""
    return run_command(train, "train", overrides, capsys)


def run_evaluate(overrides: Sequence[str], capsys: pytest.CaptureFixture[str]) -> CommandResult:
    """`python -m fracnet.evaluate OVERRIDES` without the cost of a new process."""
    return run_command(evaluate, "evaluate", overrides, capsys)


def run_command(
    task: Callable[..., Any],
    name: str,
    overrides: Sequence[str],
    capsys: pytest.CaptureFixture[str],
) -> CommandResult:
    """`python -m fracnet.NAME OVERRIDES`; `task` is its main function."""
    argv, sys.argv = sys.argv, [f"fracnet.{name}", *overrides]
    before = HydraConfig.instance().cfg  # `--cfg` leaves another one
    handlers = logging.root.handlers[:]
    code = 0
    try:
        hydra_cli.run(task, name, jobs=sweep if name == "train" else None)
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        HydraConfig.instance().cfg = before
        sys.argv = argv
        for left in set(logging.root.handlers) - set(handlers):  # Hydra's, of this run's folder
            left.close()
        logging.root.handlers[:] = handlers
    out, err = capsys.readouterr()
    return CommandResult(code, out, err)


def in_new_process(
    arguments: Sequence[str], folder: Path, timeout: float = 300, **environment: str
) -> CommandResult:
    """`python -m ARGUMENTS` in `folder`."""
    return _in_process(subprocess.Popen, ["-m", *arguments], folder, timeout, environment)


def in_quick_process(arguments: Sequence[str], folder: Path) -> CommandResult:
    """`python -m ARGUMENTS`, which must take less than two seconds of work.

    Of work, not of the clock, which runs on while a busy machine does other things. The first
    start may have files to read and to compile, so a second one counts as well.
    """
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = in_new_process(arguments, folder)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if seconds < 2:
            return result
    raise AssertionError(f"{seconds:.1f} s of work")


def in_warm_process(
    arguments: Sequence[str], folder: Path, timeout: float = 300, **environment: str
) -> CommandResult:
    """`python ARGUMENTS` in `folder`, without the cost of its imports; see `Warm`."""
    return _in_process(Warm, arguments, folder, timeout, environment)


def _in_process(
    start: type["subprocess.Popen[Any]"],
    arguments: Sequence[str],
    folder: Path,
    timeout: float,
    environment: Mapping[str, str],
) -> CommandResult:
    process = start(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()  # unless it has ended
    return CommandResult(process.returncode, out, err)
