"""A run that a cluster interrupts within an epoch equals one that was never stopped."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from helpers.command import CommandResult, run_train
from helpers.tiny_overrides import tiny_overrides

from fracnet.models.classifier import Classifier

pytestmark = pytest.mark.usefixtures("without_charts")

# Everything with a state within an epoch, together.
STATEFUL = [
    "scheduler=one_cycle",
    "callbacks.ema=0.9",
    "imbalance=oversample",
    "model.dropout=0.3",
    "model.freeze=1",
    "trainer.accumulate_grad_batches=2",
    "trainer.val_check_interval=0.5",
    "callbacks.last.every_n_steps=4",
]


@pytest.fixture(scope="module")
def overrides(phantom_overrides: list[str]) -> list[str]:
    more = [*phantom_overrides, "logger=none", *STATEFUL]
    return tiny_overrides(*more, batch=4, workers=0, epochs=3)


def results(run: Path) -> dict[str, Any]:
    """All numbers of a run but its times."""
    curves = pd.read_csv(run / "metrics.csv").drop(columns=["seconds", "images_per_second"])
    weights = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return {
        "predictions": (run / "predictions.csv").read_bytes(),
        "curves": curves.to_csv(),
        "metrics": (run / "metrics.json").read_bytes(),
        "weights": {name: value.tolist() for name, value in weights.items()},
    }


def interrupted(
    overrides: list[str],
    at: tuple[int, int],
    number: signal.Signals,
    capsys: pytest.CaptureFixture[str],
) -> CommandResult:
    """A run that gets a signal in a batch of an epoch, both counted from 0."""
    step = Classifier.training_step

    def signaled(model: Classifier, batch: Any, batch_idx: int) -> Any:
        if (model.current_epoch, batch_idx) == at:
            os.kill(os.getpid(), number)
        return step(model, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classifier, "training_step", signaled)
        return run_train(overrides, capsys)


@pytest.mark.usefixtures("without_report")
@pytest.mark.slow
def test_a_run_resumed_within_an_epoch_equals_one_that_was_not_stopped(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_train([*overrides, f"hydra.run.dir={tmp_path / 'whole'}"], capsys).code == 0
    whole = results(tmp_path / "whole")
    for number, at, code in (
        (signal.SIGTERM, (1, 1), 143),
        (signal.SIGUSR1, (2, 8), 143),
        (signal.SIGINT, (1, 10), 130),  # at once: the last checkpoint is some steps old
    ):
        run = tmp_path / number.name
        stopped = interrupted([*overrides, f"hydra.run.dir={run}"], at, number, capsys)
        assert stopped.code == code, stopped.err
        assert json.loads((run / "provenance.json").read_text())["status"] == "interrupted"
        progress = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["loops"]
        batches = progress["fit_loop"]["epoch_loop.batch_progress"]["current"]
        assert 0 < batches["ready"] <= at[1] + 2, "within the epoch"
        resumed = run_train([f"resume={run}", "trust=true"], capsys)
        assert resumed.code == 0, resumed.err
        assert results(run) == whole, (number, at)
