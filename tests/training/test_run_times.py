"""Where the time of a run went, and what would make it faster."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.fitting import batches
from helpers.models import ADAM, TINY
from lightning.pytorch import Callback, Trainer

from fracnet.models.classifier import Classifier
from fracnet.training.run_times import STEP, RunTimes, advice
from fracnet.utils.text import time_text

CONFIG: Any = SimpleNamespace(image_size=224, model=SimpleNamespace(freeze="none"))
"""The few keys that are read."""


class Slow(Callback):
    """Takes its time between two batches, as a loader does, and in each validation."""

    def on_train_batch_start(self, *_: Any) -> None:
        time.sleep(0.1)

    def on_validation_batch_end(self, *_: Any) -> None:
        time.sleep(0.1)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_each_moment_of_a_training_belongs_to_one_phase(tmp_path: Path, accumulated: int) -> None:
    times = RunTimes(CONFIG)
    times.mark("start")
    start = time.monotonic()
    model = Classifier(TINY, ["a", "b", "c"], ADAM)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        accumulate_grad_batches=accumulated,
        callbacks=[Slow(), times],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )
    trainer.fit(model, batches(3, 0), batches(2, 1))
    times.mark("prediction")
    elapsed = time.monotonic() - start
    record = times.record()
    seconds = record["seconds_by_phase"]
    assert sum(seconds.values()) - times.record()["seconds_by_phase"]["start"] <= elapsed + 0.1
    assert 0.6 <= seconds["data"] < 1.2, "2 epochs of 3 batches, 0.1 s each"
    assert 0.4 <= seconds["validation"] < 1.0
    assert set(STEP) <= set(seconds)
    speed = 2 * 3 * 4 / sum(seconds[phase] for phase in STEP)
    assert record["images_per_second"] == pytest.approx(speed, rel=0.05)
    assert "advice" not in record, "a run of a second"


@pytest.mark.parametrize(
    ("seconds", "workers", "cores", "gpu", "words"),
    [
        ({"data": 50, "forward": 20, "backward": 30}, 1, 8, False, "data.num_workers=7"),
        ({"data": 50, "forward": 20, "backward": 30}, 7, 8, True, "image_size"),
        ({"data": 1, "forward": 30, "backward": 60}, 1, 2, False, "GPU"),
        ({"data": 1, "forward": 30, "backward": 60}, 1, 2, True, ""),
        ({"forward": 30, "heatmaps": 60}, 1, 2, True, "explain=none"),
        ({"forward": 30, "validation": 60}, 1, 2, True, "check_val_every_n_epoch"),
        ({"data": 5, "forward": 2}, 1, 8, False, ""),
    ],
)
def test_advice_names_what_dominates(
    seconds: dict[str, float], workers: int, cores: int, gpu: bool, words: str
) -> None:
    text = advice(seconds, CONFIG, workers, cores, gpu)
    assert words in text
    assert bool(words) == bool(text)


def test_the_line_of_times_leaves_out_what_took_next_to_none() -> None:
    seconds = {"start": 4.2, "data": 0.1, "forward": 60.0, "backward": 90.4, "report": 0.4}
    assert time_text(seconds) == "2 min 35 s: start 4 s, forward 1 min 0 s, backward 1 min 30 s"
    assert time_text({}) == ""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_no_step_waits() -> None:
    times = RunTimes(CONFIG)
    times._on_gpu = True
    times.mark("start")
    times._mark_step("other")
    x = torch.ones(4096, 4096, device="cuda")
    for _ in range(20):
        x = x @ x
    times._mark_step("forward")
    before = time.monotonic()
    times._read_events()
    assert time.monotonic() - before > 0
    assert times.record()["seconds_by_phase"]["forward"] > 0
