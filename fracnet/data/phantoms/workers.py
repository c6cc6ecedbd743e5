"""What the plans of all data sets share: counts that make sense, regions in their proportions.

Making a phantom data set once: all or nothing, by one process at a time, never over other data.

A finished folder holds its recipe; a folder without it is not ours. What is unfinished lies beside
it under a hidden name, where no source looks.

Several processes write the images of one recipe.

A writer is a module with `plan(folder, recipe)`, all images in a fixed order, and `write_one(job)`.

Plain child processes rather than multiprocessing: no child runs the caller's main module again, and
none inherits the threads or locks of a parent that may already hold a deep-learning runtime.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from filelock import FileLock
from rich.progress import Progress

from fracnet.utils.errors import UserError


def check_counts(key: str, counts: Mapping[str, int], allowed: Collection[str]) -> None:
    """Raises UserError unless all are numbers of 0 or more for the allowed splits."""
    if extra := sorted(set(counts) - set(allowed)):
        raise UserError(f"{key}: {extra} are no splits; allowed are {list(allowed)}.")
    for split, n in counts.items():
        if n < 0:
            raise UserError(f"{key}.{split} is {n}; it must be 0 or more.")


def check_range(key: str, value: float, low: float, high: float) -> None:
    """Raises UserError unless low <= value <= high."""
    if not low <= value <= high:
        raise UserError(f"{key} is {value}; it must lie in {low}..{high}.")


def check_seed(seed: int) -> None:
    """Raises UserError unless it can seed a generator."""
    if not isinstance(seed, int) or seed < 0:
        raise UserError(f"seed is {seed!r}; it must be an integer of 0 or more.")


def mixed(n: int, shares: Mapping[str, int]) -> list[str]:
    """n names, each as often as its share says, within one."""
    total = sum(shares.values())
    edges = np.cumsum([0.0, *(share / total for share in shares.values())]) * n
    whole = np.round(edges).astype(int)
    return [name for name, k in zip(shares, np.diff(whole), strict=True) for _ in range(k)]


RECIPE = "phantom.json"


def make_once(
    root: Path, folder: str, recipe: dict[str, Any], build: Callable[[Path], None]
) -> None:
    """Has `build(path)` fill root/folder, unless that holds a set of the same recipe already.

    Concurrent callers wait for the first. Raises UserError where root/folder holds anything else
    or root cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / ".phantom.lock")
        lock.acquire()
    except OSError as error:
        raise UserError(f"data.root={root} cannot be written: {error}.") from error
    try:
        for stale in root.glob(f".{folder}.*"):
            shutil.rmtree(stale)
        if _already_there(root / folder, recipe):
            return
        building = root / f".{folder}.{os.getpid()}"
        try:
            build(building)
            (building / RECIPE).write_text(_text(recipe))
            os.replace(building, root / folder)
        finally:
            if building.exists():
                shutil.rmtree(building)
    finally:
        lock.release()


def _text(recipe: dict[str, Any]) -> str:
    return json.dumps(recipe, indent=2) + "\n"


def _already_there(target: Path, recipe: dict[str, Any]) -> bool:
    if not target.exists():
        return False
    mark = target / RECIPE
    text = mark.read_text() if mark.exists() else ""
    if text == _text(recipe):
        return True
    what = f"phantoms of another recipe ({' '.join(text.split())})" if text else "other data"
    raise UserError(
        f"{target} holds {what}, but phantoms with {json.dumps(recipe)} are asked for. "
        "Delete that folder or choose another data.root."
    )


def write_all(
    module: str, folder: Path, recipe: dict[str, Any], workers: int | None, progress: bool
) -> None:
    """Has the writer's images written by several processes, with a bar where `progress`."""
    total = sum(1 for _ in import_module(module).plan(folder, recipe))
    with Progress(disable=not progress) as bar:
        task = bar.add_task("phantoms", total=total)
        for _ in share_out(module, folder, recipe, total, workers):
            bar.advance(task)


def share_out(
    module: str, folder: Path, recipe: dict[str, Any], total: int, workers: int | None
) -> Iterator[None]:
    """Has the writer's images written in equal shares; yields once an image.

    total: how many there are; workers: processes, by default the CPUs. One process, or too little
    work to be worth more, runs here. Raises RuntimeError with a child's last words when one fails.
    """
    count = max(1, min(workers or _cpus(), 32, total // 8))
    if count == 1:
        yield from _write_share(module, folder, recipe, 0, 1)
        return
    # Not `-m`: the package's own import would have loaded this module once already.
    code = f"from {__name__} import main; main()"
    common = [sys.executable, "-c", code, module, str(folder), json.dumps(recipe)]
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as errors:
        children = [
            subprocess.Popen(
                [*common, str(k), str(count)], stdout=subprocess.PIPE, stderr=errors, env=alone
            )
            for k in range(count)
        ]
        try:
            # The shares are equal, so reading the children in turn keeps step with all of them.
            streams = [child.stdout for child in children]
            while streams:
                for stream in list(streams):
                    assert stream is not None
                    if stream.readline():
                        yield
                    else:
                        streams.remove(stream)
            codes = [child.wait() for child in children]
        finally:
            for child in children:
                child.kill()
                child.wait()
                if child.stdout:
                    child.stdout.close()
        if any(codes):
            errors.seek(0)
            words = errors.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"drawing phantoms failed (exit codes {codes}): {words}")


def _write_share(
    module: str, folder: Path, recipe: dict[str, Any], first: int, step: int
) -> Iterator[None]:
    """Writes every step-th image, beginning with the first-th."""
    writer = import_module(module)
    for job in islice(writer.plan(folder, recipe), first, None, step):
        writer.write_one(job)
        yield


def _cpus() -> int:
    """CPUs that this process may use; not all systems can tell them from those of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def main() -> None:
    """A child: writer's module, folder, recipe, index and number of shares as arguments."""
    cv2.setNumThreads(1)  # the processes share the cores already
    module, folder, recipe, first, step = sys.argv[1:]
    for _ in _write_share(module, Path(folder), json.loads(recipe), int(first), int(step)):
        # A parent that is gone breaks this pipe, which ends the child.
        print(flush=True)
