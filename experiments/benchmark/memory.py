"""Whether memory grows with the dataset: the same training on few and on many images."""

from pathlib import Path
from typing import Any

from experiments.benchmark.images import jpegs, write_set
from experiments.benchmark.measurements import Measurement
from experiments.benchmark.memory_monitor import run_and_monitor
from experiments.benchmark.setting import SMALL, Setting, prepared_data

SIDE = 320
AT_MOST = 2.0  # KiB per additional image; the image itself takes 100


def measure(setting: Setting, folder: Path) -> dict[str, Any]:
    """Peak private memory of all processes, with few and with many images."""
    few, many = setting.pick((4_000, 40_000), (40, 400))
    image_files = jpegs(setting.pick(64, 4), SIDE)
    usage = {}
    for n in (few, many):
        root = write_set(folder / f"memory_{n}", image_files, {"train": n, "val": 8, "test": 8})
        # Several epochs of the few, so that growth with the number of steps is in both.
        overrides = [*setting.overrides(root), *SMALL, f"image_size={SIDE}"]
        overrides += [f"trainer.max_epochs={4 if n == few else 1}"]
        prepared_data(overrides)
        usage[n] = run_and_monitor(overrides, folder)
    growth = usage[many]["rss_anon"] - usage[few]["rss_anon"]
    shared = usage[many]["pss_anon"] - usage[few]["pss_anon"]
    measurements = [
        Measurement(f"RssAnon, {few:,} images", usage[few]["rss_anon"], "MiB"),
        Measurement(f"RssAnon, {many:,} images", usage[many]["rss_anon"], "MiB"),
        Measurement("growth", growth, "MiB"),
        Measurement("growth, shared pages counted once", shared, "MiB"),
        Measurement("growth per image", 1024 * growth / (many - few), "KiB", at_most=AT_MOST),
        Measurement(f"cache of {many:,} images", (many + 16) * SIDE**2 / 2**20, "MiB"),
    ]
    return {
        "measurements": measurements,
        "few": usage[few],
        "many": usage[many],
        "image_size": SIDE,
    }
