"""The checks of a training that need no heavy import: they fail within a second.

Importing torch and timm takes seconds, and a download or the phantoms may take an hour; a mistyped
name must wait for neither. What cannot be decided so is decided by `fracnet.training.rehearsal`,
after the imports.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra

from fracnet.config.checks import check
from fracnet.config.fields import Open, validated
from fracnet.config.hints import ALIASES
from fracnet.config.instantiate import build, is_timm_model
from fracnet.config.schema import Config, Data
from fracnet.config.targets import arguments_of, check_targets
from fracnet.data.datasets.base import Dataset
from fracnet.runs.run_folder import RunFolder
from fracnet.training import job_process, resume, sweep
from fracnet.utils import distributed
from fracnet.utils.errors import UserError, is_installed
from fracnet.utils.text import near_miss, quoted

TIMM_BACKBONE = "fracnet.models.backbones.timm_backbone"
SWEEP_KEYS = ("launcher", "sweeper", "search")
"""Keys of a sweep, which are no part of what one job is."""
TRAINER_RESERVED = {
    "callbacks": "add one with callbacks.<name>={_target_: ...}",
    "logger": "choose with logger=wandb, tensorboard, mlflow, csv or none",
    "enable_progress_bar": "use trainer.progress_bar",
    "default_root_dir": "use hydra.run.dir",
    "use_distributed_sampler": "fracnet's own loaders divide the rows among processes",
    "limit_predict_batches": "the predictions table needs every image",
    "enable_checkpointing": "a run is evaluated at its selected checkpoint",
    "enable_autolog_hparams": "fracnet logs the config itself, without private paths",
    "barebones": "it switches off validation metrics and checkpoints",
}
LOGGER_PACKAGES = {
    "wandb": "wandb", "TensorBoardLogger": "tensorboard", "MLFlowLogger": "mlflow",
    "CometLogger": "comet_ml", "NeptuneLogger": "neptune",
}  # fmt: skip
"""The package that a logger needs, by config key or class name."""


@dataclass(frozen=True)
class Order:
    """Where and how a run was started; `command` is the whole line, for its provenance.

    fixed_folder: whether the command names the folder.
    """

    folder: Path
    overrides: Sequence[str]
    command: Sequence[str]
    in_sweep: bool = False
    fixed_folder: bool = False


@dataclass(frozen=True)
class Plan:
    """A training whose quick checks have passed. dataset: None in a resumed run."""

    order: Order
    config: Config
    plain: Mapping[str, Any]
    dataset: Dataset | None

    @property
    def folder(self) -> RunFolder:
        """Where the run is written."""
        return RunFolder(self.order.folder)


def preflight(plain: dict[str, Any], order: Order) -> Plan:
    """Check everything that needs no heavy import, the quickest first; get the data.

    plain: the resolved config, as plain containers.

    Raises UserError for a fault in the config, the run folder or the data.
    """
    plain = {key: value for key, value in plain.items() if key not in SWEEP_KEYS}
    if isinstance(plain["data"].get("test_on"), str):
        plain = resolve_test_on(plain)
    config = check(plain)
    sweep.check_run(config, "fracnet.fit" in order.command)
    if os.environ.get(job_process.CHECK_VARIABLE) and not config.resume:
        place = Path(os.environ[job_process.SWEEP_VARIABLE])
        resume.check_new_job(place, plain, f"the job in {order.folder}")
    distributed.check_start(order.fixed_folder or bool(config.resume))
    if config.resume:
        folder = RunFolder.open(order.folder, "resume")
        if distributed.rank() == 0:
            with folder.in_use("resume"):
                pass  # training holds it; this answers before the imports
        plain = resume.frozen_config(folder, plain, order.overrides)
        config = check(plain)
    elif distributed.rank() == 0:
        resume.check_new(RunFolder(order.folder))
    check_trainer(config)
    check_loggers(config)
    check_names(config)
    if config.resume:
        return Plan(order, config, plain, None)
    dataset: Dataset = build(config.data.plain(), "data")
    if distributed.rank() == 0:
        dataset.prepare()
    return Plan(order, config, plain, dataset)


def resolve_test_on(plain: dict[str, Any]) -> dict[str, Any]:
    """The resolved config with the keys of the other dataset in place of its name.

    A resumed run then finds them in its saved config. Only to be called within a Hydra job.
    """
    name = plain["data"]["test_on"]
    choices = sorted(GlobalHydra.instance().config_loader().get_group_options("data"))
    if name not in choices:
        raise UserError(
            f"data.test_on={name} is not a dataset; allowed: {', '.join(choices)}."
            f"{near_miss(name, choices)}"
        )
    overrides = [f"data={name}", f"data_dir={quoted(plain['data_dir'])}"]
    test_on = validated(Data, compose("train", overrides).data, "data.test_on").plain()
    if root := plain["data"].get("test_root"):
        test_on["root"] = root
    test_on["on_bad_file"] = plain["data"]["on_bad_file"]  # one setting for all images
    return {**plain, "data": {**plain["data"], "test_on": test_on}}


def check_trainer(config: Config) -> None:
    """Raise UserError for a key under `trainer` that is not an argument of `lightning.Trainer`."""
    trainer = config.trainer
    for name, value in trainer.passed_on.items():
        if name in TRAINER_RESERVED:
            raise UserError(f"trainer.{name} is not allowed: {TRAINER_RESERVED[name]}.")
        if name in ("limit_train_batches", "limit_val_batches") and value == 0:
            raise UserError(f"trainer.{name}=0 is not allowed: validation selects the checkpoint.")
    path = "lightning.pytorch.trainer.trainer.Trainer"
    _check_passed_on(trainer, "trainer", "lightning.Trainer", path)


def _check_passed_on(node: Open, key: str, target: str, path: str) -> None:
    """Raise UserError for a further key of a node that is not an argument of `target` at `path`."""
    given = node.model_extra or {}
    known = arguments_of(path) if given else ()
    allowed = sorted({*known, *type(node).model_fields} - set(TRAINER_RESERVED))
    for name in (name for name in given if known and name not in known):
        meant = ALIASES.get(name, "").partition(f"{key}.")[2] or name
        raise UserError(
            f"{key}.{name}={given[name]}: {target} has no such argument; allowed: "
            f"{', '.join(allowed)}.{near_miss(meant, allowed)}"
        )


def check_loggers(config: Config) -> None:
    """Raise UserError for a logger whose package is missing, or a wrong argument of W&B."""
    nodes: dict[str, Any] = dict(config.logger.model_extra or {})
    wandb = config.logger.wandb
    if wandb is not None and wandb.mode != "disabled":
        nodes["wandb"] = None
    for name, node in nodes.items():
        target = str((node or {}).get("_target_", name)).rpartition(".")[2]
        package = LOGGER_PACKAGES.get(target)
        if package and not is_installed(package):
            raise UserError(
                f"logger={name} needs the package {package}, which is not installed: "
                f"pip install {package}"
            )
    if wandb is not None:
        _check_passed_on(wandb, "logger.wandb", "wandb.init", "wandb.sdk.wandb_init.init")


def check_names(config: Config) -> None:
    """Raise UserError for a class that does not exist, a wrong argument or an unknown timm model.

    Imports none of the user's modules.
    """
    check_targets(config)
    name = str(config.model.plain().get("name"))
    if config.model.target == TIMM_BACKBONE and not is_timm_model(name.split(".")[0]):
        from fracnet.models.backbones import check_name  # seconds, to list all names of timm

        check_name(name)
