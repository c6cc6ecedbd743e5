"""Every command refuses run folders of another version, and builds only what is trusted."""

import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import pytest
import yaml
from helpers.command import here
from helpers.run_files import two_class_table, write_run
from helpers.tiny import picture

import fracnet
from fracnet.runs.run_folder import FORMAT, FORMAT_KEY, RunFolder
from fracnet.utils.errors import UserError

TABLE = two_class_table(8, 8)

BUILDERS: dict[str, Callable[[Path], list[str]]] = {
    "evaluate": lambda run: [f"run={run}", "tta=hflip", "figures=false"],
    "predict": lambda run: [f"run={run}", f"input={run.parent / 'image.png'}"],
    "explain": lambda run: [f"run={run}"],
    "train": lambda run: [f"resume={run}"],
}
"""Commands that rebuild a run, with their arguments."""
READERS: dict[str, Callable[[Path], list[str]]] = {
    "ensemble": lambda run: [f"runs=[{run},{run.parent / 'other'}]", f"out={run.parent / 'mean'}"],
    "compare": lambda run: [f"runs=[{run},{run.parent / 'other'}]", f"out={run.parent / 'out'}"],
    "sweep": lambda run: [str(run.parent)],
}
"""Commands that only read runs."""
WITHOUT_RUNS = {"audit", "cache"}
NOT_COMMANDS = {"__init__", "__main__", "api"}

NODES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "model": lambda node: {"model": node},
    "loss": lambda node: {"loss": node},
    "optim": lambda node: {"optim": node},
    "scheduler": lambda node: {"scheduler": node},
    "data": lambda node: {"data": node},
    "data.test_on": lambda node: {"data": {"test_on": node}},
    "augment": lambda node: {"augment": {"transforms": [node]}},
    "imbalance": lambda node: {"imbalance": {"transforms": [node]}},
    "callbacks": lambda node: {"callbacks": {"mine": node}},
    "logger": lambda node: {"logger": {"mine": node}},
    "trainer": lambda node: {"trainer": {"strategy": node}},
    "nested": lambda node: {"model": {"_target_": "torch.nn.Sequential", "args": [[node]]}},
}
"""Where a config can name a class."""
ONLY_TRAINED = ("augment", "imbalance")
"""Nodes that only training builds."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image.png").write_bytes(cv2.imencode(".png", picture(0))[1].tobytes())
    for name in ("run", "other"):
        folder = write_run(tmp_path / name, TABLE)
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints/last.ckpt").touch()
        (folder / "checkpoints/best.ckpt").touch()
        job = {"job": int(name == "other"), "overrides": [], "status": "finished", "reason": ""}
        (folder / "job.json").write_text(json.dumps(job))
    return tmp_path / "run"


def execute(
    command: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """Exit code and stderr of a command in this process."""
    module = import_module(f"fracnet.{command}")
    if command != "sweep":
        result = here(getattr(module, command), command, arguments, capsys)
        return result.code, result.err
    code = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["fracnet.sweep", *arguments])
        try:
            module.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, capsys.readouterr().err


def test_every_command_is_covered() -> None:
    modules = {path.stem for path in Path(fracnet.__file__).parent.glob("*.py")}
    assert modules - NOT_COMMANDS == {*BUILDERS, *READERS, *WITHOUT_RUNS}


@pytest.mark.parametrize("command", [*BUILDERS, *READERS])
@pytest.mark.parametrize("written", [None, FORMAT + 1], ids=["unmarked", "newer"])
def test_a_run_folder_of_another_version_is_refused(
    command: str, written: int | None, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {"status": "finished"} | ({FORMAT_KEY: written} if written else {})
    (run / "provenance.json").write_text(json.dumps(content))
    code, error = execute(command, (BUILDERS | READERS)[command](run), capsys)
    assert code == 1
    assert "was written by another version of fracnet" in error
    assert len(error.strip().splitlines()) == 1, error


def add_foreign_class(run: Path, *nodes: str) -> Path:
    """Make nodes of the run's config name a function; returns the folder that it would create."""
    marker = run.parent / "built"
    config = yaml.safe_load((run / "config.yaml").read_text())
    for node in nodes:
        config |= NODES[node]({"_target_": "os.mkdir", "path": str(marker)})
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return marker


@pytest.mark.parametrize("command", BUILDERS)
@pytest.mark.parametrize("node", NODES)
def test_a_class_that_is_not_trusted_is_refused(
    command: str, node: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = add_foreign_class(run, node)
    code, error = execute(command, BUILDERS[command](run), capsys)
    assert not marker.exists()
    assert code == 1
    if command == "train" or node not in ONLY_TRAINED:
        assert "os.mkdir" in error
        assert "trust=true" in error


@pytest.mark.parametrize("command", READERS)
def test_commands_that_only_read_runs_build_nothing(
    command: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = add_foreign_class(run, *NODES)
    execute(command, READERS[command](run), capsys)
    assert not marker.exists()


def test_a_folder_with_only_predictions_has_no_version(tmp_path: Path) -> None:
    folder = tmp_path / "table"
    folder.mkdir()
    TABLE.to_csv(folder / "predictions.csv", index=False)
    assert RunFolder.open(folder).path == folder
    (folder / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(UserError, match="another version"):
        RunFolder.open(folder)
    (folder / "metrics.json").write_text(json.dumps({FORMAT_KEY: FORMAT}))
    assert RunFolder.open(folder).path == folder
