"""Building the cache of preprocessed images, and starting a training with the cache built."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.benchmark.images import jpegs, write_set
from experiments.benchmark.measurements import Measurement, spread
from experiments.benchmark.memory_monitor import run_and_monitor
from experiments.benchmark.setting import SMALL, Setting, composed
from fracnet.data.image_features import shortcut_features
from fracnet.data.image_io import limit_opencv_threads, read_grey
from fracnet.data.preprocess import Preprocess
from fracnet.runs.build import data_from


def measure(setting: Setting, folder: Path) -> dict[str, Any]:
    """Images per second of a build, its steps, and the stages of a warm start."""
    n, builds = setting.pick(2_000, 48), setting.pick(3, 1)
    image_files = jpegs(setting.pick(48, 8), 512)
    cores = len(os.sched_getaffinity(0))
    rates, per_core = [], []
    for number in range(builds):
        root = write_set(folder / f"cache_{number}", image_files, {"train": n, "val": 4, "test": 4})
        overrides = [*setting.overrides(root), *SMALL]
        data = data_from(composed(overrides))
        data.progress = False
        wall, work = time.perf_counter(), time.process_time()
        data.prepare_data()
        rates.append((n + 8) / (time.perf_counter() - wall))
        per_core.append((n + 8) / (time.process_time() - work))
    warm = [run_and_monitor([*overrides, "trainer.max_epochs=1"], folder) for _ in range(builds)]
    preprocess = Preprocess(
        composed(overrides).preprocess.model_dump()["steps"], setting.image_size
    )
    measurements: list[Measurement] = [
        spread(f"build, {cores} cores", rates, "img/s"),
        spread("build, per core", per_core, "img/s"),
        spread("warm start: imports", [stages["imports"] for stages in warm], "s"),
        spread(
            f"warm start: {n:,} files listed, cache opened",
            [stages["data"] - stages["imports"] for stages in warm],
            "s",
        ),
        spread(
            "warm start: model, first batch",
            [stages["first batch"] - stages["data"] for stages in warm],
            "s",
        ),
    ]
    files = sorted(root.rglob("*.jpg"))[: setting.pick(200, 20)]
    return {
        "measurements": measurements,
        "images": n,
        "spent_ms": {"build": _step_times(files, preprocess)},
    }


def _step_times(files: list[Path], preprocess: Preprocess) -> dict[str, float]:
    """Milliseconds per image of each step of a build, on one core."""
    limit_opencv_threads()
    images = [read_grey(file) for file in files]
    steps: dict[str, Callable[[int], Any]] = {
        "read, decode, check": lambda i: read_grey(files[i]),
        "file features": lambda i: shortcut_features(images[i], 1),
        "resize, preprocess": lambda i: preprocess(images[i]),
    }
    spent = {}
    for name, step in steps.items():
        start = time.process_time()
        for number in range(len(files)):
            step(number)
        spent[name] = round(1000 * (time.process_time() - start) / len(files), 4)
    return spent
