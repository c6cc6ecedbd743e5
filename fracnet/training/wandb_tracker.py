"""A run as W&B gets to know it: started, told of each epoch and of the results, closed.

How a run is called in W&B, and its config as one flat table.

What W&B hears when a run opens: who it is, what it was made from, and what not to store.
"""

import json
import secrets
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from fracnet.config.schema import Config
from fracnet.data.datamodule import RadiographData
from fracnet.runs.run_folder import RunFolder, write_json
from fracnet.training import wandb_summary
from fracnet.training.wandb_process import Client, last_epoch
from fracnet.utils.redaction import Scrubber

LONGEST = 80  # characters of a name

# Words of a command that do not make it another experiment.
DULL = ("data_dir", "data.root", "data.num_workers", "hydra", "logger", "resume")
DULL_TRAINER = ("trainer.accelerator", "trainer.progress_bar", "trainer.devices")


@dataclass(frozen=True)
class Job:
    """What Hydra knows of a run."""

    overrides: tuple[str, ...]
    choices: Mapping[str, str]
    sweep: Path | None  # folder of the multirun that the run is a job of

    @classmethod
    def current(cls) -> "Job":
        """Of the run that is under way in this process."""
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        hydra = HydraConfig.get()
        sweep = None
        if hydra.mode == RunMode.MULTIRUN:
            depth = len(Path(str(hydra.sweep.subdir)).parts)
            sweep = Path(hydra.runtime.output_dir).resolve().parents[max(depth - 1, 0)]
        return cls(
            tuple(hydra.overrides.task),
            {
                str(group): str(choice)
                for group, choice in hydra.runtime.choices.items()
                if not str(group).startswith("hydra") and choice is not None
            },
            sweep,
        )

    @property
    def group(self) -> str | None:
        """The sweep's folder, without what lies above it."""
        return self.sweep.name if self.sweep else None

    @property
    def name(self) -> str:
        """Model, data and what was overridden; in a sweep only what differs between its jobs."""
        swept = swept_keys(self.sweep) if self.sweep else ()
        told = []
        for word in self.overrides:
            key, _, value = word.lstrip("+~").partition("=")
            wanted = key in swept if swept else not self._dull(key, value)
            if wanted:
                told.append(value if key in self.choices else f"{key.rpartition('.')[2]}={value}")
        first = [] if swept else [self.choices.get("model", ""), self.choices.get("data", "")]
        words = dict.fromkeys([*filter(None, first), *told])  # each once, in this order
        name = " ".join(words) or "run"
        return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"

    def _dull(self, key: str, value: str) -> bool:
        if key in self.choices and value == self.choices[key]:
            return key not in ("model", "data")
        nested = any(sign in value for sign in "/\\{[~")
        return nested or key.startswith(DULL) or key in DULL_TRAINER


def swept_keys(sweep: Path) -> tuple[str, ...]:
    """Keys with more than one value, as the multirun's own record has them; () without one."""
    record = sweep / "multirun.yaml"
    if not record.is_file():
        return ()
    hydra = yaml.safe_load(record.read_text(encoding="utf-8"))["hydra"]
    params = (hydra.get("sweeper") or {}).get("params") or {}
    words = [f"{key}={value}" for key, value in params.items()] + hydra["overrides"]["task"]
    return tuple(dict.fromkeys(key for key, value in map(_parts, words) if _several(value)))


def _parts(word: str) -> tuple[str, str]:
    key, _, value = word.lstrip("+~").partition("=")
    return key, value


def _several(value: str) -> bool:
    """Whether Hydra would make several jobs of this value."""
    depth, quote = 0, ""
    for sign in value:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        elif sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth -= 1
        elif sign == "," and depth == 0:
            return True
    return value.startswith(("choice(", "range(", "interval(", "glob(", "shuffle(", "sort("))


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every value under its dotted key: `optim.lr` can be sorted and grouped by as it is."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = (
                list(value)
                if isinstance(value, Sequence | set) and not (isinstance(value, str))
                else value
            )
    return found


# Not a word on the screen, and nothing of the machine but what stands in the config.
SILENT = {
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
}
FLUSH = 1.0  # seconds until a row is in the file, where a killed run leaves it
MADE_FROM = ("command", "seed", "data_fingerprint", "device", "code", "python", "packages")


@dataclass(frozen=True)
class Identity:
    """What a run stays when it is resumed; tracking.json keeps it, on this machine alone."""

    id: str
    salt: str  # of the hashes that stand for patients and studies
    name: str
    group: str | None
    in_sweep: bool
    choices: dict[str, str]
    overrides: list[str]

    @classmethod
    def of(cls, folder: RunFolder) -> "Identity":
        """The stored one, or that of the job under way, which is stored."""
        path = folder.path / "tracking.json"
        if path.is_file():
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        job = Job.current()
        new = cls(
            secrets.token_hex(4),
            secrets.token_hex(16),
            job.name,
            job.group,
            job.sweep is not None,
            dict(job.choices),
            list(job.overrides),
        )
        write_json(path, asdict(new))
        return new


def opening(
    config: Config, plain: Mapping[str, Any], folder: RunFolder, identity: Identity
) -> dict[str, Any]:
    """The first message to the process that runs wandb; nothing in it is private."""
    logger = config.logger
    known = [config.data.model_dump().get("root"), config.data_dir, folder.path]
    scrub = Scrubber([path for path in known if path]).scrub
    provenance = json.loads(folder.provenance.read_text(encoding="utf-8"))
    described = {**flat(plain), **identity.choices, "overrides": identity.overrides}
    made_from = {key: provenance[key] for key in MADE_FROM if key in provenance}
    return {
        "mode": logger.mode,
        "config": scrub(described | flat(made_from, "provenance.")),
        "run": {
            "id": identity.id,
            "dir": str(folder.path),
            "project": logger.project,
            "entity": logger.entity,
            "group": scrub(logger.group or identity.group),
            "name": scrub(logger.name or identity.name),
            "tags": scrub(logger.tags),
            "job_type": "train",
            "resume": "allow",
        },
        "settings": {
            **SILENT,
            "init_timeout": logger.timeout,
            "x_service_wait": logger.timeout,
            "finish_timeout": logger.timeout,
            "x_transaction_log_flush_interval": FLUSH,
        },
    }


EXIT_CODES = {"finished": 0, "interrupted": 130}  # any other way to end: 1
GRACE = 2.0  # seconds beyond wandb's own limit before its process is killed


class Tracker:
    """Passes a run on to W&B, from the first of its processes and unless the mode is `disabled`.

    Nothing here raises for the sake of W&B, and nothing waits for it but `finish`.
    """

    def __init__(self, config: Config, plain: Mapping[str, Any], folder: RunFolder) -> None:
        self._mode = config.logger.mode
        self._client: Client | None = None
        self._folder = folder
        self._timeout = config.logger.timeout
        self._opened: dict[str, Any] = {}
        self._warned = False
        self._pictures = False
        if self._mode == "disabled" or getattr(rank_zero_only, "rank", 0) != 0:
            return
        wanted = config.logger.images
        self._images = self._mode == "offline" if wanted is None else wanted
        identity = Identity.of(folder)
        self._salt, self._in_sweep = identity.salt, identity.in_sweep
        # Contract: in a sweep the test figures of all jobs are shown only to those who ask.
        hidden = identity.in_sweep and config.show_test != "all"
        self._splits = ("val",) if hidden else ("val", "test")
        self._told = last_epoch(folder.path / "wandb")
        try:
            (folder.path / "wandb").mkdir(parents=True, exist_ok=True)
            self._client = Client(folder.path / "wandb")
        except OSError as error:
            self._warn("could not be started", str(error))
            return
        self._client.send("start", opening(config, plain, folder, identity))

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Tell of one epoch: the row of metrics.csv, unless it is known already.

        A run that was cut off after an epoch and before its checkpoint trains that epoch again.
        """
        if self._client is not None:
            if row["epoch"] > self._told:
                self._client.send("epoch", dict(row))
            self._listen(self._client.replies())

    def results(self, table: pd.DataFrame, data: RadiographData) -> None:
        """Tell how it ended; metrics.json is there already.

        table: predictions for val and test at the selected checkpoint.
        """
        if self._client is None:
            return
        metrics = json.loads(self._folder.metrics.read_text(encoding="utf-8"))
        content: dict[str, Any] = {"tables": {}, "images": {}}
        content["summary"] = wandb_summary.summary(metrics, self._splits)
        if "test" in self._splits:
            content["summary"] |= wandb_summary.external(self._folder.evaluations)
        for split in self._splits:
            rows = table[table["split"] == split]
            content["tables"] |= wandb_summary.tables(split, metrics[split], rows)
        shown = self._splits[-1]
        tables, images = wandb_summary.examples(shown, table, data, self._salt, self._images)
        content["tables"] |= tables
        content["images"] |= images
        content["figures"] = wandb_summary.figures(self._folder.figures, self._splits)
        self._pictures = bool(images)
        self._client.send("results", content)

    def finish(self, status: str) -> None:
        """Close the run and print where to see it; `status` as in provenance.json."""
        client, self._client = self._client, None
        if client is None:
            return
        client.send("finish", EXIT_CODES.get(status, 1))
        ended, said = client.close(self._timeout + GRACE)
        self._listen(said)
        complete = any(reply["event"] == "finished" for reply in said)
        if not ended:
            self._warn(f"did not end within logger.timeout={self._timeout:g} seconds", "stopped")
        elif not complete:
            self._warn("ended unexpectedly", "its process is gone")
        if self._opened:
            self._print_where(complete)

    def _listen(self, replies: Any) -> None:
        for reply in replies:
            if reply["event"] == "started":
                self._opened = reply
                if reply["url"]:
                    Tqdm.write(f"W&B     {reply['url']}")
            elif reply["event"] == "trouble":
                self._warn(f"failed {reply['doing']}", reply["error"])

    def _warn(self, what: str, why: str) -> None:
        """One line for a run: what follows from the first fault is no news."""
        if self._warned:
            return
        goes_on = "metrics.csv and the run folder have everything"
        if what == "failed to go online":
            goes_on = "the run is kept offline"
        else:
            self._warned = True
        Tqdm.write(f"fracnet: warning: W&B {what} ({why}); {goes_on}.", file=sys.stderr)

    def _print_where(self, complete: bool) -> None:
        place = shlex.quote(shortened(Path(self._opened["folder"])))
        if self._opened["mode"] == "online" and complete:
            print(f"W&B: {self._opened['url']}")
            return
        if self._in_sweep:  # the same two commands for each of its jobs would be noise
            pixels = "; a sync uploads its example images" if self._pictures else ""
            print(f"W&B, offline{pixels}: {place}", flush=True)
            return
        pixels = ", with its example images" if self._pictures else ""
        print(f"W&B, offline:\n  wandb leet {place}  shows it here")
        print(f"  wandb sync {place}  uploads it{pixels}", flush=True)


def shortened(path: Path) -> str:
    """The path as seen from the current folder, where it lies inside."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
