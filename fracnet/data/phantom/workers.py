"""Several processes write the images of one recipe.

Plain child processes rather than multiprocessing: no child runs the caller's main module again, and
none inherits the threads or locks of a parent that may already hold a deep-learning runtime.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2


def share_out(
    module: str, folder: Path, recipe: dict[str, Any], total: int, workers: int | None
) -> Iterator[None]:
    """Has `module.write_share(folder, recipe, first, step)` write all shares; yields once an image.

    total: number of images; workers: processes, by default the CPUs. One process, or too little
    work to be worth more, runs here. Raises RuntimeError with a child's last words when one fails.
    """
    count = max(1, min(workers or _cpus(), 32, total // 8))
    if count == 1:
        yield from import_module(module).write_share(folder, recipe, 0, 1)
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


def _cpus() -> int:
    """CPUs that this process may use; not all systems can tell them from those of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def main() -> None:
    """A child: writer's module, folder, recipe, index and number of shares as arguments."""
    cv2.setNumThreads(1)  # the processes share the cores already
    module, folder, recipe, first, step = sys.argv[1:]
    for _ in import_module(module).write_share(
        Path(folder), json.loads(recipe), int(first), int(step)
    ):
        # A parent that is gone breaks this pipe, which ends the child.
        print(flush=True)
