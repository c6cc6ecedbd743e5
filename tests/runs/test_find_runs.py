"""Which folders a pattern matches, and which runs form one configuration."""

from pathlib import Path

import pytest
from helpers.run_folders import table_of, write_run
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from fracnet.runs.find_runs import find_runs, group_by_config, one_per_run
from fracnet.utils.errors import UserError

TABLE = table_of(1.0, count=8)


def names(configurations: list) -> list[str]:
    return [configuration.name for configuration in configurations]


def test_unfinished_runs_and_other_folders_are_skipped_with_the_reason(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/a", TABLE)
    write_run(tmp_path / "runs/b", TABLE, status="running")
    write_run(tmp_path / "runs/c", TABLE, status="diverged")
    (tmp_path / "runs/notes").mkdir()
    (tmp_path / "runs/comparison_1").mkdir()
    (tmp_path / "runs/comparison_1/comparison.json").write_text("{}")
    (tmp_path / "runs/file.txt").write_text("x")
    runs, skipped = find_runs([str(tmp_path / "runs/*")])
    assert [run.name for run in runs] == ["runs/a"]
    assert [(run.name, run.reason) for run in skipped] == [
        ("runs/b", "still running, or its process died"),
        ("runs/c", "diverged"),
        ("runs/notes", "not a run folder"),
    ]


def test_the_folder_of_the_command_itself_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hydra has created it before the pattern `runs/*` is expanded."""
    for name in ("a", "b"):
        write_run(tmp_path / "runs" / name, TABLE)
    own = tmp_path / "runs/comparison_new"
    own.mkdir()
    config = OmegaConf.create({"hydra": {"runtime": {"output_dir": str(own)}}})
    monkeypatch.setattr(HydraConfig.instance(), "cfg", config)
    runs, skipped = find_runs([str(tmp_path / "runs/*")])
    assert [run.name for run in runs] == ["runs/a", "runs/b"]
    assert not skipped


def test_a_sweep_folder_means_its_jobs_in_order_and_each_counts_once(tmp_path: Path) -> None:
    for number in (0, 2, 10):
        job = write_run(tmp_path / f"sweep/{number}", TABLE)
        (job / "job.json").write_text("{}")
    sweep = tmp_path / "sweep"
    runs, skipped = find_runs([str(sweep), str(sweep / "1*")])
    assert [run.name for run in runs] == ["sweep/0", "sweep/2", "sweep/10"]
    assert not skipped


def test_a_pattern_without_matches_or_a_broken_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"runs=.*nope/\* matches nothing; allowed: run folders"):
        find_runs([str(tmp_path / "nope/*")])
    write_run(tmp_path / "a", TABLE.drop(columns="label"))
    with pytest.raises(UserError, match=r"a/predictions.csv: .*'label'"):
        find_runs([str(tmp_path / "a")])


def test_a_patient_in_val_and_test_is_refused_with_the_name_of_the_run(tmp_path: Path) -> None:
    table = TABLE.assign(patient=[f"p{i}" for i in range(len(TABLE))])
    write_run(tmp_path / "a", table)
    assert len(find_runs([str(tmp_path / "a")])[0]) == 1
    first = {split: table.index[table["split"] == split][0] for split in ("val", "test")}
    table.loc[first["test"], "patient"] = table.loc[first["val"], "patient"]
    write_run(tmp_path / "b", table)
    with pytest.raises(UserError, match=r"b/predictions.csv: 1 test row is of patients"):
        find_runs([str(tmp_path / "*")])


def test_runs_that_differ_only_in_seed_and_fold_are_one_configuration(tmp_path: Path) -> None:
    for number in range(3):
        paths = {"data_dir": f"/elsewhere/{number}", "data": {"folds": 3, "fold": number}}
        write_run(tmp_path / f"a{number}", TABLE, seed=number, config=paths)
    for number in range(2):
        other = {"optim": {"lr": 0.01}, "data": {"folds": 3}}
        write_run(tmp_path / f"b{number}", TABLE, seed=number, config=other)
    runs, _ = find_runs([str(tmp_path / "*")])
    configurations = group_by_config(runs)
    assert names(configurations) == ["lr=0.1", "lr=0.01"]
    assert [len(configuration.runs) for configuration in configurations] == [3, 2]
    assert configurations[1].differs == {"optim.lr": 0.01}
    assert names(one_per_run(runs)) == [run.name for run in runs]


def test_names_use_the_few_keys_that_distinguish_configurations(tmp_path: Path) -> None:
    for name, target, lr in (("a", "x.ResNet", 1), ("b", "x.ResNet", 2), ("c", "x.Vgg", 1)):
        model = {"_target_": target, f"only_{name[0]}": 1} if name == "c" else {"_target_": target}
        write_run(tmp_path / name, TABLE, config={"model": model, "optim": {"lr": lr}})
    configurations = group_by_config(find_runs([str(tmp_path / "*")])[0])
    assert names(configurations) == ["model=ResNet lr=1", "model=ResNet lr=2", "model=Vgg lr=1"]
    assert configurations[2].differs["model.only_c"] == 1
    timm = {"_target_": "fracnet.models.backbones.timm_backbone", "name": "resnet18"}
    write_run(tmp_path / "d", TABLE, config={"model": timm, "optim": {"lr": 1}})
    configurations = group_by_config(find_runs([str(tmp_path / name) for name in "cd"])[0])
    assert names(configurations) == ["model=Vgg", "model=resnet18"]
    assert "model.name" not in group_by_config(find_runs([str(tmp_path / "[ac]")])[0])[0].differs


def test_a_run_without_config_is_its_own_configuration(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (write_run(tmp_path / "x" / name, TABLE) / "config.yaml").unlink()
    write_run(tmp_path / "x/c", TABLE)
    assert names(group_by_config(find_runs([str(tmp_path / "x/*")])[0])) == ["x/a", "x/b", "lr=0.1"]
