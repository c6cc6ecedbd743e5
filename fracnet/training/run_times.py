"""Where the time of a run goes, how fast it trains, and what would make it faster."""

import os
import time
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from fracnet.config.schema import Config
from fracnet.data.datamodule import available_cores

STEP = ("data", "forward", "backward", "optimizer")
"""The phases of training; "data" is waiting for images and moving them to the device."""
PHASES = (
    "start",
    "features",
    "fit",
    *STEP,
    "validation",
    "other",
    "prediction",
    "evaluation",
    "OOD reference",
    "heatmaps",
    "report",
)
MAX_MARKS = 4000
DOMINATES = 0.4
"""Share of the whole time from which on a phase is worth a word."""
WORTH_SECONDS = 30.0
"""Shorter runs get no advice."""


def _ends(phase: str) -> Any:
    """A hook of Lightning's, at which a phase of a step ends."""

    def hook(self: "RunTimes", *_: Any) -> None:
        self._mark_step(phase)

    return hook


class RunTimes(Callback):
    """Attributes each moment to a phase: a mark says what the time since the last mark went to.

    On a GPU the host runs ahead, so the marks within a step are events of the device, which are
    read once an epoch: nothing waits for a step. A run on several devices is timed in process 0. In
    a resumed run, the times are those since it was resumed.
    """

    _process_counted = False

    def __init__(self, config: Config) -> None:
        """config: of the run. The first of a process counts what came before it, e.g. imports."""
        self._config = config
        self._workers = 0
        self._seconds: dict[str, float] = defaultdict(float)
        self._images = 0
        self._processes = 1
        self._on_gpu = False
        self._events: list[tuple[str, torch.cuda.Event]] = []
        self._last = time.monotonic()
        if not RunTimes._process_counted:
            RunTimes._process_counted = True
            self._last -= process_seconds()

    def mark(self, phase: str) -> None:
        """The time since the last mark went to this phase, one of `PHASES`."""
        now = time.monotonic()
        self._seconds[phase] += now - self._last
        self._last = now

    def record(self) -> dict[str, Any]:
        """Seconds by phase, in the order of `PHASES`; images per second in training; advice."""
        seconds = {p: round(self._seconds[p], 2) for p in PHASES if p in self._seconds}
        record: dict[str, Any] = {"seconds_by_phase": seconds}
        if self._images:
            step = sum(self._seconds[phase] for phase in STEP)
            record["images_per_second"] = round(self._processes * self._images / step, 1)
        if text := advice(seconds, self._config, self._workers, available_cores(), self._on_gpu):
            record["advice"] = text
        return record

    def _mark_step(self, phase: str) -> None:
        if not self._on_gpu:
            self.mark(phase)
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._events.append((phase, event))
        if len(self._events) > MAX_MARKS:
            self._read_events()
            self._mark_step("other")

    def _read_events(self) -> None:
        """Wait for the device, and divide the time since the last mark by its events."""
        if not self._events:
            return
        torch.cuda.synchronize()
        measured = 0.0
        for (_, before), (phase, after) in pairwise(self._events):
            seconds = before.elapsed_time(after) / 1000
            self._seconds[phase] += seconds
            measured += seconds
        self._events.clear()
        self.mark("other")
        self._seconds["other"] -= measured

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """What came before the fit."""
        if stage == "fit":
            self.mark("start" if self._config.model.freeze == "none" else "features")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The start is over."""
        self._on_gpu = pl_module.device.type == "cuda"
        self._processes = trainer.world_size
        self._workers = getattr(trainer.train_dataloader, "num_workers", 0)
        self.mark("start")

    on_train_epoch_start = _ends("other")  # preparations
    on_train_batch_start = _ends("data")
    on_before_backward = _ends("forward")
    on_after_backward = _ends("backward")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """With accumulated gradients not every batch has a step of the optimizer."""
        self._mark_step("optimizer")
        self._images += len(batch["target"])

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Training pauses."""
        self._read_events()
        self.mark("other")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Its metrics are computed."""
        self.mark("validation")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checkpoints are written."""
        self._read_events()
        self.mark("other")


def process_seconds() -> float:
    """How long this process has run; 0 where the system does not say (without /proc)."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return 0.0


def advice(
    seconds: Mapping[str, float], config: Config, workers: int, cores: int, gpu: bool
) -> str:
    """What would make such a run faster, in a sentence; empty where nothing dominates.

    seconds: by phase. workers: processes that loaded the images. cores: of the machine, for this
    run. gpu: whether it trained on one.
    """
    total = sum(value for phase, value in seconds.items() if phase != "report")
    if total < WORTH_SECONDS:
        return ""

    def share(*phases: str) -> float:
        return sum(seconds.get(phase, 0.0) for phase in phases) / total

    def percent(*phases: str) -> str:
        return f"{100 * share(*phases):.0f} %"

    if share("data") > DOMINATES / 2 and share("data") > 0.3 * share(*STEP):
        waits = f"{percent('data')} of the time is waiting for images"
        if workers < cores - 1:
            return f"{waits}: data.num_workers={cores - 1} loads them in more processes."
        return f"{waits}: a smaller image_size or fewer augment.transforms are faster."
    if share("forward", "backward", "optimizer") > DOMINATES and not gpu:
        smaller = f"image_size={config.image_size // 2}"
        others = f"a GPU, {smaller}" if config.image_size >= 128 else "a GPU"
        if config.model.freeze == "none":
            others += ", or model.freeze=backbone (trains the head alone)"
        network = percent("forward", "backward", "optimizer")
        return f"{network} of the time is the network on a CPU: {others}."
    if share("heatmaps") > DOMINATES:
        return f"{percent('heatmaps')} of the time is heatmaps: explain=none skips them."
    if share("validation") > DOMINATES:
        every = "trainer.check_val_every_n_epoch=2"
        return f"{percent('validation')} of the time is validation: {every} halves it."
    return ""
