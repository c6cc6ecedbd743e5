"""fracnet from Python: each function does what the command of its name does.

`fracnet.fit` is `python -m fracnet.train`, and `fracnet.sweep` the same with `-m`. They read the
same config and write the same folders as the commands.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, cast
from urllib.parse import quote

import pandas as pd
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from markupsafe import escape
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from fracnet.compare import compare as compare_command
from fracnet.config.checks import check
from fracnet.config.fields import resolved
from fracnet.config.hints import explain_error
from fracnet.config.overrides import add_open_keys
from fracnet.data.manifest import read_table
from fracnet.evaluate import evaluate as evaluate_command
from fracnet.report.run_tables import FURTHER_METRICS, METRICS, default_rule
from fracnet.report.tables import stored_cell
from fracnet.runs.sweep_summary import TABLE
from fracnet.training.preflight import Order, preflight
from fracnet.training.run import run as run_training
from fracnet.utils import files
from fracnet.utils.errors import UserError
from fracnet.utils.text import override_value


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, and the validation metric that `objective` names, or several."""

    folder: Path
    objective: float | list[float]

    @property
    def metrics(self) -> dict[str, Any]:
        """All metrics with their intervals: metrics.json."""
        text = (self.folder / "metrics.json").read_text(encoding="utf-8")
        return cast(dict[str, Any], json.loads(text))

    @property
    def predictions(self) -> pd.DataFrame:
        """One row per image of validation and test: labels, groups, logits, probabilities."""
        return read_table(self.folder / "predictions.csv")

    @property
    def report(self) -> Path:
        """The report page, report/index.html."""
        return self.folder / "report" / "index.html"

    def _repr_html_(self) -> str:
        """Metrics of validation and test with their 95 % intervals, and a link to the report."""
        splits = {s: self.metrics[s] for s in ("val", "test") if self.metrics.get(s)}
        title = f"<p><b>Run {escape(self.folder)}</b></p>"
        if not splits:
            return f"{title}<p>It has metrics of neither val nor test.</p>{_link(self.report)}"
        columns = [split["metrics"] for split in splits.values()]
        rows = [
            f"<tr><th>{metric}</th>"
            + "".join(f"<td>{stored_cell(c[name])}</td>" for c in columns)
            + "</tr>"
            for name, metric in (METRICS | FURTHER_METRICS).items()
            if all(name in column for column in columns)
        ]
        heads = "".join(f"<th>{s}, n = {split['n']}</th>" for s, split in splits.items())
        rule = escape(default_rule(next(split["classes"] for split in splits.values())))
        head = f"<tr><th>metric (95 % interval); {rule}; uncalibrated</th>{heads}</tr>"
        table = f"<table>{head}{''.join(rows)}</table>"
        return f"{title}{table}{_link(self.report)}"


def _link(page: Path) -> str:
    """A link to a page; a notebook opens only what lies below its own folder."""
    place = os.path.relpath(page)
    address = escape(quote(place.replace(os.sep, "/")))
    return f'<p>Report: <a href="{address}" target="_blank">{escape(place)}</a></p>'


@dataclass(frozen=True)
class _Runs:
    """Several runs: the folder with the page and the tables."""

    folder: Path
    _shown: ClassVar[str]

    @property
    def report(self) -> Path:
        """The page, index.html."""
        return self.folder / "index.html"

    def _table(self, name: str) -> pd.DataFrame:
        """A table of the folder, with the columns that its file has."""
        table = read_table(self.folder / name)
        return table[list(pd.read_csv(self.folder / name, nrows=0).columns)]

    def _repr_html_(self) -> str:
        table = self._table(self._shown)
        # Of a sweep not its dozens of columns of metrics, as val/accuracy_low: the page has them.
        table = table[[name for name in table if "/" not in str(name)]]
        html = str(table.to_html(index=False, na_rep="", float_format="{:.4g}".format))
        return html + _link(self.report)


class Comparison(_Runs):
    """Runs that were compared: the folder with the page, figures and tables."""

    _shown = "standings.csv"

    @property
    def standings(self) -> pd.DataFrame:
        """One row per configuration: the metric with its interval."""
        return self._table("standings.csv")

    @property
    def differences(self) -> pd.DataFrame:
        """One row per pair: the difference with its interval and p-value."""
        return self._table("comparison.csv")


class Sweep(_Runs):
    """A sweep: its folder, which holds one folder per job."""

    _shown = TABLE

    @property
    def jobs(self) -> pd.DataFrame:
        """One row per job: what differs, its status and its metrics."""
        return self._table(TABLE)


def fit(
    *overrides: str,
    folder: Path | str | None = None,
    config_dir: Path | str | None = None,
    **choices: Any,
) -> Run:
    """Train one model, evaluate it and write a run folder.

    Args:
        overrides: as on the command line, such as "trainer.max_epochs=3".
        folder: the run folder; None for runs/<date>_<time>_<suffix> in the current folder.
        config_dir: a folder of your own config groups, as --config-dir.
        choices: overrides without a dot in their key, such as data="upper_limb_phantom", seed=1.

    Raises:
        UserError: the message that the command would print, before any training starts.

    >>> run = fracnet.fit("trainer.max_epochs=3", data="upper_limb_phantom", image_size=64)
    >>> run.metrics["test"]["metrics"]["accuracy"]
    """
    arguments = _arguments(overrides, choices)
    if folder is not None:
        arguments.append(f"hydra.run.dir={override_value(Path(folder))}")
    with _composed(arguments, config_dir) as (job, run_dir, task_overrides):
        plain = resolved(job)
        trainer = check(plain).trainer
        if trainer.processes > 1:
            raise UserError(
                f"trainer.devices={trainer.devices} starts the program once per device, which "
                "does not work from Python code; allowed here: one device. Use "
                "python -m fracnet.train."
            )
        order = Order(run_dir, task_overrides, ["fracnet.fit", *arguments])
        return Run(run_dir, run_training(preflight(plain, order)))


def sweep(
    *overrides: str,
    folder: Path | str | None = None,
    config_dir: Path | str | None = None,
    **choices: Any,
) -> Sweep:
    """Train one model per combination of values, each as a job of a sweep: `fracnet.train -m`.

    The jobs run in a process of their own, whose output is shown.

    Args:
        overrides: as on the command line, such as "optim.lr=1e-3,1e-4".
        folder: of the sweep; None for runs/sweep_<date>_<time> in the current folder.
        config_dir: a folder of your own config groups, as --config-dir.
        choices: overrides without a dot in their key; a list has one job per value.

    Raises:
        UserError: the command failed, with the reason that it printed.

    >>> sweep = fracnet.sweep("optim.lr=1e-3,1e-4", model=["resnet18", "resnet50"], data="mura")
    >>> sweep.jobs
    """
    several = {k: v for k, v in choices.items() if isinstance(v, list | tuple)}
    single = {k: v for k, v in choices.items() if k not in several}
    swept = [f"{k}={','.join(map(override_value, _as_folder(v)))}" for k, v in several.items()]
    now = f"runs/sweep_{datetime.now():%Y-%m-%d_%H-%M-%S}_{os.urandom(2).hex()}"
    path = Path(folder if folder is not None else now).expanduser().resolve()
    options = [] if config_dir is None else ["--config-dir", str(Path(config_dir).resolve())]
    place = f"hydra.sweep.dir={override_value(path)}"
    words = [*options, *_arguments(overrides, single), *swept, place]
    command = [sys.executable, "-m", "fracnet.train", "-m", *words]
    lines: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="")  # a notebook shows only what Python itself prints
            lines.append(line)
    if not (path / TABLE).is_file():
        raise UserError("".join(lines).rpartition("fracnet: error: ")[2].strip())
    return Sweep(path)


def evaluate(run: Run | Path | str | None = None, *overrides: str, **choices: Any) -> Run:
    """Compute and print all metrics of a run again, or with `table=` those of any predictions.

    Args:
        run: a run or its folder; None with table="predictions.csv".
        overrides: as on the command line of fracnet.evaluate.
        choices: overrides without a dot in their key, such as by=["region"], views="max".

    Returns:
        The evaluation, whose folder lies in the run's own or beside the table.

    Raises:
        UserError: the message that the command would print.
    """
    given = {} if run is None else {"run": run}
    with _composed(_arguments(overrides, given | choices), None, "evaluate") as (job, _, _):
        evaluation = evaluate_command(job)
    objectives = list(evaluation.objectives)
    one = evaluation.objective
    return Run(evaluation.folder.path, objectives if len(objectives) > 1 else one)


def compare(*runs: Run | Path | str, **choices: Any) -> Comparison:
    """Compare runs on the same test images, with intervals of their differences.

    Args:
        runs: runs, their folders, sweep folders, or patterns such as "runs/*".
        choices: the keys of fracnet.compare, such as metric="auc", level="study".

    Raises:
        UserError: the message that the command would print.
    """
    arguments = _arguments([], {"runs": list(runs), **choices})
    with _composed(arguments, None, "compare") as (job, folder, _):
        compare_command(job)
        return Comparison(folder)


def _arguments(overrides: Sequence[str], choices: Mapping[str, Any]) -> list[str]:
    """The overrides of a command; a run or a sweep stands for its folder."""
    given = [f"{key}={override_value(_as_folder(value))}" for key, value in choices.items()]
    return [*given, *overrides]


def _as_folder(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _as_folder(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_folder(item) for item in value]
    return value.folder if isinstance(value, Run | Sweep) else value


@contextmanager
def _composed(
    arguments: list[str], config_dir: Path | str | None, command: str = "train"
) -> Iterator[tuple[DictConfig, Path, list[str]]]:
    """The config, the output folder and the overrides, with Hydra set up around them."""
    search = [] if config_dir is None else [f"file://{Path(config_dir).resolve()}"]
    hydra = HydraConfig.instance()
    before = hydra.cfg
    try:
        with initialize_config_dir(str(files.config_dir())):
            config: DictConfig = compose(
                command,
                [*add_open_keys(arguments), *(f"hydra.searchpath=[{path}]" for path in search)],
                return_hydra_config=True,
            )
            with open_dict(config):
                folder = Path(str(config.hydra.run.dir)).expanduser().resolve()
                config.hydra.runtime.output_dir = str(folder)
                config.hydra.job.name, config.hydra.job.num = command, 0
                config.hydra.mode = RunMode.RUN
            hydra.set_config(config)
            job = config.copy()
            with open_dict(job):
                del job["hydra"]
            yield job, folder, list(config.hydra.overrides.task)
    except (HydraException, OmegaConfBaseException) as error:
        line = [*(["--config-dir", str(config_dir)] if search else []), *arguments]
        raise UserError(explain_error(error, command, line, in_python=True)) from error
    finally:
        hydra.cfg = before
