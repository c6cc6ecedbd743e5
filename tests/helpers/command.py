"""Run an entry point as a person would, in this process or in one of its own."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fracnet.config import hydra_cli
from fracnet.evaluate import evaluate
from fracnet.train import train
from fracnet.training import sweep


class Told(NamedTuple):
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


def train_here(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> Told:
    """`python -m fracnet.train WORDS` without the cost of a new process."""
    return here(train, "train", words, capsys)


def evaluate_here(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> Told:
    """`python -m fracnet.evaluate WORDS`, likewise."""
    return here(evaluate, "evaluate", words, capsys)


def here(
    task: Callable[..., Any], name: str, words: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> Told:
    """`python -m fracnet.NAME WORDS`, whose task this is."""
    argv, sys.argv = sys.argv, [f"fracnet.{name}", *words]
    code = 0
    try:
        hydra_cli.run(task, name, jobs=sweep if name == "train" else None)
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv = argv
    out, err = capsys.readouterr()
    return Told(code, out, err)


def in_new_process(
    words: Sequence[str], folder: Path, timeout: float = 300, **environment: str
) -> Told:
    """`python -m WORDS` in `folder`."""
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    return Told(done.returncode, done.stdout, done.stderr)
