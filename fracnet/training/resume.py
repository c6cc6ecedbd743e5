"""Resume an interrupted run: same folder, same config, no epoch trained twice."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fracnet.config.checks import check
from fracnet.config.schema import Config
from fracnet.config.trust import check_trust, upload_seal
from fracnet.runs.run_folder import (
    RunFolder,
    read_mapping,
    read_status,
    read_trusted_config,
)
from fracnet.training import sweep
from fracnet.training.sweep_plan import JOB_FILE, JobRecord, job_folders
from fracnet.utils.errors import UserError
from fracnet.utils.files import write_atomically
from fracnet.utils.result_files import RUN, TRACKING, check_no_results
from fracnet.utils.text import counted

ALLOWED_KEYS = ("trainer.max_epochs", "logger.wandb.mode", "trust")
"""What may be given with `resume=`; everything else comes from the run's config."""


def frozen_config(
    folder: RunFolder, composed: Mapping[str, Any], overrides: Sequence[str]
) -> dict[str, Any]:
    """The run's saved config, with `trainer.max_epochs` from the command line if given there.

    composed: what Hydra composed for this command, from `overrides`.

    Raises UserError where there is no such run, it is finished, an override would change it, or its
    config names classes that a stranger's folder may not call.
    """
    sweep.check_resumable(folder.path)
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
    trust = bool(composed.get("trust"))
    plain = read_trusted_config(folder, trust, key="resume", training=True)
    mode = composed["logger"]["wandb"]["mode"] if "logger.wandb.mode" in keys else None
    if mode is not None:
        if not (plain.get("logger") or {}).get("wandb"):
            raise UserError(
                f"logger.wandb.mode={mode}: the run in {folder.path} has no W&B logger."
            )
        plain["logger"]["wandb"]["mode"] = mode
    config = check(plain)
    if mode is None and not trust:
        _check_upload(folder, config)
    max_epochs = composed["trainer"]["max_epochs"] if "trainer.max_epochs" in keys else None
    finished = read_status(folder) == "finished"
    if finished:
        _check_addition(folder, config, max_epochs)
    if not last_checkpoint(folder).is_file():
        raise UserError(
            f"resume={folder.path}: there is no checkpoints/last.ckpt to resume from. A run has "
            "one from the end of its first epoch."
        )
    if max_epochs is not None:
        _check_schedule(plain, max_epochs, finished)
        plain["trainer"]["max_epochs"] = max_epochs
    return plain | {"resume": str(folder.path), "trust": trust}


def _check_upload(folder: RunFolder, config: Config) -> None:
    """Raise UserError where a folder of somebody else decides where results are uploaded."""
    if place := _unasked_upload([folder.path], config):
        raise UserError(
            f"resume={folder.path} would send its results to Weights & Biases ({place}), and you "
            "have not started it here. Add logger.wandb.mode=online to send them there, or "
            "logger.wandb.mode=offline to keep them here."
        )


def check_new_job(sweep: Path, plain: Mapping[str, Any], name: str) -> None:
    """Raise UserError for a job that a stranger may have planned, and that does what needs trust.

    sweep: its folder. plain: the job's config. name: of the job, for messages.
    """
    check_trust(plain, False, name, training=True)
    if place := _unasked_upload(list(job_folders(sweep).values()), check(plain)):
        raise UserError(
            f"{name} would send its results to Weights & Biases ({place}), where no job of this "
            "sweep has sent results from here. If you know where the sweep comes from, add "
            "trust=true."
        )


def uploads_unasked(folder: RunFolder, plain: Mapping[str, Any]) -> bool:
    """Whether the logger of a run needs trust: a stranger may have written its config."""
    try:
        check_trust({"logger": plain["logger"]}, False, str(folder.config), training=True)
    except UserError:
        return True
    return bool(_unasked_upload([folder.path], check(plain)))


def _unasked_upload(folders: Sequence[Path], config: Config) -> str:
    """Where results would be sent on W&B that no run in `folders` has sent there from here."""
    wandb = config.logger.wandb
    if wandb is None or wandb.mode != "online":
        return ""
    for tracking in (read_mapping(folder / TRACKING) for folder in folders):
        seal = upload_seal(str(tracking.get("id")), wandb.entity, wandb.project)
        if tracking.get("seal") == seal:
            return ""
    return f"{wandb.entity or 'your entity'}/{wandb.project or 'your project'}"


def _check_addition(folder: RunFolder, config: Config, max_epochs: Any) -> None:
    """Raise UserError for a finished run unless it is to have more epochs, and can have them."""
    begin = f"resume={folder.path} is finished"
    if not config.model.by_epochs:
        raise UserError(f"{begin}; its model has no epochs to add.")
    planned = config.trainer.max_epochs
    if not last_checkpoint(folder).is_file():
        raise UserError(
            f"{begin}, and epochs can be added only to a run that has checkpoints/last.ckpt; jobs "
            f"of a sweep drop it. Train again with trainer.max_epochs={planned + 1} or more."
        )
    if not isinstance(max_epochs, int) or max_epochs <= planned:
        raise UserError(
            f"{begin}; add epochs with trainer.max_epochs={planned + 1} or more (it was trained "
            f"with trainer.max_epochs={planned})."
        )


def _check_schedule(plain: Mapping[str, Any], max_epochs: Any, finished: bool) -> None:
    """Say what a longer run does to a schedule that was planned for the shorter one."""
    scheduler = plain.get("scheduler") or {}
    before = plain["trainer"]["max_epochs"]
    if max_epochs == before:
        return
    steps = scheduler.get("total_steps")
    if finished and steps == "auto":
        print("note    the learning rate starts its schedule again for the added epochs")
        return
    if steps:
        allowed = "train again with more of both" if finished else f"allowed with resume: {before}"
        raise UserError(
            f"trainer.max_epochs={max_epochs}: the schedule {scheduler['_target_']} is planned for "
            f"all steps of {before} epochs (scheduler.total_steps={steps}); {allowed}."
        )
    by_epoch = scheduler.get("interval", "epoch") == "epoch"
    lowest = scheduler.get("T_max", max_epochs)
    if by_epoch and isinstance(max_epochs, int) and lowest < max_epochs:
        # The schedule has its lowest rate in the epoch after T_max steps.
        rises = ", then it rises again" if lowest + 1 < max_epochs else ""
        print(
            f"note    the cosine schedule keeps T_max={lowest}: the learning rate is "
            f"{scheduler.get('eta_min', 0):g} in epoch {lowest + 1}{rises}"
        )


def check_new(folder: RunFolder) -> None:
    """Raise UserError where a new run would overwrite, or continue the curves of, another one."""
    files = (folder.provenance, folder.curves, folder.predictions)
    existing = next((path.name for path in files if path.exists()), None)
    if existing is None:
        check_no_results(folder.path, RUN, "hydra.run.dir")
        return
    status = read_status(folder)
    about = f"a run with status {status!r}" if status else f"{existing} of another run"
    raise UserError(
        f"hydra.run.dir={folder.path} holds {about}; choose a new folder, remove this one, or "
        f"resume it with: python -m fracnet.train resume={folder.path}"
    )


def last_checkpoint(folder: RunFolder) -> Path:
    """The checkpoint that holds all that a resumed run needs."""
    return folder.checkpoints / "last.ckpt"


def resume_hint(folder: RunFolder) -> str:
    """One clause for a user who has interrupted a run."""
    if last_checkpoint(folder).is_file():
        return f"curves and last.ckpt are in {folder.path}"
    return f"no checkpoint was saved yet, so there is nothing to resume in {folder.path}"


@contextmanager
def resumed_job(folder: Path, resumed: bool, overrides: Sequence[str] = ()) -> Iterator[bool]:
    """Keep job.json up to date while one job of a sweep is resumed; yields whether it is one.

    overrides: those of the command, which replace the job's own.
    """
    path = folder / JOB_FILE
    if not resumed or not path.is_file():
        yield False
        return
    content = read_mapping(path)
    given = [o for o in overrides if not o.startswith(("resume=", "trust=", "hydra."))]
    own = [str(override) for override in content.get("overrides") or ()]
    by_key = {o.lstrip("+~").partition("=")[0]: o for o in [*own, *given]}
    record = JobRecord(folder, content | {"overrides": list(by_key.values())})
    record.write("running")
    try:
        yield True
    except BaseException as error:
        record.write(*sweep.outcome(error))
        raise
    record.write("finished")
    parents = (parent for parent in folder.parents if (parent / sweep.MULTIRUN_FILE).is_file())
    place = next(parents, folder.parent)
    print(f"The run is a job of a sweep; `python -m fracnet.sweep {place}` shows all of it.")


def check_epochs(folder: RunFolder, done: int, max_epochs: int) -> None:
    """Raise UserError where the run has more epochs, `done`, than it is to have."""
    if max_epochs < done:
        raise UserError(
            f"trainer.max_epochs={max_epochs}: the run in {folder.path} already has "
            f"{counted(done, 'epoch')}; allowed: {done} and more."
        )


def trim_curves(folder: RunFolder, done: int) -> None:
    """Drop the rows after the `done` epochs of the last checkpoint, which will be trained again.

    A kill while a row is written leaves a part of it, without a line end; that is dropped as well.
    """
    if not folder.curves.is_file():
        return
    with folder.curves.open(newline="", encoding="utf-8", errors="replace") as file:
        lines = [line for line in file.read().splitlines(keepends=True) if line.endswith("\n")]
    if not lines:
        folder.curves.unlink()
        return
    header, *rows = lines
    columns = next(csv.reader([header]))
    if "epoch" not in columns:
        raise UserError(f"{folder.curves} cannot be read: it has no column epoch.")
    place = columns.index("epoch")
    remaining = []
    for row in rows:
        cells = next(csv.reader([row]))
        try:
            epoch = int(float(cells[place]))
        except (ValueError, IndexError, OverflowError) as error:
            raise UserError(
                f"{folder.curves} cannot be read: {row.strip()[:80]!r} is not a row of an epoch."
            ) from error
        if epoch <= done:
            remaining.append(row)
    write_atomically(folder.curves, "".join([header, *remaining]))
