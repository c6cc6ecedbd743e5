"""What `fracnet.train` leaves for W&B, read back from the `.wandb` file: whole, killed, failed."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.command import train_here
from helpers.wandb_file import Stored, only, read
from PIL import Image

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def words(phantom_words: list[str]) -> list[str]:
    """A run of a second, beside what W&B takes."""
    return [
        "--config-dir",
        str(TESTS / "user_conf"),
        "model=tiny",
        *phantom_words,
        "image_size=32",
        "data.batch_size=16",
        "data.num_workers=0",
        "trainer.max_epochs=2",
        "optim.lr=0.01",
        "trainer.accelerator=cpu",
        "logger.mode=offline",
    ]


@pytest.fixture(scope="module")
def run(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, trained without any network where the system can take it away."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    alone = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*alone, "true"], capture_output=True).returncode:
        alone = []
    done = subprocess.run(
        [*alone, sys.executable, "-m", "fracnet.train", *words, f"hydra.run.dir={folder}"],
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        cwd=folder.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (folder / "told.txt").write_text(done.stdout)
    (folder / "complained.txt").write_text(done.stderr)
    return folder


@pytest.fixture(scope="module")
def stored(run: Path) -> Stored:
    return read(only(run))


def test_history_is_metrics_csv(run: Path, stored: Stored) -> None:
    curves = pd.read_csv(run / "metrics.csv")
    rows = [
        row for row in stored.history if "train/loss" in row
    ]  # the tables have one of their own
    assert [row["epoch"] for row in rows] == curves["epoch"].tolist() == [1, 2]
    for name in curves.columns:
        assert [row[name] for row in rows] == pytest.approx(curves[name].tolist()), name


def test_summary_holds_figures_with_their_intervals(run: Path, stored: Stored) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    for split in ("val", "test"):
        for name, figure in metrics[split]["metrics"].items():
            assert stored.summary[f"{split}/{name}"] == figure["value"]
            assert stored.summary[f"{split}/{name}_low"] == figure["low"]
            assert stored.summary[f"{split}/{name}_high"] == figure["high"]
    elbow = metrics["test"]["per_class"][0]
    assert stored.summary["test/elbow/sensitivity_low"] == elbow["sensitivity"]["low"]
    assert stored.summary["objective/macro_auc"] == metrics["objective"]["value"]


def test_config_is_resolved_flat_and_says_what_the_run_was_made_from(
    run: Path, stored: Stored
) -> None:
    provenance = json.loads((run / "provenance.json").read_text())
    assert stored.config["optim.lr"] == 0.01
    assert stored.config["model"] == "tiny"
    assert stored.config["data.counts.train"] == 48
    assert stored.config["data.on_bad_file"] == "error"
    assert stored.config["provenance.data_fingerprint"] == provenance["data_fingerprint"]
    assert stored.config["provenance.code.commit"] == provenance["code"].get("commit")
    assert stored.config["provenance.packages.torch"] == provenance["packages"]["torch"]


def table_of(run: Path, stored: Stored, key: str) -> tuple[list[str], list[list[object]]]:
    path = only(run).parent / "files" / str(stored.summary[f"{key}/path"])
    content = json.loads(path.read_text())
    return content["columns"], content["data"]


def test_tables_and_charts_are_those_of_the_run(run: Path, stored: Stored) -> None:
    metrics = json.loads((run / "metrics.json").read_text())["test"]
    columns, rows = table_of(run, stored, "test/per_class")
    assert columns[:5] == ["class", "n", "sensitivity", "sensitivity_low", "sensitivity_high"]
    assert [row[:2] for row in rows] == [[c["class"], c["n"]] for c in metrics["per_class"]]
    _, cells = table_of(run, stored, "test/confusion_matrix_table")
    counts = [int(str(cell[2]).removesuffix(".0")) for cell in cells]
    assert counts == list(np.ravel(metrics["confusion"]))
    for key, x, y in (
        ("roc", "false positive rate", "sensitivity"),
        ("precision_recall", "recall", "precision"),
    ):
        columns, rows = table_of(run, stored, f"test/{key}_table")
        assert columns == ["class", x, y]
        assert {row[0] for row in rows} == set(metrics["classes"])
        chart = stored.config[f"_wandb/visualize/test/{key}"]["panel_config"]
        assert set(chart["fieldSettings"].values()) == set(columns)
    curves = pd.DataFrame(table_of(run, stored, "test/roc_table")[1], columns=["c", "x", "y"])
    for row in metrics["per_class"]:
        points = curves[curves["c"] == row["class"]]
        area = float(np.trapezoid(points["y"].astype(float), points["x"].astype(float)))
        assert area == pytest.approx(row["auc"]["value"])


def test_example_images_are_those_of_the_table(run: Path, stored: Stored) -> None:
    columns, rows = table_of(run, stored, "test/examples")
    table = pd.read_csv(run / "predictions.csv")
    assert 0 < len(rows) <= 24
    for values in rows:
        line = dict(zip(columns, values, strict=True))
        row = table.iloc[int(str(line["row"]).removesuffix(".0"))]
        assert (row["split"], row["label"]) == ("test", line["truth"])
        assert line["probability"] == pytest.approx(row[f"prob_{line['predicted']}"])
        assert str(line["kind"]).startswith(
            "right" if line["truth"] == line["predicted"] else "wrong"
        )
    names = stored.summary["test/example_images/filenames"]
    captions = stored.summary["test/example_images/captions"]
    assert len(names) == len(captions) == len(rows)
    with Image.open(only(run).parent / "files" / names[0]) as image:
        assert (image.size, image.mode) == ((32, 32), "L")


def test_finished_run_is_closed_and_the_closing_lines_say_how_to_see_it(
    run: Path, stored: Stored
) -> None:
    assert stored.exit_code == 0
    assert stored.job_type == "train"
    assert stored.name.startswith("tiny upper_limb_phantom")
    told = (run / "told.txt").read_text()
    place = str(only(run).parent.relative_to(run.parent))
    assert told.splitlines()[-2].split()[:3] == ["wandb", "leet", place]
    assert told.splitlines()[-1].split()[:3] == ["wandb", "sync", place]
    assert (run / "complained.txt").read_text() == ""
    for command in ("leet", "sync"):
        assert subprocess.run(
            [sys.executable, "-m", "wandb", command, "--help"], capture_output=True
        ).stdout.startswith(f"Usage: python -m wandb {command}".encode())


def test_failed_run_has_its_exit_code(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = ["optim.lr=1e30", "scheduler=none", f"hydra.run.dir={tmp_path}"]
    told = train_here([*words, *wild], capsys)
    assert told.code == 1
    assert "diverged" in told.err
    assert read(only(tmp_path)).exit_code == 1


def test_jobs_of_a_sweep_share_a_group_and_nothing_else(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    swept = ["-m", "optim.lr=0.01,0.02", "trainer.max_epochs=1", f"hydra.sweep.dir={tmp_path}/s1"]
    assert train_here([*words, *swept], capsys).code == 0
    jobs = [read(path) for path in sorted(tmp_path.glob("s1/*/wandb/*run-*/*.wandb"))]
    assert [job.group for job in jobs] == ["s1", "s1"]
    assert [job.name for job in jobs] == ["lr=0.01", "lr=0.02"]
    assert [job.config["optim.lr"] for job in jobs] == [0.01, 0.02]
    assert len({job.id for job in jobs}) == 2
    for job in jobs:
        assert [row["epoch"] for row in job.history if "train/loss" in row] == [1]
        assert job.exit_code == 0
        assert "val/macro_auc_low" in job.summary
        assert not [key for key in job.summary if key.startswith("test/")], "show_test=best"


def offspring(pid: int) -> list[int]:
    """A process and all that it has started, the youngest first."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has just ended
    found = [pid]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found[::-1]


@pytest.mark.parametrize(("kill", "code"), [("training", 137), ("everything", None)])
def test_killed_run_keeps_its_history_and_goes_on_with_it(
    kill: str,
    code: int | None,
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    endless = ["trainer.max_epochs=100000", "callbacks.early_stopping=null"]
    job = subprocess.Popen(
        [sys.executable, "-m", "fracnet.train", *words, *endless, f"hydra.run.dir={tmp_path}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def written() -> list[int]:
        paths = list(tmp_path.glob("wandb/*run-*/*.wandb"))
        rows = read(paths[0]).history if paths and paths[0].stat().st_size else []
        return [row["epoch"] for row in rows]

    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(written()) < 3:
        time.sleep(0.2)
    family = offspring(job.pid)
    assert len(family) >= 3, "training, the process that runs wandb, wandb's own server"
    for process in family if kill == "everything" else [job.pid]:
        os.kill(process, signal.SIGKILL)
    job.wait(60)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in family):
        time.sleep(0.2)
    assert not any(Path(f"/proc/{pid}").exists() for pid in family), "nothing is left behind"
    stored = read(only(tmp_path))
    assert stored.exit_code == code
    epochs = [row["epoch"] for row in stored.history]
    assert len(epochs) >= 3
    assert epochs == list(range(1, len(epochs) + 1))
    assert all(math.isfinite(row["val/loss"]) for row in stored.history)

    if kill == "training":
        done = len(pd.read_csv(tmp_path / "metrics.csv"))
        told = train_here([f"resume={tmp_path}", f"trainer.max_epochs={done + 2}"], capsys)
        assert told.code == 0, told.err
        first, second = (read(path) for path in sorted(tmp_path.glob("wandb/*run-*/*.wandb")))
        assert second.id == first.id
        assert second.name == first.name
        assert second.config["model"] == "tiny", "of the run, not of the command that resumes it"
        epochs += [row["epoch"] for row in second.history if "train/loss" in row]
        assert epochs == list(range(1, done + 3))
        assert second.exit_code == 0
