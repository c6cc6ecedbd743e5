"""A small dataset on disk with planted faults, and its audit."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.command import CommandResult, run_command
from helpers.tiny import picture

from fracnet.audit import audit
from fracnet.data.manifest import Manifest
from fracnet.data_audit.run_audit import AuditResult, run_audit
from fracnet.utils.progress import no_progress

CLASSES = ("normal", "fractured")


def write_set(root: Path, train: int = 20, val: int = 6, test: int = 8) -> Path:
    """Different pictures in `root/<split>/<class>`, half of each class."""
    seed = 0
    for split, count in {"train": train, "val": val, "test": test}.items():
        for i in range(count):
            path = root / split / CLASSES[i % 2] / f"{split}{i:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            seed += 1
            write_picture(path, picture(seed, 120, 100))
    return root


def write_picture(path: Path, image: np.ndarray) -> None:
    """As PNG."""
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())


def read_picture(path: Path) -> np.ndarray:
    """Grey."""
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert image is not None, path
    return image


def audit_manifest(manifest: Manifest, on_bad_file: str = "error") -> AuditResult:
    """The audit of a manifest, with one thread and no progress bar, for tests of its page.

    Its forests are so small that they find no shortcut, which takes most of the time otherwise.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fracnet.data_audit.shortcuts.TREES", {"all": 5, "family": 2})
        return run_audit(manifest, on_bad_file=on_bad_file, progress=no_progress, workers=1)


def folder_overrides(root: Path, out: Path) -> list[str]:
    """Overrides of a command on such a dataset."""
    order = "data.class_order=[normal,fractured]"
    return ["data=folder", f"data.root={root}", order, f"out={out}"]


def run_audit_command(
    overrides: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> CommandResult:
    """`python -m fracnet.audit OVERRIDES` without the cost of a new process."""
    return run_command(audit, "audit", overrides, capsys)
