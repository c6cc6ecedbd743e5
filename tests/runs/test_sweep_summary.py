"""A sweep's table comes from its folders: the best job, and the displayed test metrics."""

import csv
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.jobs import add_job

from fracnet.runs.run_folder import with_format
from fracnet.runs.sweep_summary import collect
from fracnet.sweep import main
from fracnet.training.sweep_plan import job_folders
from fracnet.utils.errors import UserError
from fracnet.utils.processes import this_process


def stored(sweep: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((sweep / "sweep.json").read_text())
    return content


def test_the_best_job_has_the_highest_metric_and_alone_shows_its_test(tmp_path: Path) -> None:
    for number, value in enumerate([0.7, 0.9, 0.8]):
        add_job(tmp_path, number, ["model=tiny", f"optim.lr={10.0**-number}"], value)
    content = collect(tmp_path)
    assert content == stored(tmp_path)
    assert content["best"] == [1]
    assert content["better"] == "larger"
    assert content["swept"] == ["optim.lr"]
    assert [bool(job["test"]) for job in content["jobs"]] == [False, True, False]
    assert [job["epochs"] for job in content["jobs"]] == [3, 3, 3]


def test_the_best_loss_is_the_lowest(tmp_path: Path) -> None:
    for number, value in enumerate([0.7, 0.9]):
        add_job(tmp_path, number, [f"optim.lr={number}"], value, objective="loss")
    content = collect(tmp_path)
    assert (content["best"], content["better"]) == ([0], "smaller")


def test_ties_go_to_the_first_job_and_name_the_others(tmp_path: Path) -> None:
    for number, value in enumerate([0.5, 0.9, 0.9, 0.9]):
        add_job(tmp_path, number, [f"optim.lr={number}"], value)
    content = collect(tmp_path)
    assert (content["best"], content["ties"]) == ([1], [2, 3])


def test_jobs_without_a_metric_cannot_be_best(tmp_path: Path) -> None:
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


def test_a_sweep_of_failed_jobs_has_no_best(tmp_path: Path) -> None:
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


def test_every_display_of_test_metrics_is_recorded(tmp_path: Path) -> None:
    for number, value in enumerate([0.7, 0.9]):
        add_job(tmp_path, number, [f"optim.lr={number}"], value)
    collect(tmp_path)
    collect(tmp_path, "all")
    content = collect(tmp_path)
    assert [(view["show_test"], view["jobs"]) for view in content["test_views"]] == [
        ("best", [1]),
        ("all", [0, 1]),
        ("best", [1]),
    ]
    assert all(view["when"] and view["command"] for view in content["test_views"])
    assert [bool(job["test"]) for job in content["jobs"]] == [False, True]


def test_the_mean_over_folds_chooses_the_setting(tmp_path: Path) -> None:
    values = {"1e-3": [0.6, 0.95], "1e-2": [0.8, 0.9]}  # the best fold is not in the best setting
    number = 0
    for lr, scores in values.items():
        for fold, value in enumerate(scores):
            overrides = ["data.folds=2", f"data.fold={fold}", f"optim.lr={lr}"]
            add_job(tmp_path, number, overrides, value)
            number += 1
    content = collect(tmp_path)
    assert content["best"] == [2, 3]
    first, second = content["configurations"]
    assert first["overrides"] == {"optim.lr": "1e-3"}
    assert second["mean"] == pytest.approx(0.85)
    assert second["sd"] == pytest.approx(0.0707, abs=1e-4)
    assert (second["low"], second["high"]) == (None, None), "folds share their training images"


def test_the_mean_over_seeds_chooses_the_configuration(tmp_path: Path) -> None:
    values = {"1e-3": [0.6, 0.95, 0.6], "1e-2": [0.8, 0.9, 0.85]}
    jobs = [(lr, seed, v) for lr, column in values.items() for seed, v in enumerate(column)]
    for number, (lr, seed, value) in enumerate(jobs):
        add_job(tmp_path, number, [f"seed={seed}", f"optim.lr={lr}"], value)
    content = collect(tmp_path)
    assert content["best"] == [3, 4, 5], "not the job with the luckiest seed"
    _, second = content["configurations"]
    reach = 4.302653 * 0.05 / math.sqrt(3)  # Student's t with two degrees of freedom
    assert (second["mean"], second["sd"]) == pytest.approx((0.85, 0.05))
    assert (second["low"], second["high"]) == pytest.approx((0.85 - reach, 0.85 + reach))
    assert [bool(job["test"]) for job in content["jobs"]] == [False] * 3 + [True] * 3


def test_damaged_curves_of_a_job_do_not_end_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_job(tmp_path, 0, ["optim.lr=1"], 0.4)
    add_job(tmp_path, 1, ["optim.lr=2"], 0.5)
    (curves,) = tmp_path.glob("1*/metrics.csv")
    curves.write_text('epoch,lr\n1,"2\n')
    content = collect(tmp_path)
    assert (content["best"], content["jobs"][1]["epochs"]) == ([1], None)
    assert f"{curves} cannot be read" in capsys.readouterr().out


def test_a_pruned_job_is_listed_and_cannot_win(tmp_path: Path) -> None:
    add_job(tmp_path, 0, ["optim.lr=1"], 0.4)
    add_job(tmp_path, 1, ["optim.lr=2"], status="pruned", reason="after epoch 2 of 9")
    content = collect(tmp_path)
    assert (content["best"], content["jobs"][1]["status"]) == ([0], "pruned")
    assert content["jobs"][1]["value"] is None


def test_several_objectives_give_a_front_and_no_choice(tmp_path: Path) -> None:
    for number, pair in enumerate([(0.9, 0.5), (0.8, 0.7), (0.7, 0.6), (0.5, 0.9), (0.9, 0.4)]):
        objectives = dict(zip(("sensitivity", "loss"), (pair[0], -pair[1]), strict=True))
        add_job(tmp_path, number, [f"optim.lr={number}"], pair[0], objectives=objectives)
    content = collect(tmp_path)
    assert content["pareto"]["front"] == [0, 1, 3]
    assert content["pareto"]["better"] == {"sensitivity": "larger", "loss": "smaller"}
    assert content["best"] == []
    assert not any(job["test"] for job in content["jobs"]), "nothing was chosen"
    html = (tmp_path / "index.html").read_text()
    assert "3 jobs on the Pareto front of 2 objectives." in html


def test_a_setting_that_lacks_a_fold_is_not_chosen(tmp_path: Path) -> None:
    add_job(tmp_path, 0, ["data.fold=0", "optim.lr=1"], 0.99)
    add_job(tmp_path, 1, ["data.fold=1", "optim.lr=1"], status="diverged", reason="nan")
    add_job(tmp_path, 2, ["data.fold=0", "optim.lr=2"], 0.5)
    add_job(tmp_path, 3, ["data.fold=1", "optim.lr=2"], 0.6)
    content = collect(tmp_path)
    assert content["best"] == [2, 3]
    assert [len(setting["values"]) for setting in content["configurations"]] == [1, 2]


def test_job_numbers_order_the_table(tmp_path: Path) -> None:
    for number in range(11):
        add_job(tmp_path, number, [f"seed={number}"], 0.5)
    assert [job["job"] for job in collect(tmp_path)["jobs"]] == list(range(11))


def test_a_folder_that_is_not_that_of_one_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a sweep folder"):
        collect(tmp_path)
    for name in ("one", "two"):
        add_job(tmp_path / name, 0, [], 0.5)
        (tmp_path / name / "plan.json").write_text("{}")
        with pytest.raises(UserError, match=rf"name one: {tmp_path}/one"):
            collect(tmp_path)
        with pytest.raises(UserError, match=rf"name one: {tmp_path / name}\."):
            collect(tmp_path / name / "0")
    assert not list(tmp_path.rglob("sweep.json"))


def test_folders_that_share_a_job_number_are_refused(tmp_path: Path) -> None:
    for number in range(2):
        add_job(tmp_path / "sweep", number, [f"seed={number}"], 0.5)
    (tmp_path / "sweep/plan.json").write_text("{}")
    collect(tmp_path / "sweep")
    shutil.copytree(tmp_path / "sweep/1", tmp_path / "sweep/1_backup")
    with pytest.raises(UserError, match=r"folders 1, 1_backup share the job number 1"):
        collect(tmp_path / "sweep")
    with pytest.raises(UserError, match=r"folders 1, 1_backup"):
        job_folders(tmp_path / "sweep")  # of a sweep that is resumed
    for name in ("one", "two"):  # older sweeps have no plan
        add_job(tmp_path / "older" / name, 0, [], 0.5)
    with pytest.raises(UserError, match=r"folders one/0, two/0 share the job number 0"):
        collect(tmp_path / "older")


def test_a_sweep_without_a_finished_job_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_job(tmp_path, 0, ["optim.lr=1"], status="failed", reason="no such thing")
    add_job(tmp_path, 1, ["optim.lr=2"], status="running")
    monkeypatch.setattr(sys, "argv", ["fracnet.sweep", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    printed = capsys.readouterr()
    assert "no such thing" in printed.out, "the table is printed all the same"
    assert printed.err.startswith("fracnet: error: no job of ")
    add_job(tmp_path, 2, ["optim.lr=3"], 0.5)
    main()


def test_a_mistyped_key_of_the_command_is_no_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fracnet.sweep", "resum=runs/sweep_a"])
    with pytest.raises(SystemExit):
        main()
    assert "Did you mean 'resume'?" in capsys.readouterr().err


def test_a_killed_sweep_shows_the_jobs_that_never_started(tmp_path: Path) -> None:
    add_job(tmp_path, 0, ["optim.lr=1", "seed=3"], 0.4)
    add_job(tmp_path, 1, ["optim.lr=2", "seed=3"], status="running")
    job = json.loads((tmp_path / "1/job.json").read_text())
    gone = this_process() | {"start": "another"}
    (tmp_path / "1/job.json").write_text(json.dumps(job | {"process": gone}))
    grid = {"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper", "params": None}
    task = {"task": ["optim.lr=1,2,3", "seed=3"]}
    (tmp_path / "multirun.yaml").write_text(
        json.dumps({"hydra": {"sweeper": grid, "overrides": task}})
    )
    jobs = collect(tmp_path)["jobs"]
    assert [(job["status"], job["reason"]) for job in jobs] == [
        ("finished", ""),
        ("interrupted", "the process died"),
        ("not run", "the sweep stopped before this job started"),
    ]
    assert jobs[2]["overrides"] == {"optim.lr": "3"}
    assert json.loads((tmp_path / "1/job.json").read_text())["status"] == "interrupted"


def test_a_job_killed_after_its_run_finished_is_finished(tmp_path: Path) -> None:
    add_job(tmp_path, 0, ["optim.lr=1"], 0.4)
    job = json.loads((tmp_path / "0/job.json").read_text())
    (tmp_path / "0/job.json").write_text(json.dumps(job | {"status": "running"}))
    finished = with_format({"status": "finished"})
    (tmp_path / "0/provenance.json").write_text(json.dumps(finished))
    assert collect(tmp_path)["jobs"][0]["status"] == "finished"


def test_a_value_that_begins_like_a_formula_is_text_in_the_table(tmp_path: Path) -> None:
    for number, name in enumerate(["=1+1", "-0.5"]):
        add_job(tmp_path, number, [f"model.name={name}"], 0.4)
    collect(tmp_path)
    rows = list(csv.DictReader((tmp_path / "sweep.csv").read_text().splitlines()))
    assert [row["model.name"] for row in rows] == ["'=1+1", "-0.5"]
