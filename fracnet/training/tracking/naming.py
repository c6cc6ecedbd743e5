"""How a run is called in W&B, and its config as one flat table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

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
