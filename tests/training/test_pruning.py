"""Jobs of a sweep that can no longer win are stopped; real Optuna, on a journal and on SQLite."""

import json
import sqlite3
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.command import run_train
from helpers.tiny_overrides import tiny_overrides

from fracnet.config.checks import check
from fracnet.runs.run_folder import read_mapping
from fracnet.training.sweep_plan import JobRecord
from fracnet.utils.errors import Pruned, UserError

pytestmark = [
    pytest.mark.usefixtures("without_charts"),
    pytest.mark.skipif(find_spec("optuna") is None, reason="needs fracnet[optuna]"),
]
MEDIAN = {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 2, "n_warmup_steps": 0}


def config(**changes: Any) -> Any:
    """What the callback reads of a config."""
    from fracnet.config.schema import Pruning

    plain = {"objective": "macro_auc", "metrics": {}, "pruning": Pruning(**MEDIAN)}
    return SimpleNamespace(**(plain | changes))


def train(sweep: Path, job: int, curve: list[float], start: int = 0, **changes: Any) -> int:
    """Lead a job through the epochs of a curve; how many it had when it ended."""
    from fracnet.training.pruning import Pruning

    folder = sweep / str(job)
    folder.mkdir(exist_ok=True)
    JobRecord(folder, {"job": job}).write("running")
    settings = config(**changes)
    callback, model = Pruning(settings, sweep, folder), SimpleNamespace()
    strategy = SimpleNamespace(broadcast=lambda value: value)
    trainer: Any = SimpleNamespace(is_global_zero=True, max_epochs=len(curve), strategy=strategy)
    callback.on_fit_start(trainer, model)  # type: ignore[arg-type]
    for epoch in range(start, len(curve)):
        trainer.current_epoch = epoch
        callback.on_train_epoch_start(trainer, model)  # type: ignore[arg-type]
        if curve[epoch] < 0:
            return epoch  # the process is killed here
        trainer.callback_metrics = {f"val/{settings.objective}": curve[epoch]}
        callback.on_train_epoch_end(trainer, model)  # type: ignore[arg-type]
    callback.on_train_end(trainer, model)  # type: ignore[arg-type]
    return len(curve)


def test_a_job_below_the_median_stops_before_its_next_epoch(tmp_path: Path) -> None:
    for job, curve in enumerate([[0.6, 0.7, 0.8], [0.5, 0.6, 0.9]]):
        assert train(tmp_path, job, curve) == 3
    with pytest.raises(Pruned, match=r"after epoch 1 of 3, by MedianPruner; .*0\.400") as stop:
        train(tmp_path, 2, [0.4, 0.9, 0.9])
    assert stop.value.value == 0.4
    assert train(tmp_path, 3, [0.6, 0.7, 0.1]) == 3, "after the last epoch there is nothing to stop"


def test_a_loss_is_better_when_it_is_smaller(tmp_path: Path) -> None:
    for job in range(2):
        train(tmp_path, job, [0.6, 0.5], objective="loss")
    assert train(tmp_path, 2, [0.5, 0.4], objective="loss") == 2
    with pytest.raises(Pruned):
        train(tmp_path, 3, [0.7, 0.4], objective="loss")


def test_a_resumed_job_goes_on_with_its_own_record(tmp_path: Path) -> None:
    from fracnet.training.pruning import open_study

    for job in range(2):
        train(tmp_path, job, [0.6, 0.7, 0.8])
    assert train(tmp_path, 2, [0.7, 0.8, -1]) == 2
    assert train(tmp_path, 2, [0.7, 0.8, 0.9], start=1) == 3, "the epoch of last.ckpt again"
    trials = open_study(tmp_path).get_trials()
    assert len(trials) == 3
    assert trials[2].intermediate_values == {0: 0.7, 1: 0.8, 2: 0.9}
    assert trials[2].value == 0.9


def test_several_objectives_are_not_pruned_by_one(phantom_overrides: list[str]) -> None:
    plain = tiny_config([*phantom_overrides, "pruning=asha", "objective=[macro_auc,accuracy]"])
    with pytest.raises(UserError, match=r"objective=\[macro_auc,accuracy\] .*pruning=none"):
        check(plain)


def tiny_config(overrides: list[str]) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from fracnet.utils.files import config_dir

    with initialize_config_dir(str(config_dir())):
        plain: Any = OmegaConf.to_container(compose("train", overrides), resolve=True)
    return dict(plain)


def test_a_search_prunes_and_leaves_out_what_it_pruned(
    phantom_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = tiny_overrides(*phantom_overrides, "scheduler=none", "logger=none", epochs=3)
    search = ["sweeper=optuna", "sweeper.n_trials=3", "optim.lr=tag(log, interval(1e-9, 1e-8))"]
    # Whatever a job reaches in its second epoch is too little.
    pruner = ["pruning=median", "pruning._target_=optuna.pruners.ThresholdPruner"]
    pruner += ["~pruning.n_startup_trials", "+pruning.lower=2"]
    words = [*search, *pruner]
    result = run_train([*overrides, "-m", *words, f"hydra.sweep.dir={tmp_path / 's'}"], capsys)
    assert result.code == 0, result.err
    content = json.loads((tmp_path / "s/sweep.json").read_text())
    assert [job["status"] for job in content["jobs"]] == ["pruned"] * 3
    assert [job["epochs"] for job in content["jobs"]] == [2, 2, 2]
    assert (content["best"], content["objective"]) == ([], None)
    assert (tmp_path / "s/0/checkpoints/best.ckpt").is_file()
    assert read_mapping(tmp_path / "s/0/provenance.json")["status"] == "pruned"
    with sqlite3.connect(tmp_path / "s/optuna.db") as database:
        (finished,) = database.execute(
            "select count(*) from trials where state='COMPLETE'"
        ).fetchone()
    assert finished == 3, "the sampler learns from what the pruned jobs reached"
