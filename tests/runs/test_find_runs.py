"""Which folders a pattern names, and which runs are one configuration."""

from pathlib import Path

import pytest
from helpers.run_folders import table_of, write_run

from fracnet.runs.find_runs import apart, find, grouped
from fracnet.utils.errors import UserError

TABLE = table_of(1.0, count=8)


def names(configurations: list) -> list[str]:
    return [configuration.name for configuration in configurations]


def test_unfinished_runs_and_other_folders_are_left_out_with_the_reason(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/a", TABLE)
    write_run(tmp_path / "runs/b", TABLE, status="running")
    write_run(tmp_path / "runs/c", TABLE, status="diverged")
    (tmp_path / "runs/notes").mkdir()
    (tmp_path / "runs/comparison_1").mkdir()
    (tmp_path / "runs/comparison_1/comparison.json").write_text("{}")
    (tmp_path / "runs/file.txt").write_text("x")
    runs, left = find([str(tmp_path / "runs/*")])
    assert [run.name for run in runs] == ["runs/a"]
    assert [(run.name, run.reason) for run in left] == [
        ("runs/b", "still running, or its process has ended without a word"),
        ("runs/c", "diverged"),
        ("runs/notes", "no folder of a run"),
    ]


def test_a_sweep_stands_for_its_jobs_in_their_order_and_each_is_taken_once(tmp_path: Path) -> None:
    for number in (0, 2, 10):
        job = write_run(tmp_path / f"sweep/{number}", TABLE)
        (job / "job.json").write_text("{}")
    sweep = tmp_path / "sweep"
    runs, left = find([str(sweep), str(sweep / "1*")])
    assert [run.name for run in runs] == ["sweep/0", "sweep/2", "sweep/10"]
    assert not left


def test_a_pattern_that_names_nothing_or_a_broken_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"runs=.*nope/\* matches nothing; allowed: folders"):
        find([str(tmp_path / "nope/*")])
    write_run(tmp_path / "a", TABLE.drop(columns="label"))
    with pytest.raises(UserError, match=r"a/predictions.csv: .*'label'"):
        find([str(tmp_path / "a")])


def test_a_patient_in_val_and_in_test_is_refused_with_the_run_named(tmp_path: Path) -> None:
    table = TABLE.assign(patient=[f"p{i}" for i in range(len(TABLE))])
    write_run(tmp_path / "a", table)
    assert len(find([str(tmp_path / "a")])[0]) == 1
    first = {split: table.index[table["split"] == split][0] for split in ("val", "test")}
    table.loc[first["test"], "patient"] = table.loc[first["val"], "patient"]
    write_run(tmp_path / "b", table)
    with pytest.raises(UserError, match=r"b/predictions.csv: 1 row of test is of patients"):
        find([str(tmp_path / "*")])


def test_runs_that_differ_in_seed_and_fold_alone_are_one_configuration(tmp_path: Path) -> None:
    for number in range(3):
        paths = {"data_dir": f"/elsewhere/{number}", "data": {"folds": 3, "fold": number}}
        write_run(tmp_path / f"a{number}", TABLE, seed=number, config=paths)
    for number in range(2):
        other = {"optim": {"lr": 0.01}, "data": {"folds": 3}}
        write_run(tmp_path / f"b{number}", TABLE, seed=number, config=other)
    runs, _ = find([str(tmp_path / "*")])
    found = grouped(runs)
    assert names(found) == ["lr=0.1", "lr=0.01"]
    assert [len(configuration.runs) for configuration in found] == [3, 2]
    assert found[1].differs == {"optim.lr": 0.01}
    assert names(apart(runs)) == [run.name for run in runs]


def test_a_name_is_of_the_few_keys_that_tell_configurations_apart(tmp_path: Path) -> None:
    for name, target, lr in (("a", "x.ResNet", 1), ("b", "x.ResNet", 2), ("c", "x.Vgg", 1)):
        model = {"_target_": target, f"only_{name[0]}": 1} if name == "c" else {"_target_": target}
        write_run(tmp_path / name, TABLE, config={"model": model, "optim": {"lr": lr}})
    found = grouped(find([str(tmp_path / "*")])[0])
    assert names(found) == ["model=ResNet lr=1", "model=ResNet lr=2", "model=Vgg lr=1"]
    assert found[2].differs["model.only_c"] == 1


def test_a_run_without_config_stands_by_itself(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (write_run(tmp_path / "x" / name, TABLE) / "config.yaml").unlink()
    write_run(tmp_path / "x/c", TABLE)
    assert names(grouped(find([str(tmp_path / "x/*")])[0])) == ["x/a", "x/b", "lr=0.1"]
