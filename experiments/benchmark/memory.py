"""Whether memory grows with the data set: the same training on few and on many images."""

from pathlib import Path
from typing import Any

from experiments.benchmark.figures import Figure
from experiments.benchmark.images import jpegs, write_set
from experiments.benchmark.memory_monitor import watched
from experiments.benchmark.setting import SMALL, Setting, ready

SIDE = 320
AT_MOST = 2.0  # KiB for each image more; the image itself has 100


def measure(setting: Setting, folder: Path) -> dict[str, Any]:
    """Most private memory of all processes, for the few and for the many."""
    few, many = setting.pick((4_000, 40_000), (40, 400))
    pictures = jpegs(setting.pick(64, 4), SIDE)
    seen = {}
    for n in (few, many):
        root = write_set(folder / f"memory_{n}", pictures, {"train": n, "val": 8, "test": 8})
        # Some epochs of the few, so that whatever grows with the steps alone has grown there, too.
        words = [*setting.words(root), *SMALL, f"image_size={SIDE}"]
        words += [f"trainer.max_epochs={4 if n == few else 1}"]
        ready(words)
        seen[n] = watched(words, folder)
    growth = seen[many]["rss_anon"] - seen[few]["rss_anon"]
    shared = seen[many]["pss_anon"] - seen[few]["pss_anon"]
    figures = [
        Figure(f"RssAnon, {few:,} images", seen[few]["rss_anon"], "MiB"),
        Figure(f"RssAnon, {many:,} images", seen[many]["rss_anon"], "MiB"),
        Figure("growth", growth, "MiB"),
        Figure("growth, shared pages counted once", shared, "MiB"),
        Figure("growth an image", 1024 * growth / (many - few), "KiB", at_most=AT_MOST),
        Figure(f"cache of {many:,} images", (many + 16) * SIDE**2 / 2**20, "MiB"),
    ]
    return {"figures": figures, "few": seen[few], "many": seen[many], "image_size": SIDE}
