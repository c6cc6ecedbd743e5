"""Resume an interrupted run: same folder, same config, no epoch trained twice."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fracnet.runs.run_folder import RunFolder, read_trusted_config
from fracnet.utils.errors import UserError
from fracnet.utils.files import write_atomically
from fracnet.utils.text import counted

ALLOWED_KEYS = ("trainer.max_epochs", "trust")
"""What may be given with `resume=`; everything else comes from the run's config."""


def frozen_config(
    folder: RunFolder, composed: Mapping[str, Any], overrides: Sequence[str]
) -> dict[str, Any]:
    """The run's saved config, with `trainer.max_epochs` from the command line if given there.

    Args:
        folder: the run to resume.
        composed: what Hydra composed for this command.
        overrides: those of this command.

    Raises:
        UserError: no such run, a finished run, an override that would change it, or a config that
            names classes that a stranger's folder may not call.
    """
    if not folder.config.is_file():
        raise UserError(
            f"resume={folder.path} is not a run folder: it has no config.yaml; allowed: a folder "
            "that fracnet.train printed as its run."
        )
    keys = [override.lstrip("+~").partition("=")[0] for override in overrides]
    conflicting = [
        override
        for override, key in zip(overrides, keys, strict=True)
        if key not in ("resume", *ALLOWED_KEYS) and not key.startswith("hydra.")
    ]
    if conflicting:
        raise UserError(
            f"resume={folder.path} uses the run's saved config, so {', '.join(conflicting)} "
            f"cannot be given; allowed with it: {', '.join(ALLOWED_KEYS)}."
        )
    if not last_checkpoint(folder).is_file():
        raise UserError(
            f"resume={folder.path}: there is no checkpoints/last.ckpt to resume from. A run has "
            "one from the end of its first epoch until it finishes."
        )
    trust = bool(composed.get("trust"))
    plain = read_trusted_config(folder, trust, key="resume", training=True)
    if "trainer.max_epochs" in keys:
        _check_schedule(plain, composed["trainer"]["max_epochs"])
        plain["trainer"]["max_epochs"] = composed["trainer"]["max_epochs"]
    return plain | {"resume": str(folder.path), "trust": trust}


def _check_schedule(plain: Mapping[str, Any], max_epochs: Any) -> None:
    """Say what a longer run does to a schedule that was planned for the shorter one."""
    scheduler = plain.get("scheduler") or {}
    before = plain["trainer"]["max_epochs"]
    if max_epochs == before:
        return
    if scheduler.get("total_steps"):
        raise UserError(
            f"trainer.max_epochs={max_epochs}: the schedule {scheduler['_target_']} is planned for "
            f"all steps of {before} epochs; allowed with resume: {before}."
        )
    if isinstance(max_epochs, int) and scheduler.get("T_max", max_epochs) < max_epochs:
        print(
            f"note    the cosine schedule keeps T_max={scheduler['T_max']}: after that epoch the "
            "learning rate rises again"
        )


def last_checkpoint(folder: RunFolder) -> Path:
    """The checkpoint that holds all that a resumed run needs."""
    return folder.checkpoints / "last.ckpt"


def resume_hint(folder: RunFolder) -> str:
    """One clause for a user who has interrupted a run."""
    if last_checkpoint(folder).is_file():
        return f"curves and last.ckpt are in {folder.path}"
    return f"no epoch finished, so {folder.path} has no checkpoint to resume from"


def check_epochs(folder: RunFolder, max_epochs: int) -> None:
    """Raise UserError where the run has more epochs than it is to have."""
    done = epochs_done(folder)
    if max_epochs < done:
        raise UserError(
            f"trainer.max_epochs={max_epochs}: the run in {folder.path} already has "
            f"{counted(done, 'epoch')}; allowed: {done} and more."
        )


def epochs_done(folder: RunFolder) -> int:
    """Whole epochs in the last checkpoint."""
    import torch  # seconds, which a mistyped folder need not wait for

    stored = torch.load(last_checkpoint(folder), map_location="cpu", weights_only=True)
    return int(stored["epoch"]) + 1


def trim_curves(folder: RunFolder) -> None:
    """Drop the rows of epochs after the last checkpoint, which will be trained again."""
    if not folder.curves.is_file():
        return
    done = epochs_done(folder)
    with folder.curves.open(newline="", encoding="utf-8") as file:
        lines = file.read().splitlines(keepends=True)
    header, *rows = lines
    place = next(csv.reader([header])).index("epoch")
    complete = [
        row
        for row in rows
        # A row that a kill has cut off has no line end.
        if row.endswith("\n") and int(float(next(csv.reader([row]))[place])) <= done
    ]
    write_atomically(folder.curves, "".join([header, *complete]))
