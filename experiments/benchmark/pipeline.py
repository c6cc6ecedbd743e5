"""From the file to the normalized batch: fracnet from its second epoch on, against other ways."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.benchmark.alternative_pipelines import MEAN, STD, Way, lean, modern, published
from experiments.benchmark.figures import interleaved, ratios, spread
from experiments.benchmark.images import jpegs, write_set
from experiments.benchmark.setting import Setting, ready
from fracnet.data.datamodule import RadiographData, RadiographDataset
from fracnet.data.image_io import limit_opencv_threads
from fracnet.data.samplers import Draw
from fracnet.models.classifier import GreyInput

OWN = "fracnet"
AT_LEAST = {"published way": 10.0, "lean OpenCV": 4.0}


class Own:
    """fracnet's own way, by the parts that a training puts together: data set and input layer."""

    def __init__(self, data: RadiographData) -> None:
        self.rows = data.rows("train")
        self.images = RadiographDataset(
            data.cache, data.manifest.targets(), seed=data.seed, augment=data.augment
        )
        self.input = GreyInput(list(MEAN), list(STD))

    def fetch(self, places: Sequence[int], epoch: int) -> Tensor:
        """uint8 [B, 1, S, S]: cached and augmented."""
        draws = [Draw(epoch, int(self.rows[place])) for place in places]
        return self.images.__getitems__(draws)["image"]

    def batch(self, places: Sequence[int], epoch: int) -> Tensor:
        """float32 [B, 3, S, S], normalized."""
        with torch.no_grad():
            result: Tensor = self.input(self.fetch(places, epoch))
        return result


def measure(setting: Setting, folder: Path) -> dict[str, Any]:
    """Figures, and what each way spends its time on, in milliseconds an image."""
    size, n, rounds = setting.image_size, setting.pick(512, 64), setting.pick(5, 2)
    pictures = jpegs(setting.pick(48, 8), 512)
    root = write_set(folder / "pipeline", pictures, {"train": n, "val": 4, "test": 4})
    own = Own(ready([*setting.words(root), "image_size=" + str(size)]))
    files = [pictures[number % len(pictures)] for number in range(n)]
    ways = [published(size), lean(size), lean(size, small_first=True), modern(size)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    limit_opencv_threads()
    torch.manual_seed(0)
    try:
        return _compared(own, ways, files, setting.batch_size, rounds)
    finally:
        torch.set_num_threads(threads)


def _compared(
    own: Own, ways: Sequence[Way], files: Sequence[bytes], batch_size: int, rounds: int
) -> dict[str, Any]:
    places = [range(i, min(i + batch_size, len(files))) for i in range(0, len(files), batch_size)]
    sides: dict[str, Callable[[int], Any]] = {
        OWN: lambda number: own.batch(places[number % len(places)], 1 + number // len(places))
    }
    for way in ways:
        sides[way.name] = _over(way, files, places)
    for name, side in sides.items():
        assert side(0).shape == (len(places[0]), 3, *own.images.cache.images.shape[1:]), name
    seconds = interleaved(sides, rounds * len(places))
    counts = [len(places[number % len(places)]) for number in range(rounds * len(places))]
    figures = [
        spread(f"{name}, an image", 1000 * np.array(taken) / counts, "ms")
        for name, taken in seconds.items()
    ]
    figures += [
        spread(
            f"{way.name} / {OWN}",
            ratios(seconds, way.name, OWN),
            "x",
            **({"at_least": AT_LEAST[way.name]} if way.name in AT_LEAST else {}),
        )
        for way in ways
    ]
    spent = {OWN: _own_spent(own, places), **{w.name: _spent(w, files[:64]) for w in ways}}
    return {"figures": figures, "spent_ms": spent, "images": len(files), "rounds": rounds}


def _over(way: Way, files: Sequence[bytes], places: Sequence[range]) -> Callable[[int], Tensor]:
    return lambda number: way.batch([files[i] for i in places[number % len(places)]])


def _spent(way: Way, files: Sequence[bytes]) -> dict[str, float]:
    """Milliseconds an image in each step."""
    spent: Counter[str] = Counter()
    items = []
    for item in files:
        for name, step in way.steps:
            start = time.process_time()
            item = step(item)
            spent[name] += time.process_time() - start  # type: ignore[assignment]
        items.append(item)
    start = time.process_time()
    way.together[1](items)
    spent[way.together[0]] = time.process_time() - start  # type: ignore[assignment]
    return {name: round(1000 * seconds / len(files), 4) for name, seconds in spent.items()}


def _own_spent(own: Own, places: Sequence[range]) -> dict[str, float]:
    n = sum(map(len, places))
    spent = {"cache, augment": 0.0, "normalize": 0.0}
    for batch in places:
        start = time.process_time()
        images = own.fetch(batch, 9)
        between = time.process_time()
        with torch.no_grad():
            own.input(images)
        spent["cache, augment"] += between - start
        spent["normalize"] += time.process_time() - between
    return {name: round(1000 * seconds / n, 4) for name, seconds in spent.items()}
