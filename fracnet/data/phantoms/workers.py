"""Writing a phantom dataset once, complete or not at all, with several processes.

A writer is a module with `plan(folder, recipe)`, all images in a fixed order, and
`write_image(planned)`. A complete folder holds its recipe; a folder without one is not fracnet's.
Unfinished work is under a hidden name next to it, which no dataset reads.

Plain child processes instead of multiprocessing: no child runs the caller's main module again, and
none inherits threads or locks of a parent that may already have loaded a deep-learning runtime.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from filelock import FileLock

from fracnet.utils.errors import UserError
from fracnet.utils.files import CannotWrite, disk_faults
from fracnet.utils.progress import progress_bar


def proportional(n: int, shares: Mapping[str, int]) -> list[str]:
    """n names, each as often as its share requires, within one."""
    total = sum(shares.values())
    edges = np.cumsum([0.0, *(share / total for share in shares.values())]) * n
    whole = np.round(edges).astype(int)
    return [name for name, k in zip(shares, np.diff(whole), strict=True) for _ in range(k)]


RECIPE = "phantom.json"
FULL = 28  # exit code of a child that cannot write, for example because the disk is full


def build_once(
    root: Path, folder: str, recipe: dict[str, Any], build: Callable[[Path], None]
) -> None:
    """Call `build(path)` to fill root/folder, unless it already holds a set of the same recipe.

    Concurrent callers wait for the first. Raises UserError if root/folder holds anything else or
    root cannot be written.
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
        if _is_complete(root / folder, recipe):
            return
        building = root / f".{folder}.{os.getpid()}"
        try:
            with disk_faults(root / folder):
                build(building)
                (building / RECIPE).write_text(_text(recipe), encoding="utf-8")
                os.replace(building, root / folder)
        finally:
            if building.exists():
                shutil.rmtree(building)
    finally:
        lock.release()


def _text(recipe: dict[str, Any]) -> str:
    return json.dumps(recipe, indent=2) + "\n"


def _is_complete(target: Path, recipe: dict[str, Any]) -> bool:
    if not target.exists():
        return False
    file = target / RECIPE
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    if text == _text(recipe):
        return True
    content = f"phantoms of another recipe ({' '.join(text.split())})" if text else "other data"
    raise UserError(
        f"{target} holds {content}, not phantoms with {json.dumps(recipe)}. "
        "Delete that folder or choose another data.root."
    )


def write_images(
    module: str, folder: Path, recipe: dict[str, Any], workers: int | None, progress: bool
) -> None:
    """Write the images with several processes; progress: whether to show how many are done."""
    total = sum(1 for _ in import_module(module).plan(folder, recipe))
    images = write_in_parallel(module, folder, recipe, total, workers)
    for _ in progress_bar(images, total, "drawing phantoms", visible=progress):
        pass


def write_in_parallel(
    module: str, folder: Path, recipe: dict[str, Any], total: int, workers: int | None
) -> Iterator[None]:
    """Write the images of a writer in equal shares; yields once per image.

    total: number of images; workers: processes, by default one per CPU. A single process, or too
    little work for more, runs in this one. Raises RuntimeError with the output of a child that
    fails, CannotWrite if it cannot write.
    """
    count = max(1, min(workers or _cpus(), 32, total // 8))
    if count == 1:
        yield from _write_share(module, folder, recipe, 0, 1)
        return
    # Not `-m`, because importing the package has already loaded this module.
    code = f"from {__name__} import main; main()"
    common = [sys.executable, "-c", code, module, str(folder), json.dumps(recipe)]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as errors:
        children = [
            subprocess.Popen(
                [*common, str(k), str(count)], stdout=subprocess.PIPE, stderr=errors, env=one_thread
            )
            for k in range(count)
        ]
        try:
            # The shares are equal, so reading the children in turn keeps pace with all of them.
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
            output = errors.read().decode(errors="replace")[-2000:]
            if FULL in codes:
                raise CannotWrite(output.strip().splitlines()[-1])
            raise RuntimeError(f"Could not generate phantoms (exit codes {codes}): {output}")


def _write_share(
    module: str, folder: Path, recipe: dict[str, Any], first: int, step: int
) -> Iterator[None]:
    """Write every step-th image, starting with number `first`."""
    writer = import_module(module)
    for planned in islice(writer.plan(folder, recipe), first, None, step):
        with disk_faults(folder):
            writer.write_image(planned)
        yield


def _cpus() -> int:
    """CPUs that this process may use; on some systems those of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def main() -> None:
    """A child process; arguments: module of the writer, folder, recipe, index, number of shares."""
    cv2.setNumThreads(1)  # the processes share the cores already
    module, folder, recipe, first, step = sys.argv[1:]
    try:
        for _ in _write_share(module, Path(folder), json.loads(recipe), int(first), int(step)):
            # If the parent dies, this pipe breaks, which ends the child.
            print(flush=True)
    except CannotWrite as error:
        print(error, file=sys.stderr)
        sys.exit(FULL)
