"""Arguments of Lightning's Trainer, callbacks, loggers, schedules and metrics of the user's own."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers.command import run_train
from helpers.tiny_overrides import tiny_overrides
from lightning.pytorch import Callback, LightningModule, Trainer

from fracnet.models.schedules import build_schedule

pytestmark = pytest.mark.usefixtures("without_charts")


class Recorder(Callback):
    """A user's callback: writes the learning rate of each step, and what the Trainer is like."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.rates: list[float] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        self.rates.append(float(trainer.optimizers[0].param_groups[0]["lr"]))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        content = {
            "rates": self.rates,
            "accumulate": trainer.accumulate_grad_batches,
            "steps": trainer.global_step,
            "loggers": [type(logger).__name__ for logger in trainer.loggers],
            "early": [c.min_delta for c in trainer.early_stopping_callbacks],
        }
        self.path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def overrides(phantom_overrides: list[str]) -> list[str]:
    return tiny_overrides(*phantom_overrides, "optim.lr=0.01", "evaluation.resamples=100", epochs=2)


def recorder(path: Path) -> str:
    return f"callbacks.mine={{_target_: test_trainer.Recorder, path: {path}}}"


@pytest.mark.usefixtures("without_report")
def test_all_extension_points_work_together(
    overrides: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    f2 = "{_target_: torchmetrics.classification.MulticlassFBetaScore, beta: 2.0, num_classes: 6}"
    more = [
        "trainer.accumulate_grad_batches=2",
        "trainer.profiler=simple",
        "trainer.val_check_interval=0.5",
        "data.batch_size=12",
        recorder(tmp_path / "seen.json"),
        "callbacks.early_stopping.metric=f2",
        "+callbacks.early_stopping.min_delta=0.001",
        "callbacks.best.metric=kappa",
        "objective=f2",
        f"metrics.f2={f2}",
        "scheduler=one_cycle",
        "optim.backbone_lr_factor=0.1",
        "logger=[wandb,csv]",
        "logger.wandb.mode=disabled",
    ]
    run = tmp_path / "run"
    result = run_train([*overrides, *more, f"hydra.run.dir={run}"], capsys)
    assert result.code == 0, result.err
    recorded = json.loads((tmp_path / "seen.json").read_text())
    assert (recorded["accumulate"], recorded["steps"]) == (2, 4)
    assert recorded["loggers"] == ["CSVLogger"]
    assert [abs(delta) for delta in recorded["early"]] == [0.001]
    assert len(set(recorded["rates"])) >= 4, "the schedule steps with the optimizer"
    assert (run / "fit-profile.txt").stat().st_size > 500
    curves = pd.read_csv(run / "metrics.csv")
    assert {"val/kappa", "val/f2"} <= set(curves.columns)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["objective"]["name"] == "f2"
    assert metrics["selected"]["by"] == "val/kappa"
    epoch = metrics["selected"]["epoch"] - 1
    assert metrics["val"]["metrics"]["kappa"]["value"] == pytest.approx(
        curves["val/kappa"][epoch], abs=1e-6
    )
    logged = pd.read_csv(run / "csv/metrics.csv")
    assert logged["train/loss"].dropna().tolist() == pytest.approx(curves["train/loss"].tolist())
    assert "test/macro_auc_low" in logged.columns
    assert "/" not in (run / "csv/hparams.yaml").read_text().split("data_dir:")[1].split("\n")[0]


@pytest.mark.parametrize("debug", ["fast", "limit", "overfit", "profile"])
def test_debug_configs_run(
    debug: str, overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shorter = [word for word in overrides if not word.startswith("trainer.max_epochs")]
    more = [f"debug={debug}", "data.batch_size=4", f"hydra.run.dir={tmp_path}"]
    more += ["trainer.max_epochs=2"] if debug == "overfit" else []
    shorter = [w for w in shorter if not w.startswith(("explain", "data.batch_size"))]
    result = run_train([*shorter, *more], capsys)
    assert result.code == 0, result.err
    assert (tmp_path / "report/index.html").is_file()
    assert (tmp_path / "fit-profile.txt").is_file() == (debug == "profile")


def test_fast_dev_run_writes_nothing(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    more = ["trainer.fast_dev_run=true", f"hydra.run.dir={run}"]
    result = run_train([*overrides, *more], capsys)
    assert result.code == 0, result.err
    assert "training and validation work; nothing was saved or evaluated" in result.out
    assert not [path for path in run.rglob("*") if path.is_file()]


def test_an_argument_that_lightning_rejects_is_reported_before_an_image_is_read(
    overrides: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(*args: object) -> None:
        raise AssertionError("an image was read")

    monkeypatch.setattr("fracnet.data.image_cache.ImageCache.open_or_build", read)
    more = ["trainer.strategy=dpp", f"hydra.run.dir={tmp_path / 'run'}"]
    result = run_train([*overrides, *more], capsys)
    assert result.code == 1
    assert "lightning.Trainer rejects its arguments (trainer.strategy=dpp)" in result.err
    assert not (tmp_path / "run").exists()


def optimizer(rates: tuple[float, ...] = (1.0,)) -> torch.optim.Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups)


def test_warmup_cosine_rises_to_the_rate_and_falls_to_the_end() -> None:
    node = {"_target_": "fracnet.models.schedules.warmup_cosine", "total_steps": "auto"}
    node |= {"warmup": 0.2, "start_factor": 0.1, "end_factor": 0.05, "interval": "step"}
    sgd = optimizer()
    built = build_schedule(node, sgd, total_steps=100)
    assert (built["interval"], built["frequency"]) == ("step", 1)
    rates = []
    for _ in range(101):
        rates.append(sgd.param_groups[0]["lr"])
        sgd.step()
        built["scheduler"].step()
    assert rates[0] == pytest.approx(0.1)
    assert rates[10] == pytest.approx(0.55)
    assert max(rates) == rates[20] == pytest.approx(1)
    assert rates[60] == pytest.approx((1 + 0.05) / 2)
    assert rates[100] == pytest.approx(0.05)


def test_one_cycle_keeps_the_backbones_share_of_the_rate() -> None:
    node = {"_target_": "torch.optim.lr_scheduler.OneCycleLR", "max_lr": 1.0, "total_steps": 10}
    sgd = optimizer((1.0, 0.1))
    build_schedule(node, sgd)
    assert sgd.param_groups[1]["lr"] == pytest.approx(0.1 * sgd.param_groups[0]["lr"])
