"""What cannot work is reported before the first epoch, and the rehearsal changes nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command import run_train
from helpers.tiny_data import tiny_data
from helpers.tiny_overrides import tiny_overrides
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fracnet.config.checks import check
from fracnet.config.overrides import add_open_keys
from fracnet.config.schema import Config
from fracnet.runs.build import classifier_from
from fracnet.training.rehearsal import check_metrics, rehearse
from fracnet.utils.errors import UserError
from fracnet.utils.files import config_dir

pytestmark = pytest.mark.usefixtures("without_charts")

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def overrides(phantom_overrides: list[str]) -> list[str]:
    """A run of seconds."""
    return tiny_overrides(*phantom_overrides, "optim.lr=0.01", epochs=3)


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (
            [
                "imbalance=augment_minority",
                "imbalance.transforms=[{_target_: albumentations.Affin}]",
            ],
            ["imbalance.transforms[0]._target_=albumentations.Affin", "Did you mean 'Affine'?"],
        ),
        (["scheduler=plateau", "scheduler.patience=abc"], ["scheduler.patience=abc", "integer"]),
        (["scheduler=cosine", "scheduler.T_max=0"], ["scheduler.T_max=0", "1"]),
        (["scheduler=cosine", "+scheduler.gama=1"], ["scheduler.gama=1", "T_max"]),
        (["+optim.betas=3"], ["optim"]),
        (["optim._target_=torch.optim.Adm"], ["torch.optim.Adm", "Did you mean 'Adam'?"]),
        (["model._target_=helpers.models.TwoLogits"], ["(2, 2)", "(2, 6)"]),
        (
            ["model._target_=helpers.models.NormedHead", "~model.dropout", "data.batch_size=1"],
            ["data.batch_size=1", "batch normalization", "data.batch_size=2"],
        ),
        (
            ["model._target_=helpers.models.FixedSize", "trainer.image_sizes=[16,32]"],
            ["FixedSize", "fails on images of trainer.image_sizes=16"],
        ),
        (["model.widht=3"], ["model.widht", "Did you mean 'model.width=3'?"]),
    ],
    ids=lambda value: value[-1][:30],
)
def test_a_mismatch_of_model_and_data_is_reported_before_training(
    more: list[str],
    parts: list[str],
    overrides: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = run_train([*overrides, *more, f"hydra.run.dir={tmp_path / 'run'}"], capsys)
    assert result.code == 1
    assert "epoch 1" not in result.out
    assert result.err.count("fracnet: error: ") == 1
    assert "Traceback" not in result.err
    for part in parts:
        assert part in result.err
    assert not (tmp_path / "run").exists()


def compose_config(*overrides: str) -> Config:
    search = f"hydra.searchpath=[file://{TESTS / 'user_conf'}]"
    with initialize_config_dir(str(config_dir())):
        node: Any = OmegaConf.to_container(compose("train", [search, *overrides]), resolve=True)
    return check(node)


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=tiny"],  # nothing in it is normalized
        ["model=tiny_norm"],  # many values a channel, also of one image
        ["model=tiny_norm", "model._target_=helpers.models.NormedHead", "model.freeze=backbone"],
    ],
    ids=lambda overrides: overrides[-1],
)
def test_batches_of_one_image_work_where_they_can_be_trained_on(
    overrides: list[str], tmp_path: Path
) -> None:
    config = compose_config(*overrides, "image_size=32", "data.batch_size=1")
    data = tiny_data(tmp_path)
    data.prepare_data()
    model = classifier_from(config, data)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stream = torch.get_rng_state()
    rehearse(model, config)
    assert torch.equal(torch.get_rng_state(), stream)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


ONE_CLASS = {"train": 21, "val": 1, "test": 6}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "objective=macro_auc cannot be computed on"),
        (
            ["callbacks.best.metric=macro_auc", "callbacks.early_stopping.metric=macro_auc"],
            "objective=macro_auc and callbacks.best.metric=macro_auc and "
            "callbacks.early_stopping.metric=macro_auc cannot",
        ),
        (["objective=loss", "callbacks.best.metric=macro_auc"], "callbacks.best.metric=macro_auc "),
    ],
)
def test_a_metric_that_chooses_must_be_defined_on_validation(
    overrides: list[str], message: str, tmp_path: Path
) -> None:
    data = tiny_data(tmp_path, counts=ONE_CLASS)
    data.prepare_data()
    with pytest.raises(UserError) as caught:
        check_metrics(compose_config("model=tiny", *overrides), data)
    assert str(caught.value).startswith(message)
    assert "whose 1 image is of the class elbow" in str(caught.value)
    assert "allowed with it: loss, accuracy, macro_sensitivity, macro_specificity." in str(
        caught.value
    )
    check_metrics(compose_config("model=tiny", "objective=macro_specificity"), data)


def test_a_class_may_be_absent_from_validation(tmp_path: Path) -> None:
    data = tiny_data(tmp_path, counts=ONE_CLASS | {"val": 2})
    data.prepare_data()
    check_metrics(compose_config("model=tiny", "callbacks.best.metric=macro_auc"), data)


def test_a_run_with_an_undefined_objective_leaves_nothing(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["data=patients", f"data.root={tmp_path / 'data'}", "+data.patients=5"]
    other_overrides = [word for word in overrides if not word.startswith("data")]
    result = run_train([*other_overrides, *few, f"hydra.run.dir={tmp_path / 'run'}"], capsys)
    assert result.code == 1
    assert "fracnet: error: objective=macro_auc cannot be computed" in result.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("key", ["model", "optim", "loss"])
def test_a_class_that_does_not_exist_is_reported_before_an_image_is_read(
    key: str,
    overrides: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(*args: object) -> None:
        raise AssertionError("an image was read")

    monkeypatch.setattr("fracnet.data.image_cache.ImageCache.open_or_build", read)
    wrong = f"{key}._target_=helpers.models.Nonesuch"
    result = run_train([*overrides, wrong, f"hydra.run.dir={tmp_path / 'run'}"], capsys)
    assert result.code == 1
    assert f"{key}._target_=helpers.models.Nonesuch: module helpers.models has no" in result.err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objective=f1"], "objective=f1 is a metric of the positive one of two classes; there"),
        (["objective=study_kappa"], "objective=study_kappa cannot be computed on the validation"),
        (["callbacks.best.metric=study_auc"], "callbacks.best.metric=study_auc cannot"),
        (
            ["metrics.mine={_target_: helpers.models.TinyNet, num_classes: 3}", "objective=mine"],
            "metrics.mine._target_=helpers.models.TinyNet is not a torchmetrics metric",
        ),
    ],
)
def test_a_metric_must_fit_the_data(overrides: list[str], message: str, tmp_path: Path) -> None:
    data = tiny_data(tmp_path)
    data.prepare_data()
    with pytest.raises(UserError) as caught:
        check_metrics(compose_config("model=tiny", *add_open_keys(overrides)), data)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", ["kappa", "macro_f1", "log_loss", "mcc", "brier"])
def test_any_metric_of_the_evaluation_may_choose(name: str, tmp_path: Path) -> None:
    data = tiny_data(tmp_path)
    data.prepare_data()
    check_metrics(compose_config("model=tiny", f"objective={name}"), data)
