"""What a search checks before its first job, and how it chooses conditional keys."""

from importlib.util import find_spec
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from fracnet.config import hydra_cli
from fracnet.config.search import check_search, chosen_at_once, directions
from fracnet.utils.errors import UserError
from fracnet.utils.files import config_dir

needs_optuna = pytest.mark.skipif(find_spec("optuna") is None, reason="needs fracnet[optuna]")
SPACE = "optim.lr=tag(log, interval(1e-5, 1e-2))"


def composed(*overrides: str) -> Any:
    assert hydra_cli  # registers the resolvers
    plain = [word for word in overrides if "(" not in word]
    with initialize_config_dir(str(config_dir())):
        config = compose("train", plain, return_hydra_config=True)
    config.hydra.overrides.task = list(overrides)
    return config


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ([SPACE], ["optim.lr=tag(log, interval(1e-5, 1e-2))", "sweeper=grid", "sweeper=optuna"]),
        (["sweeper=optuna"], ["nothing to choose from", "search=fine_tuning"]),
        (["sweeper=optuna", SPACE, "sweeper.sampler=tep"], ["tep", "Did you mean 'tpe'?"]),
        (["sweeper=optuna", SPACE, "sweeper.n_trials=0"], ["sweeper.n_trials=0", "1 or more"]),
        (["sweeper=optuna", SPACE, "sweeper.sampler=grid"], ["sweeper.sampler=grid", "choice("]),
        (
            ["search=from_scratch", "sweeper.sampler=gp", "objective=[accuracy,kappa]"],
            ["one objective", "nsgaii"],
        ),
    ],
)
@needs_optuna
def test_a_search_that_cannot_work_is_refused(overrides: list[str], parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        check_search(composed(*overrides))
    assert all(part in str(error.value) for part in parts), error.value


@needs_optuna
@pytest.mark.parametrize(
    "overrides",
    [["optim.lr=choice(1,2)"], ["search=fine_tuning"], ["sweeper=random", "search=from_scratch"],
     ["sweeper=optuna", SPACE],
     ["sweeper=optuna", "optim=choice(adam,sgd)", "sweeper.sampler=grid"]],
)  # fmt: skip
def test_a_search_that_works_is_accepted(overrides: list[str]) -> None:
    check_search(composed(*overrides))


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for words in (["sweeper=random"], ["pruning=median"]):
        with pytest.raises(UserError, match=r"pip install 'fracnet\[optuna\]'"):
            check_search(composed(*words))


def test_directions_follow_the_objectives() -> None:
    assert directions("macro_auc", {}) == "maximize"
    assert directions(["loss", "study_kappa"], {}) == ["minimize", "maximize"]
    assert directions("error", {"error": {"mode": "min"}}) == "minimize"


def test_as_many_jobs_are_chosen_as_run_at_once() -> None:
    assert chosen_at_once("auto", {"name": "serial"}) == 1
    assert chosen_at_once("auto", {"name": "joblib", "jobs": 3}) == 3
    assert chosen_at_once(5, {"name": "serial"}) == 5


@needs_optuna
def test_conditional_keys_exist_only_under_their_conditions() -> None:
    import optuna

    from fracnet.config.conditional_keys import add_conditional

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    config, study = composed("search=fine_tuning"), optuna.create_study()
    for optimizer in ("adamw", "sgd"):
        study.enqueue_trial({"optim": optimizer, "scheduler": "cosine"})
        trial = study.ask()
        trial.suggest_categorical("optim", ["adamw", "sgd"])
        trial.suggest_categorical("scheduler", ["cosine", "warmup_cosine"])
        add_conditional(config, trial)
        assert ("optim.momentum" in trial.params) == (optimizer == "sgd")
        assert "scheduler.warmup" not in trial.params
    config.hydra.overrides.task = ["optim.momentum=0.5"]
    study.enqueue_trial({"optim": "sgd"})
    trial = study.ask()
    trial.suggest_categorical("optim", ["adamw", "sgd"])
    add_conditional(config, trial)
    assert "optim.momentum" not in trial.params, "the command line sets it"
