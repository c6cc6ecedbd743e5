"""What surrounds a command: a reader that goes away, and versions of Hydra."""

import subprocess
import sys
from pathlib import Path

import pytest

from fracnet import cli


@pytest.mark.parametrize(
    "words",
    [["fracnet.train", "--help"], ["fracnet.train", "--cfg", "job"], ["fracnet.cache"]],
    ids=" ".join,
)
def test_output_may_be_cut_short(words: list[str], tmp_path: Path) -> None:
    command = subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert command.stdout is not None
    assert command.stderr is not None
    command.stdout.close()  # before a word of it, unlike `head -1`, which may come too late
    assert command.stderr.read() == b""
    command.stderr.close()
    assert command.wait(60) == 141


@pytest.mark.parametrize(
    ("version", "release"), [("1.4.0rc3", (1, 4)), ("1.10.0", (1, 10)), ("1.3.8", (1, 3))]
)
def test_releases_are_compared_as_numbers(version: str, release: tuple[int, int]) -> None:
    assert cli._release(version) == release
    assert cli._release("1.10.0") > cli._release("1.4.0")
