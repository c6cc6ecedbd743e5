"""`python -m fracnet.compare` from the command line, on folders as training leaves them."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers.command import CommandResult, in_new_process, run_command
from helpers.figures import check_pair, has_color, text_of
from helpers.run_folders import table_of, write_run

from fracnet.compare import compare
from fracnet.report import plots


def run_compare(overrides: Sequence[str], capsys: pytest.CaptureFixture[str]) -> CommandResult:
    """`python -m fracnet.compare OVERRIDES` without the cost of a new process."""
    return run_command(compare, "compare", overrides, capsys)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two configurations of five seeds, and a run that is not finished."""
    monkeypatch.chdir(tmp_path)
    for number in range(5):
        write_run(tmp_path / f"runs/a{number}", table_of(1.8, number), seed=number)
        slow = {"optim": {"lr": 0.01}}
        write_run(tmp_path / f"runs/b{number}", table_of(0.6, 9 + number), seed=number, config=slow)
    write_run(tmp_path / "runs/c", table_of(1.0), status="running")
    return tmp_path / "runs"


def test_the_pointing_games_of_heatmaps_are_compared(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = table_of(1.8, 0)["path"][table_of(1.8, 0)["split"] == "test"].tolist()
    for name, share in (("a", 0.8), ("b", 0.2)):
        for number in range(5):
            rng = np.random.default_rng(number)
            drawn = test[:40] if number else test[10:50]  # each run scores images of its own
            hits = {path: int(rng.random() < share) for path in drawn}
            folder = runs / f"{name}{number}/explain"
            folder.mkdir()
            (folder / "explain.json").write_text(json.dumps({"localization": {"hits": hits}}))
    result = run_compare(["runs='runs/*'", "resamples=100", "out=out"], capsys)
    assert result.code == 0, result.err
    out = " ".join(result.out.split())
    assert "Pointing game of the heatmaps on 30 annotated test images: lr=0.1 0." in out
    assert "lr=0.01 minus lr=0.1: -0." in out
    content = json.loads((runs.parent / "out/comparison.json").read_text())["localization"]
    (row,) = content["differences"]
    assert row["kind"] == "configuration"
    assert row["verdict"] == "worse"
    assert row["low"] < -0.5
    assert row["high"] < -0.3
    assert "Pointing game of the heatmaps" in (runs.parent / "out/index.html").read_text()
    (runs / "a0/explain/explain.json").unlink()
    result = run_compare(["runs=[runs/a0,runs/b0]", "resamples=100", "out=one"], capsys)
    assert "Pointing game" not in result.out


def test_compare_writes_tables_sentences_files_and_figures(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["runs='runs/*'", "metric=accuracy", "margin=0.05", "resamples=300", "out=out"]
    result = run_compare(overrides, capsys)
    assert result.code == 0, result.err
    out = " ".join(result.out.split())
    for part in (
        "skipped: runs/c: still running",
        "accuracy, by validation; test: 120 images of 60 patients",
        "lr=0.1 5",
        "its validation metric is optimistic",
        "is better than lr=0.01 (runs/b",
        "lr=0.1 is better than lr=0.01 by",
        "tests: permutation by patient",
        "For research use only",
    ):
        assert part in out, part
    tables = [line for line in result.out.splitlines() if str(runs.parent) not in line]
    assert max(len(line) for line in tables[1:]) <= 80
    folder = runs.parent / "out"
    content = json.loads((folder / "comparison.json").read_text())
    assert content["configurations"][0]["verdict"] == "worse"
    assert content["skipped"][0]["run"] == "runs/c"
    assert [c["differs"] for c in content["candidates"]] == [{"optim.lr": 0.1}, {"optim.lr": 0.01}]
    assert content["candidates"][0]["runs"][3]["seed"] == 3
    with (folder / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == ["model", "configuration"]
    assert [(row["agree"], row["alpha"]) for row in rows] == [("True", "0.05")] * 2
    assert content["planning"]["power"] == 0.8
    assert float(rows[0]["value"]) == content["models"][0]["value"]
    assert (folder / "standings.csv").read_text().count("\n") == 3
    assert "lr=0.1 is better than lr=0.01." in (folder / "index.html").read_text()
    assert "\n  index.html\n" in result.out
    for kind in ("models", "configurations"):
        for end in ("png", "svg"):
            assert (folder / f"figures/differences_{kind}.{end}").stat().st_size > 0
    text = text_of(folder / "figures/differences_models.svg")
    assert f"  p = {content['models'][0]['holm']:.3f}" in text
    assert " 120 images of 60 patients." in " ".join(text.split())


@pytest.mark.parametrize(
    ("metric", "views", "seed"), [("log_loss", 2, 11), ("balanced_accuracy", 1, 6)]
)
def test_the_figure_fills_only_significant_differences(
    metric: str,
    views: int,
    seed: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Test and interval disagree on these two runs; each way round once."""
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs/a", table_of(1.6, seed, 40, views))
    write_run(tmp_path / "runs/b", table_of(0.8, seed + 100, 40, views), config={"x": 1})
    overrides = ["runs='runs/*'", f"metric={metric}", "resamples=200", "out=out"]
    result = run_compare(overrides, capsys)
    assert result.code == 0, result.err
    (row,) = json.loads((tmp_path / "out/comparison.json").read_text())["models"]
    assert (row["verdict"], row["agree"]) == ("undecided", False)
    folder = tmp_path / "out/figures"
    paths = [folder / f"differences_models.{end}" for end in ("png", "svg")]
    image = check_pair(paths, "differences_models")
    assert not has_color(image, plots.BLUE)
    assert not has_color(image, plots.VERMILION)
    rows = "80 images of 40 patients." if views == 2 else "lies outside and p < 0.05. 40 images."
    assert rows in " ".join(text_of(paths[1]).split())


def test_single_runs_are_models_and_configurations_are_not_compared(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["runs=[runs/a0,runs/a1,runs/b0]", "seeds=apart", "resamples=200"]
    result = run_compare([*overrides, "reference=runs/b0", "margin=0.1"], capsys)
    assert result.code == 0, result.err
    out = " ".join(result.out.split())
    assert "minus that of runs/b0: models, one run of each" in out
    assert (
        "that takes 5 or more runs of each with different seeds, and here each is one run." in out
    )
    assert "Holm" in out
    assert "intervals and tests: Obuchowski, paired." in out
    assert "; p (Holm) " in out
    (folder,) = runs.glob("comparison_*")
    text = text_of(folder / "figures/differences_models.svg")
    assert "  p (Holm) " in text
    assert "  p = " not in text
    assert "filled: 0 lies outside and p (Holm) < 0.05." in " ".join(text.split())
    assert (runs / Path(result.out.split("Comparison: ")[1].split()[0]).name).is_dir()


def test_levels_use_frozen_decisions(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["runs=[runs/a0,runs/b0]", "metric=sensitivity", "level=study", "out=out"]
    result = run_compare([*overrides, "decisions=frozen", "resamples=200"], capsys)
    assert result.code == 0, result.err
    assert "sensitivity (abnormal), by validation; test: 60 studies" in result.out
    assert (runs / "a0/decisions.json").is_file()
    content = json.loads((runs.parent / "out/comparison.json").read_text())
    raw = run_compare([*overrides[:3], "out=raw", "resamples=200"], capsys)
    assert raw.code == 0, raw.err
    other = json.loads((runs.parent / "raw/comparison.json").read_text())
    assert [s["value"] for s in content["standings"]] != [s["value"] for s in other["standings"]]


MISTAKES = [
    ([], ["name some runs", "runs='runs/*'"]),
    (["runs=nope"], ["runs=nope matches nothing"]),
    (["runs=runs/a0"], ["only one finished run, runs/a0"]),
    (["runs=[runs/a0,runs/c]"], ["only one finished run", "runs/c: still running"]),
    (["runs=[runs/a0,runs/a1]"], ["2 runs of one configuration", "seeds=apart"]),
    (["runs=[runs/a0,runs/b0]", "metric=acc"], ["metric=acc", "accuracy"]),
    (["runs=[runs/a0,runs/b0]", "metric=calibration_error"], ["cannot be compared", "brier"]),
    (["runs=[runs/a0,runs/b0]", "metric=auc", "class_name=normall"], ["Did you mean 'normal'?"]),
    (
        ["runs=[runs/a0,runs/b0]", "class_name=normal"],
        ["class_name=normal needs a metric of one class"],
    ),
    (["runs=[runs/a0,runs/b0]", "reference=x"], ["reference=x is not one of the runs"]),
    (["runs=[runs/a0,runs/b0]", "margin=-1"], ["margin=-1", "greater than 0"]),
    (["runs=[runs/a0,runs/b0]", "pairs=al"], ["pairs=al", "allowed: reference, all"]),
    (["runs=[runs/a0,runs/b0]", "margni=1"], ["'margni'", "Did you mean 'margin=1'?"]),
]


@pytest.mark.parametrize(("overrides", "parts"), MISTAKES, ids=lambda value: " ".join(value)[-40:])
def test_a_mistake_gives_a_one_paragraph_error(
    overrides: list[str], parts: list[str], runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_compare(overrides, capsys)
    assert result.code == 1
    assert result.err.startswith("fracnet: error: ")
    assert result.err.count("\n") == 1, result.err
    for part in parts:
        assert part in result.err
    assert {path.name for path in runs.parent.iterdir()} == {"runs"}


def test_different_test_images_are_an_error_with_their_count(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(runs / "d", table_of(1.0, count=50), config={"image_size": 64})
    result = run_compare(["runs=[runs/a0,runs/d]"], capsys)
    assert result.code == 1
    for part in ("runs/a0: 120 rows", "runs/d: 100 rows", "runs/d lacks 20"):
        assert part in result.err


def test_light_commands_import_nothing_heavy(tmp_path: Path) -> None:
    for verb in ("compare", "ensemble"):
        result = in_new_process([f"fracnet.{verb}", "--help"], tmp_path)
        assert f"python -m fracnet.{verb} runs=" in result.out
        assert "not a medical device" in result.out
        result = in_new_process([f"fracnet.{verb}", "-m", "runs=a,b"], tmp_path)
        assert result.code == 1
        assert "has no -m" in result.err
    assert not list(tmp_path.iterdir())


def test_a_comparison_replaces_no_files_of_a_run(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in (runs / "a0").iterdir())
    result = run_compare(["runs=[runs/a0,runs/b0]", "resamples=100", "out=runs/a0"], capsys)
    assert result.code == 1
    assert "runs/a0 holds config.yaml, as a run does; name another folder" in result.err
    assert sorted(path.name for path in (runs / "a0").iterdir()) == before


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("plan.json", "a sweep"),
        ("sweep.json", "a sweep"),
        ("metrics.json", "an evaluation"),
        ("audit.json", "an audit"),
        ("predictions.json", "a prediction"),
        ("model.onnx", "an exported model"),
    ],
)
def test_a_comparison_replaces_no_page_of_other_results(
    runs: Path, capsys: pytest.CaptureFixture[str], name: str, kind: str
) -> None:
    out = runs.parent / "out"
    out.mkdir()
    (out / name).write_text('{"table": {}}')
    (out / "index.html").write_text("theirs")
    arguments = ["runs=[runs/a0,runs/b0]", "resamples=100", "out=out"]
    result = run_compare(arguments, capsys)
    assert result.code == 1
    assert f"/out holds {name}, as {kind} does; name another folder" in result.err
    assert (out / "index.html").read_text() == "theirs"
    (out / name).unlink()
    for _ in range(2):  # a comparison replaces its own files
        assert run_compare(arguments, capsys).code == 0
