"""The table of a sweep as it is read: 80 columns, piped, every job accounted for."""

import io
from pathlib import Path

from helpers.jobs import add_job
from rich.console import Console

from fracnet.report.sweep_page import print_sweep
from fracnet.report.tables import EstimateCell
from fracnet.runs.sweep_summary import collect


def printed(sweep: Path, show_test: str = "best") -> str:
    text = io.StringIO()
    print_sweep(Console(file=text, width=80), collect(sweep, show_test), sweep)
    return text.getvalue()


def published_study(sweep: Path) -> None:
    number = 0
    for model in ("custom_cnn", "resnet18"):
        for lr in ("0.0001", "0.001"):
            for size in (16, 32):
                overrides = [f"model={model}", f"optim.lr={lr}", f"data.batch_size={size}"]
                for epochs in (10, 20):
                    job_overrides = [*overrides, f"trainer.max_epochs={epochs}", "seed=0"]
                    add_job(sweep, number, job_overrides, 0.5 + number / 100, epochs=epochs)
                    number += 1


def test_the_published_sweep_fits_into_80_columns(tmp_path: Path) -> None:
    published_study(tmp_path)
    text = printed(tmp_path)
    table = text[: text.index("* marks the best")]
    assert max(len(line) for line in table.splitlines()) <= 80
    assert "custom_cnn" in table
    for name in ("model", "lr", "batch_size", "max_epochs", "status", "epochs", "macro AUC"):
        assert name in table, name
    assert "seed" not in table, "the same in all jobs"
    (best,) = (line for line in table.splitlines() if "*" in line)
    assert best.split() == ["15", "*", "resnet18", "0.001", "32", "20", "finished", "20", "0.650"]
    assert "optimistic" in text
    assert "research use only" in text.lower()


def test_only_the_chosen_job_shows_test_metrics_with_intervals(tmp_path: Path) -> None:
    published_study(tmp_path)
    text = printed(tmp_path)
    test = text[text.index("Test split") :]
    assert "job 15" in test
    assert "job 14" not in test
    assert "shortcut baseline" in test
    assert "Test metrics of job 15 alone, which validation chose." in " ".join(test.split())
    every = printed(tmp_path, "all")
    assert "job 14" in every[every.index("Test split") :]
    assert "second validation" in every


def test_published_metrics_appear_only_with_displayed_test_metrics(
    tmp_path: Path,
) -> None:
    for number in range(3):
        cited = [{"published": "Published accuracy: 0.890 (n = 83)", "ours": f"on x: 0.{number}00"}]
        add_job(tmp_path, number, [f"optim.lr={number}"], 0.5 + number / 10, cited=cited)
    assert "Published accuracy: 0.890 (n = 83). Job 2, on x: 0.200." in printed(tmp_path)
    every = " ".join(printed(tmp_path, "all").split())
    assert "(n = 83). Job 0, on x: 0.000. Job 1, on x: 0.100. Job 2, on x: 0.200." in every


def test_each_reason_is_printed_once_on_one_line(tmp_path: Path) -> None:
    why = "a reason that is longer than one line of eighty columns can hold, with [brackets] in it"
    for number in range(3):
        add_job(tmp_path, number, [f"optim.lr={number}"], status="failed", reason=why)
    add_job(tmp_path, 3, ["optim.lr=3"], status="diverged", reason="nan")
    add_job(tmp_path, 4, ["optim.lr=4"], status="interrupted", reason="by the keyboard")
    add_job(tmp_path, 5, ["optim.lr=5"], status="not run", reason="too late")
    lines = printed(tmp_path).splitlines()
    assert f"jobs 0, 1, 2 failed: {why}" in lines
    assert "job 3 diverged: nan" in lines
    assert "job 4 interrupted: by the keyboard" in lines
    assert "job 5 not run: too late" in lines
    assert "No job finished, so there is nothing to choose from." in lines


def test_a_sweep_of_one_job(tmp_path: Path) -> None:
    add_job(tmp_path, 0, ["optim.lr=1"], 0.5)
    assert printed(tmp_path).startswith("1 job, by validation")


def test_ties_and_folds_are_reported(tmp_path: Path) -> None:
    for number in range(3):
        add_job(tmp_path / "ties", number, [f"optim.lr={number}"], 0.5, objective="loss")
        add_job(tmp_path / "folds", number, [f"data.fold={number}"], 0.5 + number / 10)
    ties = printed(tmp_path / "ties")
    assert "Equally good: jobs 1, 2; the first is chosen." in ties
    assert "smaller is better" in ties
    folds = " ".join(printed(tmp_path / "folds").split())
    assert "mean validation macro AUC over 3 folds: 0.600, SD 0.100, range 0.500 to 0.700." in folds
    assert "Equally good" not in folds
    assert "*" not in folds, "no fold is better than another"
    assert "nothing was chosen" in folds


def test_keys_with_the_same_last_part_are_written_out(tmp_path: Path) -> None:
    for number in range(2):
        overrides = [f"model.dropout={number}", f"head.dropout={number}"]
        add_job(tmp_path, number, overrides, 0.5)
    assert "model.dropout" in printed(tmp_path)


def test_limits_below_zero_are_joined_by_a_word() -> None:
    assert EstimateCell(0.1, -0.1, 0.3).terminal(True) == "0.100\n-0.100 to 0.300"
    assert EstimateCell(0.2, 0.1, 0.3).terminal(True) == "0.200\n0.100-0.300"
