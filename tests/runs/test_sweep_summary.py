"""A sweep's table is made from its folders: who is best, and whose test figures are shown."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.jobs import add_job

from fracnet import sweep
from fracnet.runs.sweep_summary import collect
from fracnet.utils.errors import UserError


def stored(sweep: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((sweep / "sweep.json").read_text())
    return content


def test_best_is_the_largest_figure_and_it_alone_shows_its_test(tmp_path: Path) -> None:
    for number, value in enumerate([0.7, 0.9, 0.8]):
        add_job(tmp_path, number, ["model=tiny", f"optim.lr={10.0**-number}"], value)
    content = collect(tmp_path)
    assert content == stored(tmp_path)
    assert content["best"] == [1]
    assert content["better"] == "larger"
    assert content["swept"] == ["optim.lr"]
    assert [bool(job["test"]) for job in content["jobs"]] == [False, True, False]
    assert [job["epochs"] for job in content["jobs"]] == [3, 3, 3]


def test_a_loss_is_best_where_it_is_smallest(tmp_path: Path) -> None:
    for number, value in enumerate([0.7, 0.9]):
        add_job(tmp_path, number, [f"optim.lr={number}"], value, objective="loss")
    content = collect(tmp_path)
    assert (content["best"], content["better"]) == ([0], "smaller")


def test_of_equals_the_first_counts_and_the_others_are_named(tmp_path: Path) -> None:
    for number, value in enumerate([0.5, 0.9, 0.9, 0.9]):
        add_job(tmp_path, number, [f"optim.lr={number}"], value)
    content = collect(tmp_path)
    assert (content["best"], content["ties"]) == ([1], [2, 3])


def test_jobs_without_a_figure_are_no_candidates(tmp_path: Path) -> None:
    add_job(tmp_path, 0, ["optim.lr=1"], status="failed", reason="no such thing")
    add_job(tmp_path, 1, ["optim.lr=2"], 0.4)
    add_job(tmp_path, 2, ["optim.lr=3"], status="running")
    content = collect(tmp_path)
    assert content["best"] == [1]
    assert [job["status"] for job in content["jobs"]] == ["failed", "finished", "unfinished"]
    rows = list(csv.DictReader((tmp_path / "sweep.csv").read_text().splitlines()))
    assert [row["best"] for row in rows] == ["0", "1", "0"]
    assert rows[0]["reason"] == "no such thing"
    assert rows[0]["test/macro_auc"] == ""
    assert float(rows[1]["test/macro_auc_low"]) > 0


def test_where_all_failed_there_is_no_best(tmp_path: Path) -> None:
    for number in range(2):
        add_job(tmp_path, number, [f"optim.lr={number}"], status="failed", reason="why")
    content = collect(tmp_path)
    assert (content["best"], content["objective"], content["test_views"]) == ([], None, [])


def test_jobs_with_different_objectives_are_not_compared(tmp_path: Path) -> None:
    add_job(tmp_path, 0, ["objective=loss"], 0.4, objective="loss")
    add_job(tmp_path, 1, ["objective=accuracy"], 0.9, objective="accuracy")
    content = collect(tmp_path)
    assert (content["best"], content["objectives"]) == ([], ["accuracy", "loss"])
    assert not any(job["test"] for job in content["jobs"])


def test_every_look_at_the_test_is_on_record(tmp_path: Path) -> None:
    for number, value in enumerate([0.7, 0.9]):
        add_job(tmp_path, number, [f"optim.lr={number}"], value)
    collect(tmp_path)
    collect(tmp_path, "all")
    content = collect(tmp_path)
    assert [(look["show_test"], look["jobs"]) for look in content["test_views"]] == [
        ("best", [1]),
        ("all", [0, 1]),
        ("best", [1]),
    ]
    assert all(look["when"] and look["command"] for look in content["test_views"])
    assert [bool(job["test"]) for job in content["jobs"]] == [False, True]


def test_over_folds_the_mean_chooses_the_setting_and_no_fold(tmp_path: Path) -> None:
    values = {"1e-3": [0.6, 0.95], "1e-2": [0.8, 0.9]}  # the best fold is not in the best setting
    number = 0
    for lr, scores in values.items():
        for fold, value in enumerate(scores):
            words = ["data.folds=2", f"data.fold={fold}", f"optim.lr={lr}"]
            add_job(tmp_path, number, words, value)
            number += 1
    content = collect(tmp_path)
    assert content["best"] == [2, 3]
    first, second = content["folds"]
    assert first["overrides"] == {"optim.lr": "1e-3"}
    assert second["mean"] == pytest.approx(0.85)
    assert second["sd"] == pytest.approx(0.0707, abs=1e-4)
    assert (second["low"], second["high"]) == (0.8, 0.9)


def test_a_setting_that_lacks_a_fold_is_not_chosen(tmp_path: Path) -> None:
    add_job(tmp_path, 0, ["data.fold=0", "optim.lr=1"], 0.99)
    add_job(tmp_path, 1, ["data.fold=1", "optim.lr=1"], status="diverged", reason="nan")
    add_job(tmp_path, 2, ["data.fold=0", "optim.lr=2"], 0.5)
    add_job(tmp_path, 3, ["data.fold=1", "optim.lr=2"], 0.6)
    content = collect(tmp_path)
    assert content["best"] == [2, 3]
    assert [setting["scored"] for setting in content["folds"]] == [1, 2]


def test_job_numbers_order_the_table(tmp_path: Path) -> None:
    for number in range(11):
        add_job(tmp_path, number, [f"seed={number}"], 0.5)
    assert [job["job"] for job in collect(tmp_path)["jobs"]] == list(range(11))


def test_a_folder_without_jobs_or_of_several_sweeps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a sweep folder"):
        collect(tmp_path)
    add_job(tmp_path / "one", 0, [], 0.5)
    add_job(tmp_path / "two", 0, [], 0.5)
    with pytest.raises(UserError, match=r"more than one sweep"):
        collect(tmp_path)
    assert not (tmp_path / "sweep.json").exists()


def test_a_study_of_which_no_job_has_finished_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_job(tmp_path, 0, ["optim.lr=1"], status="failed", reason="no such thing")
    add_job(tmp_path, 1, ["optim.lr=2"], status="running")
    monkeypatch.setattr(sys, "argv", ["fracnet.sweep", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        sweep.main()
    assert stop.value.code == 1
    told = capsys.readouterr()
    assert "no such thing" in told.out, "the table is printed all the same"
    assert told.err.startswith("fracnet: error: none of the 2 jobs in ")
    add_job(tmp_path, 2, ["optim.lr=3"], 0.5)
    sweep.main()
