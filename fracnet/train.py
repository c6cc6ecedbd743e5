"""`python -m fracnet.train`: from a config to a trained, measured model and its run folder.

fracnet from a notebook: `fracnet.fit` does what `python -m fracnet.train` does.

Both read the same config and write the same run folder; nothing but the way to say it differs.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from fracnet.config import hydra_cli
from fracnet.config.hydra_cli import quoted
from fracnet.training import sweep
from fracnet.utils.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


def train(cfg: DictConfig) -> float:
    """Train one model and measure it: see `fracnet.training.run.run`."""
    from hydra.core.hydra_config import HydraConfig

    from fracnet.training.run import Order, run

    hydra = HydraConfig.get()
    order = Order(
        folder=Path(hydra.runtime.output_dir),
        words=list(hydra.overrides.task),
        command=[Path(sys.executable).name, "-m", "fracnet.train", *sys.argv[1:]],
        in_sweep=sweep.running(),
    )
    return run(cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True)), order)


PLAIN = r"[A-Za-z0-9_.+:%@/-]+"  # what an override may hold unquoted


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, and what lies in it."""

    folder: Path
    objective: float  # the validation figure that `objective` names, at the selected checkpoint

    @property
    def metrics(self) -> dict[str, Any]:
        """All figures with their intervals: metrics.json."""
        return cast(dict[str, Any], self._json("metrics.json"))

    @property
    def predictions(self) -> "pd.DataFrame":
        """A row an image of validation and test: labels, groups, logits, probabilities."""
        from fracnet.data.manifest import read_table

        return read_table(self.folder / "predictions.csv")

    @property
    def report(self) -> Path:
        """The page for people, report/index.html."""
        return self.folder / "report" / "index.html"

    def _json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))


def fit(
    *words: str,
    folder: Path | str | None = None,
    config_dir: Path | str | None = None,
    **choices: Any,
) -> Run:
    """Train one model, measure it, and leave a run folder.

    Args:
        words: overrides as the command takes them, such as "trainer.max_epochs=3".
        folder: of the run; None for runs/<date>_<time>_<suffix>, from the current folder.
        config_dir: a folder of your own groups, as --config-dir.
        choices: overrides without a dot in their key, such as data="upper_limb_phantom", seed=1.

    Raises:
        UserError: what the command would say in one paragraph, before any training starts.

    >>> run = fracnet.fit("trainer.max_epochs=3", data="upper_limb_phantom", image_size=64)
    >>> run.metrics["test"]["metrics"]["accuracy"]
    """
    from fracnet.training.run import Order
    from fracnet.training.run import run as carry_out

    overrides = [*(f"{key}={_said(value)}" for key, value in choices.items()), *words]
    if folder is not None:
        overrides.append(f"hydra.run.dir={_said(Path(folder))}")
    with _composed(overrides, config_dir) as (plain, place, said):
        if plain["trainer"]["devices"] != 1:
            raise UserError(
                f"trainer.devices={plain['trainer']['devices']} starts the program again for each "
                "device, which a notebook is not; allowed here: 1. Use python -m fracnet.train."
            )
        value = carry_out(plain, Order(place, said, ["fracnet.fit", *overrides]))
    return Run(place, value)


def _said(value: Any) -> str:
    """A Python value as an override has it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_said(held)}" for key, held in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_said, value)) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | Path) or re.fullmatch(PLAIN, str(value)):
        return str(value)
    return quoted(str(value))


@contextmanager
def _composed(
    words: list[str], config_dir: Path | str | None
) -> Iterator[tuple[dict[str, Any], Path, list[str]]]:
    """The resolved config, the run's folder and the overrides, with Hydra set up around them."""
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import OmegaConf, open_dict
    from omegaconf.errors import OmegaConfBaseException

    from fracnet.config import hydra_cli
    from fracnet.utils import files

    own = [] if config_dir is None else [f"file://{Path(config_dir).resolve()}"]
    asked = [*words, *([f"hydra.searchpath=[{','.join(own)}]"] if own else [])]
    hydra = HydraConfig.instance()
    before = hydra.cfg
    try:
        with initialize_config_dir(str(files.config_dir())):
            config: DictConfig = compose("train", asked, return_hydra_config=True)
            with open_dict(config):
                folder = Path(str(config.hydra.run.dir)).expanduser().resolve()
                config.hydra.runtime.output_dir = str(folder)
                config.hydra.job.name, config.hydra.job.num = "train", 0
                config.hydra.mode = RunMode.RUN
            hydra.set_config(config)
            own_part = config.copy()
            with open_dict(own_part):
                del own_part["hydra"]
            plain = cast(dict[str, Any], OmegaConf.to_container(own_part, resolve=True))
            yield plain, folder, list(config.hydra.overrides.task)
    except (HydraException, OmegaConfBaseException) as error:
        line = [*(["--config-dir", str(config_dir)] if own else []), *words]
        raise UserError(hydra_cli.explain(error, "train", line)) from error
    finally:
        hydra.cfg = before


if __name__ == "__main__":
    hydra_cli.run(train, "train", jobs=sweep)
