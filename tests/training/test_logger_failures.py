"""A W&B that raises, hangs, exits or cannot be reached costs a run nothing but its tracking."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from helpers import fake_wandb
from helpers.command import CommandResult, run_train
from helpers.tiny_overrides import tiny_overrides
from helpers.wandb_file import read
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fracnet.config.checks import check
from fracnet.data.datamodule import RadiographData
from fracnet.evaluation.predictions import assemble
from fracnet.runs.run_folder import RunFolder, write_json
from fracnet.training.loggers import Identity, RunLoggers
from fracnet.utils.files import config_dir

pytestmark = pytest.mark.usefixtures("without_charts")

NAMES = ("metrics.csv", "metrics.json", "predictions.csv", "checkpoints/best.ckpt")


def compose_config(overrides: list[str]) -> dict[str, Any]:
    with initialize_config_dir(str(config_dir())):
        return cast(
            dict[str, Any], OmegaConf.to_container(compose("train", overrides), resolve=True)
        )


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
def overrides(phantom_overrides: list[str]) -> list[str]:
    return tiny_overrides(*phantom_overrides, epochs=2)


def finished(
    overrides: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> CommandResult:
    result = run_train([*overrides, f"hydra.run.dir={folder}"], capsys)
    assert result.code == 0, result.err
    for name in NAMES:
        assert (folder / name).is_file()
    return result


def test_training_continues_without_wandb(
    overrides: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_wandb.install(monkeypatch, "init raises")
    result = finished([*overrides, "logger.wandb.mode=offline"], tmp_path, capsys)
    (line,) = [line for line in result.err.splitlines() if "W&B" in line]
    assert line.startswith("fracnet: warning: W&B failed to start (RuntimeError: as requested)")


def tracked(folder: Path, timeout: float, mode: str = "offline") -> RunLoggers:
    """All that a run of two epochs hands to its loggers."""
    run = RunFolder(folder)
    write_json(run.provenance, {})
    estimate = {"value": 0.5, "low": 0.4, "high": 0.6}
    split = {"metrics": {"accuracy": estimate}, "per_class": [], "classes": [], "confusion": []}
    selected = {"selected": {"epoch": 1}, "objective": {"name": "accuracy", "value": 0.5}}
    write_json(run.metrics, {"val": split, "test": split, **selected})
    plain = compose_config([f"logger.wandb.timeout={timeout}", f"logger.wandb.mode={mode}"])
    loggers = RunLoggers(check(plain), plain, run)
    for epoch in (1, 2):
        for logger in loggers.loggers:
            logger.log_metrics({"epoch": epoch, "lr": 0.1}, step=epoch)
        time.sleep(0.2)
    loggers.log_results(*small_results())
    loggers.close("finished")
    return loggers


@pytest.fixture
def _identity(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = Identity("1234", "salt", "a name", None, False, {"model": "tiny"}, [])
    monkeypatch.setattr(Identity, "of", lambda folder: identity)


@pytest.mark.usefixtures("_identity")
@pytest.mark.parametrize(
    ("fault", "parts"),
    [
        ("nowhere", []),
        ("init raises", ["to start", "RuntimeError: as requested"]),
        ("init exits", ["to start", "SystemExit"]),
        ("log raises", ["to log metrics", "RuntimeError: as requested"]),
        ("log exits", ["to log metrics", "SystemExit"]),
        ("log disk", ["to log metrics", "No space left on device"]),
        ("image raises", ["to log tables and figures", "as requested"]),
        ("finish raises", ["to finish", "as requested"]),
        ("init hangs", ["logger.wandb.timeout=1"]),
        ("log hangs", ["logger.wandb.timeout=1"]),
        ("finish hangs", ["logger.wandb.timeout=1"]),
    ],
)
def test_any_failure_is_reported_in_one_line_and_costs_no_more_than_the_timeout(
    fault: str,
    parts: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = fake_wandb.install(monkeypatch, fault)
    before = time.monotonic()
    tracked(tmp_path, timeout=1 if "hangs" in fault else 60)
    assert time.monotonic() - before < 15
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == bool(parts), lines
    for part in parts:
        assert lines[0].startswith("fracnet: warning: W&B ")
        assert part in lines[0]
    if fault == "nowhere":
        assert [row["epoch"] for row in run.rows[:2]] == [1, 2]
        assert run.summary["test/accuracy_high"] == 0.6
        assert run.exit_code == 0


@pytest.mark.usefixtures("_identity")
def test_a_file_in_place_of_the_wandb_folder_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wandb").write_text("a file in its place")
    tracked(tmp_path, timeout=60)
    (line,) = capsys.readouterr().err.splitlines()
    assert "could not be started" in line


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The address of a server that accepts connections and never answers."""
    server, connections = socket.create_server(("127.0.0.1", 0)), []
    server.settimeout(0.2)
    done = threading.Event()

    def accept() -> None:
        while not done.is_set():
            with contextlib.suppress(TimeoutError):
                connections.append(server.accept()[0])

    thread = threading.Thread(target=accept)
    thread.start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    done.set()
    thread.join()
    for opened in (server, *connections):
        opened.close()


def test_a_server_that_never_answers_costs_seconds_and_the_run_is_recorded_offline(
    silent_server: str,
    overrides: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", silent_server)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.delenv("WANDB_MODE")
    more = ["logger.wandb.mode=online", "logger.wandb.timeout=10"]
    result = finished([*overrides, *more], tmp_path, capsys)
    assert "the run is kept offline" in result.err
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    stored = read(path)
    assert [row["epoch"] for row in stored.history if "train/loss" in row] == [1, 2]
    assert "test/macro_auc_low" in stored.summary
    assert stored.exit_code == 0


class Unauthorized(BaseHTTPRequestHandler):
    """Answers 401 to whatever it receives."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b'{"errors": [{"message": "user is not logged in"}]}'
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def unauthorized_server() -> Iterator[str]:
    """The address of a server that knows no account."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Unauthorized) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def no_server() -> str:
    """An address at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.usefixtures("_identity")
@pytest.mark.parametrize("server", ["unauthorized_server", "no_server", "silent_server"])
def test_a_run_that_cannot_go_online_is_recorded_in_full(
    server: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every record is in the file that `wandb sync` uploads later, not only the file itself."""
    monkeypatch.setenv("WANDB_BASE_URL", request.getfixturevalue(server))
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    before = time.monotonic()
    tracked(tmp_path / "online", timeout=10, mode="online")
    assert time.monotonic() - before < 60
    result = capsys.readouterr()
    (warning,) = [line for line in result.err.splitlines() if "W&B" in line]
    assert "W&B failed to go online" in warning
    assert warning.endswith("the run is kept offline.")
    assert "wandb sync" in result.out
    (path,) = (tmp_path / "online").glob("wandb/offline-run-*/*.wandb")
    assert path.parent.name in result.out
    deadline = time.monotonic() + 30
    while (stored := read(path)).exit_code is None and time.monotonic() < deadline:
        time.sleep(0.2)  # W&B's own process closes the file after `finish` has returned
    assert [row["epoch"] for row in stored.history] == [1, 2]
    for split in ("val", "test"):
        for table in ("confusion_matrix", "roc", "precision_recall"):
            assert f"{split}/{table}_table/path" in stored.history[-1]
    assert stored.summary["test/accuracy_high"] == 0.6
    assert stored.config["image_size"] == 224
    assert stored.exit_code == 0


def test_training_runs_without_a_logger(
    overrides: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    result = finished([*overrides, "logger=none"], tmp_path, capsys)
    assert "W&B" not in result.out + result.err
    assert not (tmp_path / "wandb").exists()


@pytest.mark.parametrize(
    ("environment", "key", "mode"),
    [
        ({}, None, "offline"),
        ({"WANDB_MODE": "online"}, None, "online"),
        ({"WANDB_MODE": "dryrun"}, None, "offline"),
        ({"WANDB_MODE": "online"}, "offline", "offline"),
        ({"WANDB_MODE": "disabled"}, "online", "online"),
        ({"WANDB_SWEEP_ID": "abc"}, None, "online"),
        ({"WANDB_SWEEP_ID": "abc", "WANDB_MODE": "offline"}, None, "offline"),
    ],
)
def test_the_config_comes_before_the_environment(
    environment: dict[str, str], key: str | None, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    logger = check(compose_config([f"logger.wandb.mode={key or 'null'}"])).logger
    assert logger.wandb is not None
    assert logger.wandb.mode == mode
    assert logger.online == (mode == "online")


def test_an_unknown_wandb_mode_in_the_environment_is_rejected(
    overrides: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "onlin")
    result = run_train(overrides, capsys)
    assert result.code == 1
    assert "WANDB_MODE=onlin; allowed there: offline, online, disabled" in result.err
