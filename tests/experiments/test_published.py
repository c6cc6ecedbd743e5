"""The claims of the published works: their commands, what a result says, accuracy by epoch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.fitting import NORM
from helpers.tiny_data import tiny_data
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from experiments.published import epochs, page, run
from experiments.published.claims import ALL, EPOCHS, SEEDS
from experiments.small_phantoms import compose_config
from fracnet.config.checks import check
from fracnet.models.classifier import Classifier
from fracnet.training.callbacks import Curves

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


@pytest.mark.parametrize("name", ALL)
def test_the_last_arm_of_each_claim_is_a_valid_training(name: str) -> None:
    claim = ALL[name]
    *words, arms, seeds = run.sweep_overrides(claim, "small", not claim.phantom, [])
    assert seeds == f"seed={','.join(map(str, SEEDS))}"
    assert arms.endswith(list(claim.arms.values())[-1].partition("=")[2])
    config = check(compose_config([*words, list(claim.arms.values())[-1], "data.root=data/x"]))
    assert (config.optim.lr, config.callbacks.ema) == (0.001, None)
    assert config.data.target.endswith("Phantom") == bool(claim.phantom)


def result(value: float, low: float, high: float, verdict: str, phantoms: bool) -> dict[str, Any]:
    row = {"name": "CLAHE", "reference": "without", "verdict": verdict}
    row |= {"value": value, "low": low, "high": high}
    block = {"metric": "accuracy", "class_name": None, "differences": [row], "n": 120}
    block["arms"] = {"without": {"mean": 0.7}, "CLAHE": {"mean": 0.7 + value}}
    return {
        "metrics": [block],
        "phantoms": phantoms,
        "data": "upper_limb",
        "images": {"train": 180, "val": 72, "test": 120},
        "size": "small",
        "seeds": [0, 1, 2, 3, 4],
        "commit": "abc",
        "machine": "CPU",
        "seconds": 10,
        "command": ["python", "-m", "fracnet.train"],
    }


def test_the_sentence_says_what_the_figures_show() -> None:
    clahe = ALL["clahe"]
    real = page.sentence(clahe, result(0.05, 0.02, 0.08, "better", False))
    assert (
        real == "Accuracy: CLAHE higher than without. The published +0.06 lies inside the interval."
    )
    unclear = page.sentence(clahe, result(0.01, -0.02, 0.04, "undecided", False))
    assert (
        "no difference to without is shown for CLAHE. The published +0.06 lies outside" in unclear
    )
    phantoms = page.sentence(clahe, result(0.05, 0.02, 0.08, "better", True))
    assert phantoms == f"Accuracy: CLAHE higher than without. {page.PHANTOMS}"


def test_the_page_has_a_row_for_each_claim_run_or_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    content = result(0.05, 0.02, 0.08, "better", True)
    (tmp_path / "clahe_phantoms.json").write_text(json.dumps(content))
    text = page.write_page().read_text()
    rows = {line.split("**")[1]: line for line in text.splitlines() if line.startswith("| **")}
    assert list(rows) == list(ALL)
    assert "| 83 | +0.06 | accuracy: without 0.700, CLAHE 0.750" in rows["clahe"]
    assert page.PHANTOMS in rows["clahe"]
    assert page.PHANTOMS in rows["leak"], "measured by experiments/leakage"
    for name in ("transfer", "epochs", "imbalance"):
        assert rows[name].endswith(f"| {page.NOT_RUN} |")
    assert "None of them has been run on real data yet." in text
    assert "accuracy 0.831 (0.737 to 0.897), n = 83" in text


def test_choosing_by_test_is_never_below_choosing_by_validation() -> None:
    rng = np.random.default_rng(0)
    curves = [pd.DataFrame(rng.random((10, 3)), columns=list(epochs.SPLITS)) for _ in range(5)]
    rows = epochs.summarize(curves)
    assert [row["epochs"] for row in rows] == [2, 4, 6, 8, 10]
    for row in rows:
        assert row["difference"] == pytest.approx(
            row["chosen by test"] - row["chosen by validation"]
        )
        assert row["difference"] >= 0
    assert rows[-1]["chosen by test"] == pytest.approx(np.mean([c["test"].max() for c in curves]))
    assert "Choosing the epoch by test" in page.sentence(EPOCHS, {"epochs": rows, "phantoms": True})


def test_accuracy_of_each_split_is_written_and_that_of_train_is_logged(tmp_path: Path) -> None:
    data = tiny_data(tmp_path / "images")
    data.prepare_data()
    torch.manual_seed(0)
    adam = {"_target_": "torch.optim.Adam", "lr": 0.05}
    model = Classifier(NORM, data.classes, adam)
    best = ModelCheckpoint(tmp_path / "checkpoints", monitor="val/loss")
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[Curves(tmp_path / "metrics.csv", best), epochs.AccuracyByEpoch(), best],
    )
    trainer.fit(model, datamodule=data)
    table = pd.read_csv(tmp_path / epochs.FILE)
    assert table["epoch"].tolist() == [1, 2]
    curves = pd.read_csv(tmp_path / "metrics.csv")
    assert curves["train/accuracy"].to_numpy() == pytest.approx(table["train"].to_numpy(), abs=1e-6)
    assert curves["val/accuracy"].to_numpy() == pytest.approx(table["val"].to_numpy(), abs=1e-6)
    model.eval()
    rows = data.rows("test")
    with torch.no_grad():
        logits = model(torch.from_numpy(np.array(data.cache.images[rows]))[:, None])
    right = (logits.argmax(dim=1).numpy() == data.manifest.targets()[rows]).mean()
    assert table["test"].iloc[-1] == pytest.approx(right, abs=1e-6)
