"""The run folder: where each file lies, how it is written, and the gates that every reader passes.

`RunFolder.open` refuses a folder of another version of fracnet; `read_config` refuses a config that
names classes that are not trusted; `read_predictions` refuses predictions that were changed. Every
command that reads a run goes through them.
"""

import json
import os
import subprocess
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import yaml
from pandas.errors import EmptyDataError, ParserWarning

from fracnet.config.checks import check
from fracnet.config.fields import validated
from fracnet.config.schema import Cited, Config, Evaluation, objectives_of
from fracnet.config.trust import check_trust
from fracnet.data.manifest import read_table
from fracnet.evaluation.ensembles import OUT_OF_FOLD
from fracnet.evaluation.predictions import Predictions
from fracnet.utils import processes
from fracnet.utils.errors import UserError
from fracnet.utils.files import CannotWrite, sha256_of, write_atomically, write_record
from fracnet.utils.shared import shared
from fracnet.utils.text import as_clause, near_miss, plain_cell

T = TypeVar("T")

FORMAT = 2
"""Version of the layout of run folders. Increase it when a file or a key gets another meaning."""
FORMAT_KEY = "fracnet_format"
"""Holds the version in provenance.json of a run, and in every metrics.json."""
MAX_YAML = 250_000
"""Characters of a YAML file that is read; a run's config has some thousand."""
MAX_VALUES = 200_000
"""Values of a YAML file with each alias counted in full."""
TABLE_KEY = "table"
"""Says in metrics.json which file was evaluated, where that was not a run."""
HASHES = "sha256"
"""Holds the hashes of the predictions, by file name, in provenance.json."""
WANDB_LINK = "debug-core.log"
"""W&B's link to its own log in the home of the user, which nothing follows."""
PROCESS_DIED = "the process died"
"""The reason of a run that ended without recording it."""


class RunFolder:
    """Paths of the files of one run. `RunFolder.open` is for a run that exists."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"  # the resolved config
        self.provenance = path / "provenance.json"  # code, data, packages, command, device, time
        self.curves = path / "metrics.csv"  # one row per epoch
        self.predictions = path / "predictions.csv"  # one row per image of val and test
        self.metrics = path / "metrics.json"  # of val and test at the selected checkpoint
        self.baselines = path / "baselines.csv"  # one row per test image and baseline
        self.fit = path / "fit.json"  # selected epoch, dataset name and notes, model, report
        self.decisions = path / "decisions.json"  # temperature and operating points, with a hash
        self.ood = path / "ood.npz"  # reference that detects out-of-distribution images
        self.checkpoints = path / "checkpoints"  # best.ckpt, and last.ckpt for resuming
        self.explain = path / "explain"  # folder of heatmaps
        self.explanation = self.explain / "explain.json"  # cases, localization, sanity check
        self.figures = path / "figures"  # PNG and SVG files
        self.report = path / "report" / "index.html"  # the model card lies next to it
        self.evaluations = path / "evaluations"  # further evaluations with other options

    @classmethod
    def open(cls, path: Path, key: str = "run") -> "RunFolder":
        """The folder of an existing run or evaluation. key: see `check_entries`.

        Raises UserError, which begins with `key`, where there is no such folder, or another version
        of fracnet has written it.
        """
        folder = cls(path)
        if not path.is_dir():
            parent = path.parent
            names = [p.name for p in parent.iterdir() if p.is_dir()] if parent.is_dir() else []
            raise UserError(
                f"{_named(path, key)}: no such folder.{near_miss(path.name, sorted(names))}"
            )
        check_entries(path, key)
        written = _written_format(folder)
        if written != FORMAT:
            raise UserError(
                f"{_named(path, key)} was written by another version of fracnet (run folder format "
                f"{written or 'unknown'}; this version reads format {FORMAT}): use that version, "
                "or train the run again."
            )
        read_status(folder)  # records the end of a run whose process has died
        return folder

    @contextmanager
    def in_use(self, key: str = "run") -> Iterator[None]:
        """Keep other processes from writing; UserError, at once, where one is writing already."""
        with processes.locked(self.path / ".lock", f"{key}={self.path}"):
            yield


def check_entries(folder: Path, key: str) -> None:
    """Raise UserError for an entry by which a command would write outside of the folder, or hang.

    Reading a named pipe or a device may never end. Of links out of the folder, those to a file are
    replaced when it is written, but a training appends to some.

    key: of the command. `resume` refuses links to files as well, and "", of a command that shows
    the folder of a sweep, refuses no links.
    """
    inside = folder.resolve()
    for parent, folders, files in os.walk(folder):
        for name in files:
            part = Path(parent, name)
            if part.exists() and not part.is_file():
                raise UserError(
                    f"{_named(folder, key)}: {part.relative_to(folder)} is a named pipe, a socket "
                    "or a device, which no run writes. Remove it."
                )
        checked = [*(folders if key else ()), *(files if key == "resume" else ())]
        for part in (Path(parent, name) for name in checked if name != WANDB_LINK):
            if part.is_symlink() and inside not in part.resolve().parents:
                raise UserError(
                    f"{_named(folder, key)}: {part.relative_to(folder)} is a symbolic link to "
                    f"{part.resolve()}, outside of this folder, and no link is followed there. "
                    "Replace it with what it links to."
                )


def _named(folder: Path, key: str) -> str:
    return f"{key}={folder}" if key else str(folder)


def _written_format(folder: RunFolder) -> int | None:
    """The format that the folder names; None where it names none."""
    for path in (folder.provenance, folder.metrics):
        if path.is_file():
            written = read_mapping(path).get(FORMAT_KEY)
            return written if isinstance(written, int) else None
    # Nothing but predictions, whose columns are checked where they are read.
    return None if folder.config.is_file() else FORMAT


def with_format(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a JSON file marked with the current format."""
    return {FORMAT_KEY: FORMAT, **content}


def code_version() -> dict[str, Any]:
    """fracnet's version, and its commit where it runs from a git checkout."""
    code: dict[str, Any] = {"fracnet": version("fracnet")}
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / ".git").exists():
        code["commit"] = _git(checkout, "rev-parse", "HEAD")
        code["modified"] = bool(_git(checkout, "status", "--porcelain"))
    return code


def _git(checkout: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(checkout), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None  # no git on this machine: the commit is unknown
    return done.stdout.strip() if done.returncode == 0 else None


def read_config(run: RunFolder, trust: bool) -> Config:
    """The run's config, parsed, for rebuilding its model; see `read_trusted_config`."""
    return check(read_trusted_config(run, trust))


def read_trusted_config(
    run: RunFolder, trust: bool, *, key: str = "run", training: bool = False
) -> dict[str, Any]:
    """The run's config as plain containers: the only way to anything that will be built.

    training: whether a training is resumed, which builds more than the model.

    Raises UserError, which begins with `key`, for a missing config, an ensemble, and a config that
    names classes that are not trusted.
    """
    if not run.config.is_file():
        if key == "run" and not run.predictions.is_file():
            raise UserError(_why_no_predictions(run))
        raise UserError(f"{key}={run.path} has no config.yaml: the run cannot be rebuilt.")
    plain = read_mapping(run.config)
    if "ensemble" in plain:
        raise UserError(
            f"{key}={run.path} is an ensemble and has no model of its own; use its members one by "
            "one, and make an ensemble of the results."
        )
    check_trust(plain, trust, str(run.config), training=training)
    return plain


def read_curves(run: RunFolder) -> pd.DataFrame | None:
    """The table of metrics.csv; None for a run without epochs.

    Raises UserError for a damaged file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ParserWarning)  # rows with more cells than the header
            return pd.read_csv(run.curves, index_col=False)
    except (FileNotFoundError, EmptyDataError):
        return None
    except (OSError, ValueError, ParserWarning) as error:
        raise UserError(f"{run.curves} cannot be read: {str(error).strip()}") from error


def write_config(folder: RunFolder, plain: Mapping[str, Any]) -> None:
    """Write the resolved config as YAML."""
    write_atomically(folder.config, yaml.safe_dump(dict(plain), sort_keys=False))


def csv_text(table: pd.DataFrame, *, header: bool = True) -> str:
    """A csv in which a spreadsheet takes no text, such as a stranger's name, for a formula."""
    cells = [list(map(plain_cell, row)) for row in table.itertuples(index=False)]
    # As objects: pandas would make floats of numbers beside a missing one.
    plain = pd.DataFrame(cells, columns=table.columns, dtype=object)
    return str(plain.to_csv(index=False, header=header, lineterminator="\n"))


def write_json(path: Path, content: Any) -> None:
    """Write plain containers; NaN is an error, since JSON has none."""
    write_atomically(path, _json(content))


def write_end(run: RunFolder, content: Mapping[str, Any]) -> None:
    """Write provenance.json at the end of a run, on a full disk into the space that it has."""
    write_record(run.provenance, _json(content))


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def read_mapping(path: Path) -> dict[str, Any]:
    """The content of a JSON or YAML file; empty where there is no file.

    Raises UserError for a file that cannot be parsed or holds no mapping.
    """
    content = read_plain(path) if path.is_file() else {}
    if not isinstance(content, dict):
        raise UserError(f"{path} cannot be read: it does not hold keys with values.")
    return content


def read_plain(path: Path, key: str = "") -> Any:
    """The content of a JSON or YAML file; UserError, which begins with `key`, for a broken one."""
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else parse_yaml(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{key}{path} cannot be read: {as_clause(error)}.") from error


def parse_yaml(text: str) -> Any:
    """Plain containers; ValueError or YAMLError for text that is too large, or grows by aliases."""
    if len(text) > MAX_YAML:
        raise ValueError(f"it has {len(text):,} characters; allowed: {MAX_YAML:,}")
    content = yaml.load(text, Loader=_Loader)  # a subclass of SafeLoader
    if _size(content, {}) > MAX_VALUES:
        raise ValueError(f"its aliases expand to more than {MAX_VALUES:,} values")
    return content


class _Loader(yaml.SafeLoader):
    """Without merge keys, which PyYAML expands in full while it reads."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse `<<`."""
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.YAMLError("merge keys (<<) are not allowed")
        super().flatten_mapping(node)


def _size(content: Any, sizes: dict[int, int | None]) -> int:
    """Values in nested containers; one that is shared counts each time, but is visited once."""
    if not isinstance(content, dict | list | set | tuple):
        return 1
    if id(content) not in sizes:
        sizes[id(content)] = None
        items = content.values() if isinstance(content, dict) else content
        sizes[id(content)] = 1 + sum(_size(item, sizes) for item in items)
    size = sizes[id(content)]
    if size is None:
        raise ValueError("an alias stands inside of what it names")
    return size


def read_status(run: RunFolder) -> str | None:
    """How a run ended, or `running`; None where provenance.json is missing or names no status.

    A run that should be running but whose process is gone was interrupted; that is recorded.
    """
    content = read_mapping(run.provenance)
    status = content.get("status")
    if status == "running" and processes.is_gone(content.get("process")):
        status = "interrupted"
        try:
            with run.in_use():
                # Somebody may have resumed it in the meantime.
                if read_mapping(run.provenance) == content:
                    write_json(run.provenance, content | {"status": status, "reason": PROCESS_DIED})
        except CannotWrite:
            return status  # somebody else's folder: the next reader sees the same
        except UserError:
            return "running"  # another process has just resumed it
    return None if status is None else str(status)


def running_where(run: RunFolder) -> str:
    """What is known of a run with the status `running`, and what to do if it has ended."""
    content = read_mapping(run.provenance)
    process = content.get("process")
    host = processes.remote_host(process)
    if host is None:
        return "still running" if process else "still running, or its process died"
    files = (run.provenance, run.curves, run.checkpoints / "last.ckpt")
    last = max(path.stat().st_mtime for path in files if path.exists())
    written = datetime.fromtimestamp(last, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"running on {host} since {content.get('started')} (last written {written}), which cannot "
        f"be checked from here. If it has ended, resume it with: python -m fracnet.train "
        f"resume={run.path}"
    )


def sweep_jobs(folder: Path) -> list[Path]:
    """The runs in a sweep folder, in the order of their numbers; empty for other folders."""
    jobs = [path.parent for path in folder.glob("*/job.json")]
    return sorted(jobs, key=lambda path: (len(path.name), path.name))


@dataclass(frozen=True)
class RunMetadata:
    """What a run folder states besides its predictions; None where it states nothing.

    data, notes: name of the dataset, and sentences that a reader of the metrics must know.
    selected: the selected epoch or setting. out_of_fold: whether the validation rows were each
    scored by the single models of their fold.
    """

    options: Evaluation
    objectives: tuple[str, ...]
    cited: tuple[Cited, ...]
    selected: Mapping[str, Any] | None
    data: str
    notes: tuple[str, ...]
    out_of_fold: bool = False


def read_run_metadata(run: RunFolder) -> RunMetadata:
    """Read config.yaml and fit.json; UserError for a folder without predictions."""
    if not run.predictions.is_file():
        raise UserError(_why_no_predictions(run))
    config, fit = read_mapping(run.config), read_mapping(run.fit)
    cited = [
        validated(Cited, entry, f"{run.config}: cited.{i}")
        for i, entry in enumerate(_entry(config, "cited", list, run.config))
    ]
    data = _entry(fit, "data", dict, run.fit)
    selected = _entry(fit, "selected", dict, run.fit)
    ensemble = config.get("ensemble")
    dataset = _entry(config, "data", dict, run.config)
    dataset_class = str(dataset.get("_target_", "")).rpartition(".")[2]
    return RunMetadata(
        options=validated(Evaluation, config.get("evaluation") or {}, f"{run.config}: evaluation"),
        objectives=tuple(objectives_of(config["objective"])) if config.get("objective") else (),
        cited=tuple(cited),
        selected=None if fit.get("selected") is None else selected,
        data=str(data.get("name") or dataset_class or "the test split"),
        notes=tuple(map(str, _entry(data, "notes", list, run.fit))),
        out_of_fold=isinstance(ensemble, Mapping) and ensemble.get("validation") == OUT_OF_FOLD,
    )


def _entry(content: Mapping[str, Any], key: str, kind: type[T], path: Path) -> T:
    """What a file at `path` has under a key, empty where that is missing; UserError for others."""
    value = content.get(key)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        what = "keys with values" if kind is dict else "a list"
        raise UserError(f"{path} cannot be read: {key} must hold {what}.")
    return value


def _why_no_predictions(run: RunFolder) -> str:
    folder = run.path
    jobs = sweep_jobs(folder)
    if jobs and not run.config.is_file():
        names = ", ".join(job.relative_to(folder).as_posix() for job in jobs[:10])
        return (
            f"run={folder} is a sweep folder; name one of its jobs ({names}"
            f"{', ...' if len(jobs) > 10 else ''}), e.g. run={jobs[0]}."
        )
    status = read_status(run)
    if status == "running":
        return f"run={folder} has no predictions.csv: the run is {running_where(run)}."
    if status is not None:
        return (
            f"run={folder} has no predictions.csv: the run has status {status!r} and did not "
            f"finish. Resume it with: python -m fracnet.train resume={folder}"
        )
    return f"run={folder} is not a run folder: it has no predictions.csv."


def predictions_hashes(run: RunFolder) -> dict[str, str]:
    """SHA-256 of predictions.csv and baselines.csv by name, of those that exist."""
    files = (run.predictions, run.baselines)
    return {path.name: sha256_of(path) for path in files if path.is_file()}


def read_predictions(run: RunFolder) -> Predictions:
    """The run's predictions.

    Raises UserError where the file differs from the one that the run wrote, or is no such table.
    """
    _check_unchanged(run, run.predictions)
    table = read_table(run.predictions)
    try:
        return Predictions(table)
    except UserError as error:
        raise UserError(f"{run.predictions}: {error}") from error


def _check_unchanged(run: RunFolder, path: Path) -> str:
    """Compare a file with its hash in provenance.json, if there is one; its SHA-256."""
    hashes = _entry(read_mapping(run.provenance), HASHES, dict, run.provenance)
    written = hashes.get(path.name)
    now = sha256_of(path)
    if written is not None and now != written:
        raise UserError(
            f"{path} was changed after the run wrote it: its SHA-256 is {now[:12]}..., in "
            f"provenance.json it is {str(written)[:12]}.... Restore the file, or train the run "
            "again. To evaluate a table of your own, use: python -m fracnet.evaluate table=<csv>"
        )
    return now


def read_baselines(run: RunFolder) -> dict[str, Predictions]:
    """The baselines' predictions by name; empty where the run has no baselines.csv.

    Raises UserError as `read_predictions`.
    """
    if not run.baselines.is_file():
        return {}

    def read() -> dict[str, Predictions]:
        table = read_table(run.baselines)
        if "baseline" not in table:
            raise UserError(f"{run.baselines} cannot be read: it has no column baseline.")
        parts = table.groupby("baseline", sort=False)
        return {str(name): Predictions(rows) for name, rows in parts}

    return shared("baselines", _check_unchanged(run, run.baselines), read)
