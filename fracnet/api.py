"""fracnet from Python: `fracnet.fit` does what `python -m fracnet.train` does.

Both read the same config and write the same run folder.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from fracnet.config.hints import explain_error
from fracnet.config.overrides import add_open_keys, quoted
from fracnet.config.schema import check
from fracnet.data.manifest import read_table
from fracnet.training.preflight import Order, preflight
from fracnet.training.run import run as run_training
from fracnet.utils import files
from fracnet.utils.errors import UserError

UNQUOTED = r"[A-Za-z0-9_.+:%@/-]+"  # what an override may hold without quotes


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, and the validation metric that `objective` names."""

    folder: Path
    objective: float

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
    arguments = [*(f"{key}={_override_value(value)}" for key, value in choices.items()), *overrides]
    if folder is not None:
        arguments.append(f"hydra.run.dir={_override_value(Path(folder))}")
    with _composed(arguments, config_dir) as (plain, run_dir, task_overrides):
        trainer = check(plain).trainer
        if trainer.processes > 1:
            raise UserError(
                f"trainer.devices={trainer.devices} starts the program once per device, which "
                "does not work from Python code; allowed here: one device. Use "
                "python -m fracnet.train."
            )
        order = Order(run_dir, task_overrides, ["fracnet.fit", *arguments])
        return Run(run_dir, run_training(preflight(plain, order)))


def _override_value(value: Any) -> str:
    """A Python value as an override writes it."""
    if isinstance(value, Mapping):
        pairs = (f"{key}: {_override_value(item)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_override_value, value)) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | Path) or re.fullmatch(UNQUOTED, str(value)):
        return str(value)
    return quoted(str(value))


@contextmanager
def _composed(
    arguments: list[str], config_dir: Path | str | None
) -> Iterator[tuple[dict[str, Any], Path, list[str]]]:
    """The resolved config, the run folder and the overrides, with Hydra set up around them."""
    search = [] if config_dir is None else [f"file://{Path(config_dir).resolve()}"]
    hydra = HydraConfig.instance()
    before = hydra.cfg
    try:
        with initialize_config_dir(str(files.config_dir())):
            config: DictConfig = compose(
                "train",
                [*add_open_keys(arguments), *(f"hydra.searchpath=[{path}]" for path in search)],
                return_hydra_config=True,
            )
            with open_dict(config):
                folder = Path(str(config.hydra.run.dir)).expanduser().resolve()
                config.hydra.runtime.output_dir = str(folder)
                config.hydra.job.name, config.hydra.job.num = "train", 0
                config.hydra.mode = RunMode.RUN
            hydra.set_config(config)
            job = config.copy()
            with open_dict(job):
                del job["hydra"]
            plain = cast(dict[str, Any], OmegaConf.to_container(job, resolve=True))
            yield plain, folder, list(config.hydra.overrides.task)
    except (HydraException, OmegaConfBaseException) as error:
        line = [*(["--config-dir", str(config_dir)] if search else []), *arguments]
        raise UserError(explain_error(error, "train", line)) from error
    finally:
        hydra.cfg = before
