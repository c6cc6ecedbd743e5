"""Go on with a run that was cut off: same folder, frozen config, no epoch twice."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch.plugins.io import TorchCheckpointIO

from fracnet.runs.run_folder import RunFolder, write_whole
from fracnet.utils.errors import UserError
from fracnet.utils.text import counted

# What may be given beside `resume=`; everything else is the run's own.
FREE = ("trainer.max_epochs",)


def frozen_config(
    folder: RunFolder, composed: Mapping[str, Any], overrides: Sequence[str]
) -> dict[str, Any]:
    """The run's own config, with `trainer.max_epochs` from the command line if it stands there.

    Args:
        folder: the run to go on with.
        composed: what Hydra composed for this command.
        overrides: the words of this command.

    Raises:
        UserError: no such run, a finished one, or an override that would change it.
    """
    if not folder.config.is_file():
        raise UserError(
            f"resume={folder.path} is no run folder: it has no config.yaml; allowed: a folder "
            "that fracnet.train printed as its run."
        )
    keys = [word.lstrip("+~").partition("=")[0] for word in overrides]
    foreign = [
        word
        for word, key in zip(overrides, keys, strict=True)
        if key not in ("resume", *FREE) and not key.startswith("hydra.")
    ]
    if foreign:
        raise UserError(
            f"resume={folder.path} goes on with that run's own config, so {', '.join(foreign)} "
            f"cannot be given; allowed beside it: {', '.join(FREE)}."
        )
    if not last(folder).is_file():
        raise UserError(
            f"resume={folder.path}: there is no checkpoints/last.ckpt to go on from. A run has one "
            "from the end of its first epoch until it has finished."
        )
    plain: dict[str, Any] = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
    done = epochs_done(folder)
    if "trainer.max_epochs" in keys:
        if "T_max" in (plain["scheduler"] or {}):
            print(
                f"note    the cosine schedule keeps its T_max={plain['scheduler']['T_max']}: after "
                "that epoch the learning rate rises again"
            )
        plain["trainer"]["max_epochs"] = composed["trainer"]["max_epochs"]
    wanted = plain["trainer"]["max_epochs"]
    if isinstance(wanted, int) and wanted < done:
        raise UserError(
            f"trainer.max_epochs={wanted}: the run in {folder.path} has {counted(done, 'epoch')} "
            f"already; allowed: {done} and more."
        )
    return plain | {"resume": str(folder.path)}


def last(folder: RunFolder) -> Path:
    """The checkpoint that holds all a resumed run needs."""
    return folder.checkpoints / "last.ckpt"


def left_behind(folder: RunFolder) -> str:
    """One clause for whoever has interrupted a run."""
    if last(folder).is_file():
        return f"curves and last.ckpt are in {folder.path}"
    return f"no epoch was over, so {folder.path} holds nothing to go on from"


def epochs_done(folder: RunFolder) -> int:
    """Whole epochs that the last checkpoint has behind it."""
    stored = torch.load(last(folder), map_location="cpu", weights_only=True)
    return int(stored["epoch"]) + 1


def trim_curves(folder: RunFolder) -> None:
    """Drop rows of epochs after the last checkpoint: they will be trained, and written, again."""
    if not folder.curves.is_file():
        return
    done = epochs_done(folder)
    with folder.curves.open(newline="", encoding="utf-8") as file:
        lines = file.read().splitlines(keepends=True)
    header, *rows = lines
    place = next(csv.reader([header])).index("epoch")
    kept = [
        row
        for row in rows
        # A row that was cut off by the kill has no line end.
        if row.endswith("\n") and int(float(next(csv.reader([row]))[place])) <= done
    ]
    write_whole(folder.curves, "".join([header, *kept]))


class WholeCheckpoints(TorchCheckpointIO):
    """A checkpoint is there whole or not at all: a kill half-way leaves the one before."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write beside the place, then move into it."""
        draft = f"{path}.part"
        super().save_checkpoint(checkpoint, draft, storage_options)
        with open(draft, "rb") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
