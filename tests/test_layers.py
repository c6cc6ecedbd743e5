"""Imports go one way: a package uses only the packages below it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fracnet

PACKAGE = Path(fracnet.__file__).parent
LAYERS = (
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
    "onnx_export",
    "training",
    "serving",
)
FILES = sorted(PACKAGE.rglob("*.py"))


def imported_layers(path: Path) -> set[str]:
    """Second parts of all `fracnet.x` imports of a file, anywhere in it."""
    layers = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        layers |= {name.split(".")[1] for name in names if name.startswith("fracnet.")}
    return layers


def late_imports(path: Path) -> int:
    """Number of imports inside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.Lambda)]
    nodes = {node for function in functions for node in ast.walk(function)}
    return sum(isinstance(node, ast.Import | ast.ImportFrom) for node in nodes)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_package_imports_only_from_packages_below_it(path: Path) -> None:
    layer = path.relative_to(PACKAGE).parts[0]
    if layer in LAYERS:  # a command sees everything
        assert imported_layers(path) <= set(LAYERS[: LAYERS.index(layer) + 1])


def test_every_folder_is_a_layer() -> None:
    folders = {path.relative_to(PACKAGE).parts[0] for path in FILES if path.parent != PACKAGE}
    assert folders == set(LAYERS)


def test_the_layer_check_detects_a_violation(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import os\ndef f():\n    from fracnet.training import trainer\n")
    assert imported_layers(wrong) == {"training"}
    assert late_imports(wrong) == 1


def test_few_imports_are_inside_functions() -> None:
    """Each for a reason: a command checks its keys first, and optional packages may be missing."""
    assert sum(late_imports(path) for path in FILES) <= 30


def test_evaluation_needs_no_torch() -> None:
    code = (
        "import sys, fracnet.evaluation.summary, fracnet.evaluation.baselines;"
        "sys.exit(bool({'torch', 'cv2', 'lightning'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_exported_model_needs_no_torch() -> None:
    code = (
        "import sys, fracnet.inference.onnx_model, fracnet.onnx_export.golden;"
        "sys.exit(bool({'torch', 'lightning', 'timm', 'albumentations'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
