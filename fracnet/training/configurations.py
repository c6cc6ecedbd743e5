"""Runs that differ in nothing but the seed (or the fold) are trials of one configuration."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fracnet.training.finished import FinishedRun

# What tells one run of a configuration from another.
TRIAL = ("seed", "data.fold")
# What no trained weight depends on: where files lie, what is shown, how figures are made.
BESIDE = (
    "data_dir",
    "data.root",
    "data.num_workers",
    "trainer.progress_bar",
    "trainer.accelerator",
    "objective",
    "show_test",
    "sweep",
    "resume",
)
NODES_BESIDE = ("logger", "cited", "evaluation", "explain", "report", "ensemble.runs")
# Where configurations differ in many keys, these name them best.
TELLING = ("model.name", "model._target_")


@dataclass(frozen=True)
class Configuration:
    """Runs of equal config. `differs` holds the keys in which it stands apart from the others."""

    name: str
    runs: tuple[FinishedRun, ...]
    differs: Mapping[str, Any]


def grouped(runs: Sequence[FinishedRun]) -> list[Configuration]:
    """The configurations of these runs, in the order of their first ones.

    A run without a config is one by itself. Names are the few keys that tell the configurations
    apart; a run's own name where no key does.
    """
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(_key(run), []).append(run)
    flat = [_flat(members[0].config) for members in groups.values()]
    keys = dict.fromkeys(key for config in flat for key in config)
    differing = [key for key in keys if len({_text(c.get(key)) for c in flat}) > 1]
    chosen = _few(differing, flat)
    result = []
    for config, members in zip(flat, groups.values(), strict=True):
        name = " ".join(f"{short}={_shown(config[key])}" for key, short in chosen if key in config)
        if not members[0].config or not name:
            name = members[0].name
        elif members[0].is_ensemble:
            name = f"{members[0].name} (ensemble)"
        result.append(Configuration(name, tuple(members), {k: config.get(k) for k in differing}))
    return result


def apart(runs: Sequence[FinishedRun]) -> list[Configuration]:
    """Each run by itself, under its own name."""
    return [Configuration(run.name, (run,), {}) for run in runs]


def _key(run: FinishedRun) -> str:
    """Equal for runs of one configuration, and for no others."""
    return _text(_flat(run.config)) if run.config and not run.is_ensemble else f"run {run.name}"


def _flat(config: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """Dotted keys and values, without those that do not matter here."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        key = f"{start}{name}"
        if key in TRIAL or key in BESIDE or key in NODES_BESIDE:
            continue
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{key}.")
        else:
            flat[key] = value
    return flat


def _few(differing: Sequence[str], flat: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Keys that suffice to tell the configs apart, each with its short form."""
    ordered = sorted(differing, key=lambda key: key not in TELLING)
    kept: list[str] = []
    told = 1
    for key in ordered:
        parts = {tuple(_text(config.get(name)) for name in (*kept, key)) for config in flat}
        if len(parts) > told:
            kept, told = [*kept, key], len(parts)
    last = [_last(key) for key in kept]
    return [(key, key if last.count(end) > 1 else end) for key, end in zip(kept, last, strict=True)]


def _last(key: str) -> str:
    head, _, end = key.rpartition(".")
    return head if end in ("_target_", "name") and head else end


def _shown(value: Any) -> str:
    """A value as a part of a name: of a dotted path the end, of a list its length."""
    if isinstance(value, list):
        return f"[{len(value)}]"
    if isinstance(value, str) and "." in value and " " not in value:
        return value.rpartition(".")[2]
    return _text(value) if not isinstance(value, str) else value


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
