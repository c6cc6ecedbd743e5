"""From the file to the normalized batch: fracnet after its first epoch, against other pipelines."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.benchmark.alternative_pipelines import MEAN, STD, Pipeline, lean, modern, published
from experiments.benchmark.images import jpegs, write_set
from experiments.benchmark.measurements import interleaved, ratios, spread
from experiments.benchmark.setting import Setting, prepared_data
from fracnet.data.datamodule import RadiographData, RadiographDataset
from fracnet.data.image_io import limit_opencv_threads
from fracnet.data.samplers import Draw
from fracnet.models.classifier import GreyInput

FRACNET = "fracnet"
AT_LEAST = {"published pipeline": 10.0, "lean OpenCV": 4.0}


class FracnetPipeline:
    """fracnet's pipeline as a training uses it: dataset and input layer."""

    def __init__(self, data: RadiographData) -> None:
        self.rows = data.rows("train")
        self.images = RadiographDataset(
            data.cache, data.manifest.targets(), seed=data.seed, augment=data.augment
        )
        self.input = GreyInput(list(MEAN), list(STD))

    def fetch(self, positions: Sequence[int], epoch: int) -> Tensor:
        """uint8 [B, 1, S, S]: cached and augmented."""
        draws = [Draw(epoch, int(self.rows[place])) for place in positions]
        return self.images.__getitems__(draws)["image"]

    def batch(self, positions: Sequence[int], epoch: int) -> Tensor:
        """float32 [B, 3, S, S], normalized."""
        with torch.no_grad():
            result: Tensor = self.input(self.fetch(positions, epoch))
        return result


def measure(setting: Setting, folder: Path) -> dict[str, Any]:
    """Measurements, and the milliseconds per image of each step."""
    size, n, rounds = setting.image_size, setting.pick(512, 64), setting.pick(5, 2)
    image_files = jpegs(setting.pick(48, 8), 512)
    root = write_set(folder / "pipeline", image_files, {"train": n, "val": 4, "test": 4})
    own = FracnetPipeline(prepared_data([*setting.overrides(root), "image_size=" + str(size)]))
    files = [image_files[number % len(image_files)] for number in range(n)]
    pipelines = [published(size), lean(size), lean(size, resize_first=True), modern(size)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    limit_opencv_threads()
    torch.manual_seed(0)
    try:
        return _compare(own, pipelines, files, setting.batch_size, rounds)
    finally:
        torch.set_num_threads(threads)


def _compare(
    own: FracnetPipeline,
    pipelines: Sequence[Pipeline],
    files: Sequence[bytes],
    batch_size: int,
    rounds: int,
) -> dict[str, Any]:
    positions = [
        range(i, min(i + batch_size, len(files))) for i in range(0, len(files), batch_size)
    ]
    sides: dict[str, Callable[[int], Any]] = {
        FRACNET: lambda number: own.batch(
            positions[number % len(positions)], 1 + number // len(positions)
        )
    }
    for pipeline in pipelines:
        sides[pipeline.name] = _run_batch(pipeline, files, positions)
    for name, side in sides.items():
        assert side(0).shape == (len(positions[0]), 3, *own.images.cache.images.shape[1:]), name
    seconds = interleaved(sides, rounds * len(positions))
    counts = [len(positions[number % len(positions)]) for number in range(rounds * len(positions))]
    measurements = [
        spread(f"{name}, per image", 1000 * np.array(elapsed) / counts, "ms")
        for name, elapsed in seconds.items()
    ]
    measurements += [
        spread(
            f"{pipeline.name} / {FRACNET}",
            ratios(seconds, pipeline.name, FRACNET),
            "x",
            **({"at_least": AT_LEAST[pipeline.name]} if pipeline.name in AT_LEAST else {}),
        )
        for pipeline in pipelines
    ]
    spent = {
        FRACNET: _fracnet_step_times(own, positions),
        **{w.name: _step_times(w, files[:64]) for w in pipelines},
    }
    return {"measurements": measurements, "spent_ms": spent, "images": len(files), "rounds": rounds}


def _run_batch(
    pipeline: Pipeline, files: Sequence[bytes], positions: Sequence[range]
) -> Callable[[int], Tensor]:
    return lambda number: pipeline.batch([files[i] for i in positions[number % len(positions)]])


def _step_times(pipeline: Pipeline, files: Sequence[bytes]) -> dict[str, float]:
    """Milliseconds per image of each step."""
    spent: Counter[str] = Counter()
    items = []
    for item in files:
        for name, step in pipeline.steps:
            start = time.process_time()
            item = step(item)
            spent[name] += time.process_time() - start  # type: ignore[assignment]
        items.append(item)
    start = time.process_time()
    pipeline.collate[1](items)
    spent[pipeline.collate[0]] = time.process_time() - start  # type: ignore[assignment]
    return {name: round(1000 * seconds / len(files), 4) for name, seconds in spent.items()}


def _fracnet_step_times(own: FracnetPipeline, positions: Sequence[range]) -> dict[str, float]:
    n = sum(map(len, positions))
    spent = {"cache, augment": 0.0, "normalize": 0.0}
    for batch in positions:
        start = time.process_time()
        images = own.fetch(batch, 9)
        between = time.process_time()
        with torch.no_grad():
            own.input(images)
        spent["cache, augment"] += between - start
        spent["normalize"] += time.process_time() - between
    return {name: round(1000 * seconds / n, 4) for name, seconds in spent.items()}
