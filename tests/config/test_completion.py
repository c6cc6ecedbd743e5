"""Tab completion, installed as `--hydra-help` says."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# What a shell does at a tab, without a terminal; `@line@` has been typed.
ASK = {
    "bash": """
LINE='@line@'; COMP_LINE="$LINE"; COMP_POINT=${#LINE}; _fracnet; echo "${COMPREPLY[*]}"
""",
    "zsh": """
compadd() { reply=(${(P)@[-1]}); print -r -- ${(M)reply:#${words[CURRENT]}*}; }
_default() { }
LINE='@line@'; words=(${(s: :)LINE}); CURRENT=${#words}; _fracnet
""",
    "fish": "complete -C '@line@' | string join ' '; or true\n",
}
# zsh would ask whether its completion may be used in folders of other users.
BEFORE = {"bash": "", "zsh": "compdef() { }\n", "fish": ""}


def run(shell: str, command: str) -> str:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"needs {shell}")
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        [found, "-c", command], env={"PATH": path}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "choices"),
    [
        ("fracnet pre", "predict"),
        ("python -m fracnet.pre", "fracnet.predict"),
        ("python -m fracnet.train -m data=mura model=resnet1", "model=resnet18"),
        ("python -m pytest no-such-file", ""),
    ],
)
def test_tab_completes_commands_groups_and_keys(shell: str, line: str, choices: str) -> None:
    script = run(shell, f"python -m fracnet -sc install={shell}")
    ask = ASK[shell].replace("@line@", line)
    assert run(shell, f"{BEFORE[shell]}{script}\n{ask}") == choices


def test_every_command_prints_the_same_script() -> None:
    script = run("bash", "python -m fracnet -sc install=bash")
    assert run("bash", "python -m fracnet.train -sc install=bash") == script
    assert run("bash", "python -m fracnet -sc install=zsh") == script, "--hydra-help says so"


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_uninstall_removes_the_function(shell: str) -> None:
    install = run(shell, f"python -m fracnet -sc install={shell}")
    remove = run(shell, f"python -m fracnet -sc uninstall={shell}")
    listed = "declare -F _fracnet || true" if shell == "bash" else "functions -q __fracnet; or true"
    assert run(shell, f"{install}\n{remove}\n{listed}") == ""
