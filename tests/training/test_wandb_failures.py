"""A W&B that raises, hangs, exits or is not reachable costs a run nothing but its tracking."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from helpers.command import Told, train_here
from helpers.tiny_words import tiny_words
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fracnet.config.schema import check
from fracnet.data.datamodule import RadiographData
from fracnet.evaluation.predictions import assemble
from fracnet.runs.run_folder import RunFolder, write_json
from fracnet.training.wandb_tracker import Job, Tracker
from fracnet.utils.files import config_dir

TESTS = Path(__file__).parents[1]


def composed(words: list[str]) -> dict[str, Any]:
    with initialize_config_dir(str(config_dir())):
        return cast(dict[str, Any], OmegaConf.to_container(compose("train", words), resolve=True))


def small_results() -> tuple[pd.DataFrame, RadiographData]:
    """Predictions of four images, and the images."""
    rows = pd.DataFrame(
        {"path": list("wxyz"), "split": ["val", "val", "test", "test"], "label": list("abab")}
    )
    table = assemble(rows, ("a", "b"), np.zeros((4, 2)))
    cache = SimpleNamespace(images=np.zeros((4, 8, 8), np.uint8))
    data = SimpleNamespace(manifest=SimpleNamespace(table=rows), cache=cache)
    return table, cast(RadiographData, data)


@pytest.fixture(scope="module")
def words(phantom_words: list[str]) -> list[str]:
    return tiny_words(*phantom_words, epochs=2)


def finished(words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> Told:
    told = train_here([*words, f"hydra.run.dir={folder}"], capsys)
    assert told.code == 0, told.err
    for name in ("metrics.csv", "metrics.json", "predictions.csv", "checkpoints/best.ckpt"):
        assert (folder / name).is_file()
    return told


def test_training_goes_on_without_wandb(
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS / "fake_wandb"))
    monkeypatch.setenv("FAKE_WANDB", "init raises")
    told = finished([*words, "logger.mode=offline"], tmp_path, capsys)
    (line,) = [line for line in told.err.splitlines() if "W&B" in line]
    assert line.startswith("fracnet: warning: W&B failed to start (RuntimeError: as it was told)")


def tracked(folder: Path, timeout: float) -> None:
    """All that a run of two epochs tells its tracker."""
    run = RunFolder(folder)
    write_json(run.provenance, {})
    estimate = {"value": 0.5, "low": 0.4, "high": 0.6}
    split = {"metrics": {"accuracy": estimate}, "per_class": [], "classes": [], "confusion": []}
    selected = {"selected": {"epoch": 1}, "objective": {"name": "accuracy", "value": 0.5}}
    write_json(run.metrics, {"val": split, "test": split, **selected})
    plain = composed([f"logger.timeout={timeout}", "logger.mode=offline"])
    tracker = Tracker(check(plain), plain, run)
    for epoch in (1, 2):
        tracker.epoch({"epoch": epoch, "lr": 0.1})
        time.sleep(0.2)
    tracker.results(*small_results())
    tracker.finish("finished")


@pytest.mark.parametrize(
    ("fault", "parts"),
    [
        ("nowhere", []),
        ("init raises", ["to start", "RuntimeError: as it was told"]),
        ("log raises", ["to log an epoch", "RuntimeError: as it was told"]),
        ("log disk", ["to log an epoch", "No space left on device"]),
        ("image raises", ["to log tables and charts", "as it was told"]),
        ("finish raises", ["to finish", "as it was told"]),
        ("init exits", ["ended unexpectedly"]),
        ("log exits", ["ended unexpectedly"]),
        ("init hangs", ["logger.timeout=2"]),
        ("log hangs", ["logger.timeout=2"]),
        ("finish hangs", ["logger.timeout=2"]),
    ],
)
def test_whatever_goes_wrong_is_told_in_one_line(
    fault: str,
    parts: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS / "fake_wandb"))
    monkeypatch.setenv("FAKE_WANDB", fault)
    monkeypatch.setattr(Job, "current", lambda: Job((), {"model": "tiny"}, None))
    # A process that only has to start may take longer than a hanging one is waited for.
    tracked(tmp_path, timeout=2 if "hangs" in fault else 60)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == bool(parts), lines
    for part in parts:
        assert lines[0].startswith("fracnet: warning: W&B ")
        assert part in lines[0]


def test_folder_that_cannot_be_written_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Job, "current", lambda: Job((), {"model": "tiny"}, None))
    (tmp_path / "wandb").write_text("a file in its place")
    tracked(tmp_path, timeout=60)
    (line,) = capsys.readouterr().err.splitlines()
    assert "could not be started" in line


def test_csv_alone(
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    told = finished([*words, "logger=csv"], tmp_path, capsys)
    assert "W&B" not in told.out + told.err
    assert not (tmp_path / "wandb").exists()


@pytest.mark.parametrize(
    ("environment", "key", "mode"),
    [
        (None, None, "offline"),
        ("online", None, "online"),
        ("dryrun", None, "offline"),
        ("online", "offline", "offline"),
        ("disabled", "online", "online"),
    ],
)
def test_the_config_comes_before_the_environment(
    environment: str | None, key: str | None, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if environment:
        monkeypatch.setenv("WANDB_MODE", environment)
    assert check(composed([f"logger.mode={key or 'null'}"])).logger.mode == mode


def test_environment_that_says_nonsense(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "onlin")
    told = train_here(words, capsys)
    assert told.code == 1
    assert (
        "the environment has WANDB_MODE=onlin; it may hold offline, online or disabled" in told.err
    )
