"""Making a phantom data set once: all or nothing, by one process at a time, never over other data.

A finished folder holds its recipe; a folder without it is not ours. What is unfinished lies beside
it under a hidden name, where no source looks.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from fracnet.errors import UserError

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
