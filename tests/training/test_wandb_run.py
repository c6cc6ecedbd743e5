"""What a finished run leaves for W&B, read back from the `.wandb` file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.tiny_overrides import tiny_overrides
from helpers.wandb_file import Stored, only, read
from helpers.warm import Warm
from PIL import Image

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def overrides(phantom_overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A run that takes about a second, plus the time of W&B; its images are cached."""
    first = tiny_overrides(*phantom_overrides, "debug=fast", "hydra.run.dir=run")
    folder = tmp_path_factory.mktemp("cached")
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-m", "fracnet.train", *first]
    with Warm(command, env=environment, cwd=folder) as training:
        assert training.wait() == 0
    return tiny_overrides(
        *phantom_overrides, "optim.lr=0.01", "logger.wandb.mode=offline", epochs=2
    )


@pytest.fixture(scope="module")
def run(overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, trained without any network where the system can take it away."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    alone = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*alone, "true"], capture_output=True).returncode:
        alone = []
    done = subprocess.run(
        [*alone, sys.executable, "-m", "fracnet.train", *overrides, f"hydra.run.dir={folder}"],
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        cwd=folder.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (folder / "stdout.txt").write_text(done.stdout)
    (folder / "stderr.txt").write_text(done.stderr)
    return folder


@pytest.fixture(scope="module")
def stored(run: Path) -> Stored:
    return read(only(run))


def test_history_is_metrics_csv(run: Path, stored: Stored) -> None:
    curves = pd.read_csv(run / "metrics.csv")
    rows = [row for row in stored.history if "train/loss" in row]  # the tables have a separate one
    assert [row["epoch"] for row in rows] == curves["epoch"].tolist() == [1, 2]
    for name in curves.columns:
        key = name if "/" in name or name == "epoch" else f"train/{name}"
        assert [row[key] for row in rows] == pytest.approx(curves[name].tolist(), rel=1e-6), name


def test_metrics_are_declared_with_step_and_direction(stored: Stored) -> None:
    assert stored.metrics["val/macro_auc"] == ("epoch", ["max"])
    assert stored.metrics["val/loss"] == ("epoch", ["min"])
    assert stored.metrics["train/*"][0] == "epoch"
    assert stored.summary["status"] == "finished"


def test_summary_holds_metrics_with_their_intervals(run: Path, stored: Stored) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    for split in ("val", "test"):
        for name, estimate in metrics[split]["metrics"].items():
            assert stored.summary[f"{split}/{name}"] == estimate["value"], name
            assert stored.summary[f"{split}/{name}_low"] == estimate["low"]
            assert stored.summary[f"{split}/{name}_high"] == estimate["high"]
    elbow = metrics["test"]["per_class"][0]
    assert stored.summary["test_class/elbow/sensitivity_low"] == elbow["sensitivity"]["low"]
    assert stored.summary["objective/macro_auc"] == metrics["objective"]["value"]


def test_the_config_is_resolved_and_flat_and_holds_provenance(run: Path, stored: Stored) -> None:
    provenance = json.loads((run / "provenance.json").read_text())
    assert stored.config["optim.lr"] == 0.01
    assert stored.config["set/optim/lr"] == 0.01, "W&B cannot filter by a key with a dot"
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


def test_logged_figures_are_those_of_the_folder(run: Path, stored: Stored) -> None:
    names = sorted(path.stem for path in (run / "figures").glob("*.png"))
    assert {"curves", "confusion_matrix_test"} <= set(names)
    for name in names:
        stored_image = only(run).parent / "files" / str(stored.summary[f"figures/{name}/path"])
        with (
            Image.open(stored_image) as stored_figure,
            Image.open(run / f"figures/{name}.png") as figure,
        ):
            np.testing.assert_array_equal(np.asarray(stored_figure), np.asarray(figure))


def test_a_finished_run_is_closed_and_the_commands_to_view_it_are_printed(
    run: Path, stored: Stored
) -> None:
    assert stored.exit_code == 0
    assert stored.job_type == "train"
    assert stored.name.startswith("tiny upper_limb_phantom")
    output = (run / "stdout.txt").read_text()
    place = str(only(run).parent.relative_to(run.parent))
    assert output.splitlines()[-2].split()[:3] == ["wandb", "leet", place]
    assert output.splitlines()[-1].split()[:3] == ["wandb", "sync", place]
    assert (run / "stderr.txt").read_text() == ""
    for command in ("leet", "sync"):
        assert subprocess.run(
            [sys.executable, "-m", "wandb", command, "--help"], capture_output=True
        ).stdout.startswith(f"Usage: python -m wandb {command}".encode())
