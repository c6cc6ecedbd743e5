"""Imports go one way: a room uses only the rooms before it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fracnet

PACKAGE = Path(fracnet.__file__).parent
ROOMS = (
    "utils",
    "config",
    "metrics",
    "evaluation",
    "data",
    "models",
    "saliency",
    "report",
    "data_audit",
    "runs",
    "inference",
    "training",
)
FILES = sorted(path for path in PACKAGE.rglob("*.py"))


def imported_rooms(path: Path) -> set[str]:
    """Second parts of all `fracnet.x` imports of a file, wherever in it they stand."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("fracnet.")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_only_from_rooms_before_it(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0]
    if room not in ROOMS:
        return  # a command sees everything
    assert imported_rooms(path) <= set(ROOMS[: ROOMS.index(room) + 1])


def test_the_rule_would_notice(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text("def f():\n    from fracnet.training import trainer\n")
    assert imported_rooms(wrong) == {"training"}


def test_evaluation_needs_no_torch() -> None:
    code = (
        "import sys, fracnet.evaluation.summary, fracnet.evaluation.baselines;"
        "sys.exit(bool({'torch', 'cv2', 'lightning'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
