"""The cache of features: what the head of a frozen network gets of each image, computed once.

It lies beside the image caches, with their locks and listing. Its name is a hash of everything that
the features depend on. Code is no part of that hash, so a few images are computed again whenever a
cache is opened; features that do not match are computed anew, all of them.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from fracnet.data.cache_folders import images_dir, open_or_build, read_meta, write_meta
from fracnet.data.samplers import Draw
from fracnet.utils.errors import UserError
from fracnet.utils.progress import progress_bar

FORMAT = 1
FILE = "features.float32"
SAMPLED = 2
"""Images that are computed again when a cache is opened; a network on a CPU takes 50 ms for two."""
# The same network on another device, or in another batch, rounds differently.
TOLERANCE = 1e-3

Features = npt.NDArray[np.float32]
Compute = Callable[[np.ndarray], np.ndarray]
"""From images uint8 [n, S, S] to features float32 [n, F]."""


def cached_features(
    depends_on: Mapping[str, Any],
    images: Sequence[int],
    batches: Callable[[], Iterable[np.ndarray]],
    some: Callable[[Sequence[int]], np.ndarray],
    compute: Compute,
    *,
    name: str,
    progress: bool,
) -> Features:
    """Features float32 [N, F] of N images, memory-mapped; computed first where they are not cached.

    depends_on: plain values that name the network, the images and what was done to them. images:
    their number N and their pixels per side. batches: all images in order, uint8 [n, S, S] each.
    some: the images of given places, uint8 [n, S, S]. compute: the network. name: what they are,
    for the list of caches. progress: show the progress and print how long it took.

    Raises UserError where the cache cannot be written, or the features are not finite.
    """
    n, side = images
    text = json.dumps({"format": FORMAT, **depends_on}, sort_keys=True)
    folder = images_dir() / hashlib.sha256(text.encode()).hexdigest()[:32]
    sampled = sorted({0, n - 1} if n else set())[:SAMPLED]
    again = compute(some(sampled))
    width = again.shape[1]

    def opened() -> Features | None:
        meta = read_meta(folder)
        if meta is None or (meta["images"], meta["width"]) != (n, width):
            return None
        if (folder / FILE).stat().st_size != n * width * 4:
            return None
        stored = np.memmap(folder / FILE, np.float32, mode="r", shape=(n, width))
        if xxhash.xxh3_64_hexdigest(stored.data) != meta["xxh3"]:
            return None
        scale = float(np.abs(again).max())
        same = np.allclose(stored[sampled], again, rtol=TOLERANCE, atol=TOLERANCE * scale)
        return stored.view(np.ndarray) if same else None

    def write(part: Path) -> None:
        start = time.perf_counter()
        features = np.empty((n, width), np.float32)
        done = 0
        with (part / FILE).open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, features.nbytes)
            for place in progress_bar(_places(n, batches), n, "features", visible=progress):
                if isinstance(place, np.ndarray):
                    features[done : done + len(place)] = compute(place)
                    done += len(place)
            if not np.isfinite(features).all():
                raise UserError(
                    f"the frozen network gives features that are not finite ({name}): its weights "
                    "do not fit the images. Check model.weights and model.normalize."
                )
            file.write(features.data)
            file.flush()
            os.fsync(file.fileno())
        digest = xxhash.xxh3_64_hexdigest(features.data)
        content = {"name": name, "images": n, "image_size": side, "width": width, "xxh3": digest}
        write_meta(part, content)
        if progress:
            seconds = time.perf_counter() - start
            print(
                f"Computed {name}: {n} images in {seconds:.1f} s ({n / seconds:.0f} per s)",
                file=sys.stderr,
            )

    return open_or_build(
        folder,
        "feature cache",
        n_bytes=n * width * 4,
        opened=opened,
        write=write,
        progress=progress,
    )


def _places(n: int, batches: Callable[[], Iterable[np.ndarray]]) -> Iterable[Any]:
    """A batch, then None for each of its further images: progress counts images."""
    for batch in batches():
        yield batch
        yield from [None] * (len(batch) - 1)


@dataclass(frozen=True)
class HeadFeatures:
    """What a head trains on in place of images.

    images: float32 [N, F], of every row of the manifest. views: [K][n, F], of the train rows, each
    with another fixed augmentation. places: int64 [N], where a row is in a view. epochs: how many
    epochs train on features; None for all.
    """

    images: Features
    views: Sequence[Features]
    places: npt.NDArray[np.int64]
    epochs: int | None

    def used_in(self, epoch: int) -> bool:
        """Whether this epoch, counted from 0, trains and validates on features."""
        return self.epochs is None or epoch < self.epochs

    def of(self, draws: Sequence[Draw], *, train: bool) -> Features:
        """Float32 [n, F]; in training of view epoch + copy modulo K, if there are views."""
        rows = [draw.row for draw in draws]
        if not train or not self.views:
            return self.images[rows]
        chosen = [self.views[(draw.epoch + draw.copy) % len(self.views)] for draw in draws]
        pairs = zip(chosen, self.places[rows], strict=True)
        return np.stack([view[place] for view, place in pairs])
