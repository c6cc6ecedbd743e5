"""Tab completion in bash, installed as `--hydra-help` says."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ASK = """
COMP_LINE="$LINE"; COMP_POINT=${#LINE}; _fracnet; echo "${COMPREPLY[*]}"
"""


def run(command: str) -> str:
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "-c", command], env={"PATH": path}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def script() -> str:
    return run("python -m fracnet.train -sc install=bash")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "choices"),
    [
        ("fracnet pre", "predict"),
        ("python -m fracnet.pre", "fracnet.predict"),
        ("python -m fracnet.train -m data=mura model=resnet1", "model=resnet18"),
        ("python -m pytest fracnet", ""),
    ],
)
def test_tab_completes_commands_groups_and_keys(script: str, line: str, choices: str) -> None:
    assert run(f"{script}\nLINE='{line}'{ASK}") == choices


def test_the_console_script_installs_the_same(script: str) -> None:
    assert run("python -m fracnet -sc install=bash") == script
