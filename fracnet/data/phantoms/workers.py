"""Writing a phantom dataset once, complete or not at all, with several processes.

A complete folder holds its recipe; a folder without one is not fracnet's. Unfinished work is under
a hidden name next to it, which no dataset reads.

Plain child processes instead of multiprocessing: no child runs the caller's main module again, and
none inherits threads or locks of a parent that may already have loaded a deep-learning runtime.
"""

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import IO, Any, TypeVar

import cv2
import numpy as np
from filelock import FileLock

from fracnet.utils.errors import UserError
from fracnet.utils.files import atomic_folder
from fracnet.utils.progress import progress_bar

Image = TypeVar("Image")
Result = TypeVar("Result")


def proportional(n: int, shares: Mapping[str, int]) -> list[str]:
    """n names, each as often as its share requires, within one."""
    total = sum(shares.values())
    edges = np.cumsum([0.0, *(share / total for share in shares.values())]) * n
    whole = np.round(edges).astype(int)
    return [name for name, k in zip(shares, np.diff(whole), strict=True) for _ in range(k)]


RECIPE = "phantom.json"


def build_once(
    root: Path, folder: str, recipe: dict[str, Any], build: Callable[[Path], None]
) -> None:
    """Call `build(path)` to fill root/folder, unless it already holds a set of the same recipe.

    Concurrent callers wait for the first. Raises UserError if root/folder holds anything else or
    root cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / ".phantom.lock").acquire()
    except OSError as error:
        raise UserError(f"data.root={root} cannot be written: {error}.") from error
    with lock:
        if not _is_complete(root / folder, recipe):
            with atomic_folder(root / folder) as draft:
                build(draft)
                (draft / RECIPE).write_text(_text(recipe), encoding="utf-8")


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
    images: Sequence[Image],
    write: Callable[[Image], Result],
    workers: int | None,
    progress: bool,
) -> list[Result]:
    """What `write`, a function of a module, returns for each image, in order.

    workers: processes, by default one per CPU. A single process, or too little work for more, runs
    in this one. progress: whether to show how many are done. Raises what `write` raises, and
    RuntimeError with the output of a process that died.
    """
    count = max(1, min(workers or len(os.sched_getaffinity(0)), 32, len(images) // 8))
    results = map(write, images) if count == 1 else _in_parallel(images, write, count)
    return list(progress_bar(results, len(images), "drawing phantoms", visible=progress))


def _in_parallel(
    images: Sequence[Image], write: Callable[[Image], Result], count: int
) -> Iterator[Result]:
    # Not `-m`, because importing the package has already loaded this module.
    command = [sys.executable, "-c", f"from {__name__} import main; main()"]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as output:
        children = [
            subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=output, env=one_thread)
            for _ in range(count)
        ]
        try:
            for number, child in enumerate(children):
                with _deaths(child, output):
                    assert child.stdin is not None
                    pickle.dump((write, images[number::count]), child.stdin)
                    child.stdin.flush()
            # The shares are equal, so reading the children in turn keeps pace with all of them.
            for number in range(len(images)):
                child = children[number % count]
                with _deaths(child, output):
                    assert child.stdout is not None
                    result = pickle.load(child.stdout)
                if isinstance(result, Exception):
                    raise result
                yield result
        finally:
            for child in children:
                child.kill()
                child.communicate()  # closes its pipes and waits for its end


@contextmanager
def _deaths(child: subprocess.Popen[bytes], output: IO[bytes]) -> Iterator[None]:
    """Raise RuntimeError with the end of the output if the child ends before its work does."""
    try:
        yield
    except (BrokenPipeError, EOFError, pickle.UnpicklingError) as error:
        code = child.wait()
        output.seek(0)
        why = output.read().decode(errors="replace")[-2000:].strip() or "is memory short?"
        raise RuntimeError(
            f"A process that draws phantoms died (exit code {code}): {why}"
        ) from error


def main() -> None:
    """A child process: gets the function and its images, answers with results or an exception."""
    cv2.setNumThreads(1)  # the processes share the cores already
    # What `write` prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    write, images = pickle.load(sys.stdin.buffer)
    for image in images:
        try:
            result = write(image)
        except Exception as error:
            # The parent raises it. One that cannot be sent ends this process with a traceback.
            result = pickle.loads(pickle.dumps(error))
        # If the parent dies, this pipe breaks, which ends the child.
        pickle.dump(result, answers)
        answers.flush()
