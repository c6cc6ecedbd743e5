"""Lightning's loggers for a run, and Weights & Biases guarded so that it never holds up a training.

metrics.csv is always written, by `fracnet.training.callbacks.Curves`. W&B runs offline unless the
config or the environment says otherwise, asks no questions, and receives no local path and no
patient id.
"""

import json
import os
import queue
import secrets
import shlex
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import wandb
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.loggers.logger import DummyExperiment

from fracnet.config.checks import check, mode_of, selecting_metrics
from fracnet.config.instantiate import build
from fracnet.config.schema import Config, Wandb
from fracnet.config.search import sweep_overrides
from fracnet.config.trust import upload_seal
from fracnet.data.datamodule import RadiographData
from fracnet.models.validation import LOGGED
from fracnet.runs.find_runs import REPEAT_KEYS
from fracnet.runs.run_folder import RunFolder, read_mapping, write_json
from fracnet.training import logged_results
from fracnet.training.resume import uploads_unasked
from fracnet.training.sweep import sweep_folder
from fracnet.utils.errors import UserError
from fracnet.utils.redaction import Scrubber
from fracnet.utils.result_files import TRACKING

MAX_NAME = 80
"""Characters of a run's name in W&B."""
# Overrides that do not make a run another experiment.
IGNORED_KEYS = (
    "data_dir", "data.root", "data.num_workers", "hydra", "logger", "resume", "debug", "trust",
    "trainer.accelerator", "trainer.progress_bar", "trainer.devices",
)  # fmt: skip
MADE_FROM = ("command", "seed", "data_fingerprint", "device", "code", "python", "packages")
"""The parts of a run's provenance that loggers receive."""
# Nothing on the screen, and nothing about the machine but what stands in the config.
SETTINGS: dict[str, Any] = {
    "console": "off",
    "silent": True,
    "symlink": False,
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "label_disable": True,
    "host": "",
    "program": "",
    "x_disable_machine_info": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
    "use_dot_wandb": False,
    # A row is in the file after a second, and survives if the run is killed.
    "x_transaction_log_flush_interval": 1.0,
}
EXIT_CODES = {"finished": 0, "pruned": 0, "interrupted": 130}
"""W&B's exit code by status; 1 for any other."""
COMPLETE = "metrics.csv and the run folder have everything"
FINISH = "to finish"
MAX_GROUP = 128
"""Characters of a group's name in W&B."""


@dataclass(frozen=True)
class Identity:
    """What stays the same when a run is resumed; tracking.json keeps it, on this machine alone.

    salt: of the hashes that stand for patients and studies. group: the job's sweep; where the seed
    or the fold is swept, its configuration. seal: see `upload_seal`.
    """

    id: str
    salt: str
    name: str
    group: str | None
    in_sweep: bool
    choices: dict[str, str]
    overrides: list[str]
    seal: str = ""

    @classmethod
    def of(cls, folder: RunFolder) -> "Identity":
        """The stored one, or a new one for the current Hydra job, which is stored."""
        path = folder.path / TRACKING
        if path.is_file():
            try:
                return cls(**read_mapping(path))
            except TypeError as error:
                raise UserError(f"{path} cannot be read: {error}.") from error
        hydra = HydraConfig.get()
        sweep = sweep_folder()
        choices = {
            str(group): str(choice)
            for group, choice in hydra.runtime.choices.items()
            if not str(group).startswith("hydra") and choice is not None
        }
        overrides = list(hydra.overrides.task)
        swept = swept_keys(sweep) if sweep else ()
        identity = cls(
            secrets.token_hex(4),
            secrets.token_hex(16),
            run_name(overrides, choices, swept),
            group_name(sweep.name, overrides, choices, swept) if sweep else None,
            sweep is not None,
            choices,
            overrides,
        )
        write_json(path, asdict(identity))
        return identity


def run_name(
    overrides: Sequence[str], choices: Mapping[str, str], swept: Sequence[str] = ()
) -> str:
    """Model, data and what was overridden; in a sweep only what differs between its jobs."""
    parts = [] if swept else [choices.get("model", ""), choices.get("data", "")]
    for override in overrides:
        key, value = _key_and_value(override)
        if key in swept if swept else not _is_minor(key, value, choices):
            parts.append(value if key in choices else f"{key.rpartition('.')[2]}={value}")
    name = " ".join(dict.fromkeys(filter(None, parts))) or "run"
    return name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…"


def group_name(
    sweep: str, overrides: Sequence[str], choices: Mapping[str, str], swept: Sequence[str]
) -> str:
    """The sweep's name; with the configuration where its seeds or folds have a group together."""
    others = [key for key in swept if key not in REPEAT_KEYS]
    if len(others) == len(swept) or not others:
        return sweep
    return f"{sweep}: {run_name(overrides, choices, others)}"[:MAX_GROUP]


def _is_minor(key: str, value: str, choices: Mapping[str, str]) -> bool:
    if key in choices and value == choices[key]:
        return key not in ("model", "data")
    return any(sign in value for sign in "/\\{[~") or key.startswith(IGNORED_KEYS)


def swept_keys(sweep: Path) -> tuple[str, ...]:
    """Keys with more than one value in the sweep's multirun.yaml; () where there is none."""
    record = sweep / "multirun.yaml"
    if not record.is_file():
        return ()
    overrides = sweep_overrides(yaml.safe_load(record.read_text(encoding="utf-8"))["hydra"])
    return tuple(dict.fromkeys(_key_and_value(o)[0] for o in overrides if _has_several_values(o)))


def _key_and_value(override: str) -> tuple[str, str]:
    key, _, value = override.lstrip("+~").partition("=")
    return key, value


def _has_several_values(override: str) -> bool:
    try:
        return bool(OverridesParser.create().parse_override(override).is_sweep_override())
    except HydraException:  # a sampler of another sweeper's grammar
        return True


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every value under its dotted key, such as `optim.lr`, by which W&B can sort and group."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, list | tuple) else value
    return flat


class _Starting:
    """A W&B run that is about to exist: Lightning asks for it before the fit, and does not use it.

    A callback of the user's may, and waits.
    """

    def __init__(self, run: Callable[[], Any]) -> None:
        object.__setattr__(self, "_run", run)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._run(), name, value)


class GuardedWandbLogger(WandbLogger):
    """Lightning's W&B logger, which works in a thread of its own and can only fail or time out.

    The training hands over each call and goes on; it waits for W&B at its end, at most `timeout`
    seconds. Errors become one warning. A run that cannot go online is recorded offline.
    """

    def __init__(self, timeout: float, modes: Mapping[str, str], **arguments: Any) -> None:
        """`modes`: of each validation metric, whether its best value is the `min` or the `max`."""
        super().__init__(**arguments)
        self._modes = modes
        self._wandb_init.pop("anonymous", None)  # of no effect, but W&B warns about it
        self._timeout = timeout
        self._calls: queue.SimpleQueue[tuple[str, Callable[[], Any]] | None] = queue.SimpleQueue()
        self._started = threading.Event()
        self._finished = False
        self._warned = False
        self.url: str | None = None
        self.folder: Path | None = None
        self._enqueue("to start", self._open)
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        self._thread.start()

    @property
    def experiment(self) -> Any:
        """The W&B run; while it starts, something that waits for it at the first use."""
        if threading.current_thread() is not self._thread:
            return self._after_start() if self._started.is_set() else _Starting(self._after_start)
        return WandbLogger.experiment.fget(self)  # type: ignore[attr-defined]

    def _after_start(self) -> Any:
        self._started.wait(self._timeout)
        return self._experiment or DummyExperiment()

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Hand metrics over. The step is W&B's own, so that a resumed run repeats none."""
        row = dict(metrics) if step is None else {**metrics, "trainer/global_step": step}
        # The training loss is the last of an epoch's metrics: the row is complete, and written now,
        # so that a killed run keeps it.
        commit = "train/loss" in row or None
        self._enqueue("to log metrics", lambda: self.experiment.log(row, step=step, commit=commit))

    def log_hyperparams(self, params: Any, *args: Any) -> None:
        """Nothing: `wandb.init` receives the run's whole config."""

    def after_save_checkpoint(self, checkpoint_callback: Checkpoint) -> None:
        """Remember the selected checkpoint for `log_model`; last.ckpt stays here."""
        if isinstance(checkpoint_callback, ModelCheckpoint) and checkpoint_callback.monitor:
            super().after_save_checkpoint(checkpoint_callback)

    def finalize(self, status: str) -> None:
        """Nothing yet: `close` ends the run, after its results."""

    def log_results(self, results: "logged_results.Results") -> None:
        """Hand over summary metrics, tables, figures and example images."""
        self._enqueue("to log tables and figures", lambda: results.log_media(self.experiment))
        # Last, so that the single precision of the last epoch's row does not take its place.
        self.summarize(results.summary)

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Hand over summary metrics."""
        self._enqueue("to store the summary", lambda: self.experiment.summary.update(dict(values)))

    def close(self, status: str) -> bool:
        """End the run; whether W&B has everything."""
        deadline = time.monotonic() + self._timeout
        if status == "finished":
            self._enqueue("to store the checkpoint", lambda: WandbLogger.finalize(self, "success"))
        self.summarize({"status": status})
        self._enqueue(FINISH, lambda: self.experiment.finish(EXIT_CODES.get(status, 1)))
        self._calls.put(None)
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._warn(f"did not answer within logger.wandb.timeout={self._timeout:g} seconds")
        return self._finished

    def _enqueue(self, action: str, call: Callable[[], Any]) -> None:
        self._calls.put((action, call))

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            action, call = item
            if action == "to start" or self._experiment is not None:
                self._finished = self._attempt(action, call) and action == FINISH
            self._started.set()

    def _attempt(self, action: str, call: Callable[[], Any]) -> bool:
        try:
            call()
        # Everything, on purpose: whatever W&B or its server raises, now or in a later release,
        # costs the run its tracking and nothing else, and is reported.
        except (Exception, SystemExit) as error:
            lines = str(error).strip().splitlines() or [""]
            self._warn(f"failed {action} ({type(error).__name__}: {lines[0]})"[:300])
            return False
        return True

    def _open(self) -> None:
        online = self._wandb_init["mode"] == "online"
        earlier = self._online_folders()
        if online and not self._attempt("to go online", lambda: self.experiment):
            wandb.teardown()  # otherwise W&B considers the run id to be in use
            for started in self._online_folders() - earlier:  # it holds no record yet
                shutil.rmtree(started, ignore_errors=True)
            self._wandb_init["mode"] = "offline"
        run = self.experiment
        run.define_metric("epoch", hidden=True)
        for name in ("train/*", "val/*"):
            run.define_metric(name, step_metric="epoch")
        for name, best in self._modes.items():  # until the results name the selected checkpoint's
            run.define_metric(f"val/{name}", step_metric="epoch", summary=best)
        self.folder = Path(run.settings.sync_dir)
        if self._wandb_init["mode"] == "online":
            self.url = run.url
            Tqdm.write(f"W&B     {run.url}")

    def _online_folders(self) -> set[Path]:
        return set(Path(self._wandb_init["dir"]).glob("wandb/run-*"))

    def _warn(self, what: str) -> None:
        """One line per run: what follows from the first failure is no news."""
        if self._warned:
            return
        online = what.startswith("failed to go online")
        self._warned = not online
        _print_warning(what, "the run is kept offline" if online else COMPLETE)


def _print_warning(what: str, result: str = COMPLETE) -> None:
    Tqdm.write(f"fracnet: warning: W&B {what}; {result}.", file=sys.stderr)


class RunLoggers:
    """All loggers of a run, from before the fit to after the results.

    Passed to Lightning's Trainer as `loggers`.
    """

    def __init__(self, config: Config, plain: Mapping[str, Any], folder: RunFolder) -> None:
        self.loggers: list[Logger] = []
        self._wandb: GuardedWandbLogger | None = None
        nodes = {k: v for k, v in (config.logger.model_extra or {}).items() if v is not None}
        options = config.logger.wandb
        use_wandb = options is not None and options.mode != "disabled"
        if not nodes and not use_wandb:
            return
        self._folder = folder
        self._identity = Identity.of(folder)
        chosen = ("loss", *LOGGED, *selecting_metrics(config).values(), *config.metrics)
        self._modes = {name: mode_of(config, name) for name in chosen}
        self._logged = self._public_config(config, plain)
        # In a sweep the test metrics of all jobs are shown only to a user who asks for them.
        hidden = self._identity.in_sweep and config.show_test != "all"
        self._splits = ("val",) if hidden else ("val", "test")
        self._images = False
        for name, node in nodes.items():
            # A logger of the user's choice; its files lie in the run folder by default.
            here = {"save_dir": str(folder.path)} if node.get("save_dir", "") is None else {}
            logger: Logger = build(node | here, f"logger.{name}")
            logger.log_hyperparams(self._logged)
            self.loggers.append(logger)
        if options is not None and use_wandb:
            self._images = options.mode == "offline" if options.images is None else options.images
            self._open_wandb(options)

    def _public_config(self, config: Config, plain: Mapping[str, Any]) -> dict[str, Any]:
        """The flat config and what the run was made from, without private names."""
        private = [config.data.model_dump().get("root"), config.data_dir, self._folder.path]
        self._scrub = Scrubber([path for path in private if path]).scrub
        provenance = json.loads(self._folder.provenance.read_text(encoding="utf-8"))
        made_from = {key: provenance[key] for key in MADE_FROM if key in provenance}
        identity = self._identity
        described = flatten(plain) | identity.choices | {"overrides": identity.overrides}
        for override in identity.overrides:
            key, _ = _key_and_value(override)
            if key in described:
                # W&B takes a dot for a step into a nested config, so by `optim.lr` it can neither
                # filter nor draw parallel coordinates; by `set/optim/lr` it can.
                described[f"set/{key.replace('.', '/')}"] = described[key]
        if identity.in_sweep:
            described["sweep_name"] = (identity.group or "").partition(": ")[0]
        scrubbed: dict[str, Any] = self._scrub(described | flatten(made_from, "provenance."))
        return scrubbed

    def _open_wandb(self, options: Wandb) -> None:
        identity, environment = self._identity, os.environ
        folder = self._folder.path / "wandb"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            _print_warning(f"could not be started ({error})")
            return
        own = {
            # What a W&B agent or the user sets in the environment comes before our defaults.
            "id": environment.get("WANDB_RUN_ID") or identity.id,
            "project": options.project or environment.get("WANDB_PROJECT") or "fracnet",
            "entity": options.entity or environment.get("WANDB_ENTITY"),
            "group": options.group or environment.get("WANDB_RUN_GROUP") or identity.group,
            "name": options.name or environment.get("WANDB_NAME") or identity.name,
            "job_type": environment.get("WANDB_JOB_TYPE") or "train",
            "tags": options.tags or None,
            **(options.model_extra or {}),
        }
        half = options.timeout / 2  # both waits together stay within the timeout
        self._wandb = GuardedWandbLogger(
            options.timeout,
            self._modes,
            save_dir=str(self._folder.path),
            log_model=options.log_model,
            mode=options.mode,
            config=self._logged,
            settings=wandb.Settings(**SETTINGS, init_timeout=half, finish_timeout=half),
            reinit="create_new",  # runs of one sweep share nothing
            **{key: self._scrub(value) for key, value in own.items()},
        )
        self.loggers.append(self._wandb)
        if options.mode == "online":  # its user may resume it without being asked again
            seal = upload_seal(identity.id, options.entity, options.project)
            write_json(self._folder.path / TRACKING, asdict(identity) | {"seal": seal})

    def log_results(self, table: pd.DataFrame, data: RadiographData) -> None:
        """Log the metrics with their intervals, and for W&B tables, figures and examples.

        table: predictions for val and test at the selected checkpoint; metrics.json exists.
        """
        if not self.loggers:
            return
        results = logged_results.collect(
            self._folder, table, data, self._splits, self._identity.salt, self._images
        )
        self._images = bool(results.images)
        numbers = {
            key: float(value)
            for key, value in results.summary.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        for logger in self.loggers:
            if isinstance(logger, GuardedWandbLogger):
                logger.log_results(results)
            else:
                logger.log_metrics(numbers)
                logger.save()

    def log_again(self, values: Mapping[str, Any]) -> None:
        """Add summary metrics to the W&B run of a finished run, which ends again.

        All others are stored once more: what an upload of this part brings replaces the summary.
        """
        if self._wandb is not None:
            metrics = read_mapping(self._folder.metrics)
            summary = logged_results.summary_of(metrics, self._splits)
            self._wandb.summarize({**summary, **values})
            self._wandb.close("finished")

    def close(self, status: str) -> None:
        """End all loggers, and say where W&B's run is; `status` as in provenance.json."""
        for logger in self.loggers:
            if not isinstance(logger, GuardedWandbLogger):
                logger.finalize("success" if status == "finished" else "failed")
        if self._wandb is not None:
            complete = self._wandb.close(status)
            if self._wandb.folder is not None:
                self._print_place(self._wandb, complete)

    def _print_place(self, logger: GuardedWandbLogger, complete: bool) -> None:
        if logger.url is not None and complete:
            print(f"W&B: {logger.url}")
            return
        assert logger.folder is not None
        here = Path.cwd()
        inside = logger.folder.is_relative_to(here)
        place = shlex.quote(str(logger.folder.relative_to(here) if inside else logger.folder))
        if self._identity.in_sweep:  # the same two commands for each of its jobs would be noise
            images = "; a sync uploads its example images" if self._images else ""
            print(f"W&B, offline{images}: {place}", flush=True)
            return
        images = ", with its example images" if self._images else ""
        print(f"W&B, offline:\n  wandb leet {place}  shows it here")
        print(f"  wandb sync {place}  uploads it{images}", flush=True)


def log_repeats(sweep: Path, content: Mapping[str, Any], trust: bool) -> None:
    """Store in W&B, with each job, mean and SD of its configuration over seeds or folds.

    content: of sweep.json. The keys are `repeats/n`, and of each validation metric (of test metrics
    as well, where those of all jobs are shown) `repeats/val/macro_auc_mean` and `..._sd`.
    trust: False where jobs may be a stranger's; those that need trust are left out.
    """
    jobs = {job["job"]: job for job in content["jobs"]}
    for configuration in content["configurations"] or ():
        finished = [jobs[number] for number in configuration["jobs"] if jobs[number]["val"]]
        if len(finished) < 2:
            continue
        values: dict[str, Any] = {"repeats/n": len(finished)}
        for split in ("val", *(["test"] if content["show_test"] == "all" else [])):
            for name in finished[0][split] or ():
                known = [job[split].get(name, {}).get("value") for job in finished if job[split]]
                if len(known) == len(finished) and None not in known:
                    values[f"repeats/{split}/{name}_mean"] = statistics.fmean(known)
                    values[f"repeats/{split}/{name}_sd"] = statistics.stdev(known)
        for job in finished:
            folder = RunFolder(sweep / job["folder"])
            plain = read_mapping(folder.config)
            if (folder.path / TRACKING).is_file() and plain["logger"].get("wandb"):
                alone = plain | {"logger": {"wandb": plain["logger"]["wandb"]}}
                if not trust and uploads_unasked(folder, alone):
                    print(f"note    W&B gets no mean and SD with {folder.path}: not sent from here")
                    continue
                RunLoggers(check(alone), plain, folder).log_again(values)
