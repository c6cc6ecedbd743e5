"""Command-line overrides as people type them, quoted so that Hydra reads them as meant.

Hydra's grammar gives a meaning, or none, to brackets, commas, `=`, `~` and all letters but those
of English: without help, `input=scan (1).dcm` would need quotes within quotes.
"""

import os
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, QuotedString, Sweep
from hydra.errors import HydraException

from fracnet.config.schema import Callbacks, Trainer
from fracnet.utils.files import valid_text
from fracnet.utils.text import quoted

# Keys whose values are paths or patterns.
PATH_KEYS = (
    "input", "run", "runs", "out", "table", "resume", "cited", "data_dir", "data.root",
    "data.csv", "data.test_root", "model.weights", "file", "folder", "spool", "tls.cert", "tls.key",
    "tls.ca", "hydra.run.dir", "hydra.sweep.dir",
)  # fmt: skip
# Groups that take further keys, and the keys that Hydra knows.
OPEN_GROUPS: Mapping[str, Collection[str]] = {
    "trainer": Trainer.model_fields,
    "callbacks": Callbacks.model_fields,
    "logger": ("wandb", "tensorboard", "mlflow", "csv"),
    "metrics": (),
}
OPEN_KEYS = ("scheduler.interval=", "scheduler.frequency=", "scheduler.monitor=")
_UNREADABLE = object()


def quote_paths(arguments: Sequence[str], multirun: bool) -> list[str]:
    """The arguments, with the values of `PATH_KEYS` quoted where Hydra would misread them.

    A list, `input=[a.png,b.png]`, stays a list, and a quoted value stays as it is. `a,b.png` is
    one name if that file exists. multirun: whether commas separate the values of several jobs.
    """
    return [_quote_path(argument, multirun) for argument in arguments]


def model_as_run(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command that takes an exported model as `run=`, with `model=` for it.

    `model` is a group of training's config, which Hydra would look up.
    """
    return [re.sub(r"^model=", "run=", argument) for argument in arguments]


def is_readable(argument: str) -> bool:
    """Whether Hydra can read an override."""
    return _parsed(argument) is not _UNREADABLE


def not_a_name(argument: str) -> str:
    """The value of a `group=value` that Hydra reads as null, true or a number; "" for others.

    Hydra ends in an error of its own where such a value chooses from a group. A mapping chooses
    nothing, it overrides keys of the group: `trainer={max_epochs: 3}`.
    """
    value = _parsed(argument)
    items = value if isinstance(value, list) else [value]
    allowed = str | dict | QuotedString | Sweep | Glob
    named = value is _UNREADABLE or all(isinstance(item, allowed) for item in items)
    return "" if named else argument.partition("=")[2]


def listed_texts(argument: str) -> list[str]:
    """The items of a `key=[a,b]`; empty for any other value."""
    value = _parsed(argument)
    items = value if isinstance(value, list) else []
    return [item.text if isinstance(item, QuotedString) else str(item) for item in items]


def shell_quoted(argument: str, multirun: bool = False) -> str:
    """What to type in a shell for a `key=value` with special characters: `'input="a (1).dcm"'`.

    multirun: whether commas separate the values of several jobs, which are then quoted singly.
    """
    key, _, value = argument.partition("=")
    if value.startswith("[") and value.endswith("]"):
        return shlex.quote(f"{key}=[{_quote_each(value[1:-1])}]")
    if multirun and "," in value:
        return shlex.quote(f"{key}={_quote_each(value)}")
    return shlex.quote(f"{key}={_quote_value(value)}")


def hydra_text(text: str) -> str:
    """A text as a value in an override, in quotes only where Hydra's grammar needs them."""
    plain = re.fullmatch(r"[A-Za-z0-9_./-]+", text) and _parsed(f"key={text}") == text
    return text if plain else _quote_value(text)


def add_open_keys(arguments: Sequence[str]) -> list[str]:
    """The arguments, with `++` before a key that a group takes though its YAML does not list it.

    So that `trainer.accumulate_grad_batches=4` needs no `+`; fracnet checks these keys itself.
    """
    return [f"++{argument}" if _is_open(argument) else argument for argument in arguments]


def _is_open(argument: str) -> bool:
    key = re.match(r"(\w+)\.(\w+)[^=]*=", argument)
    if key is None:
        return False
    known = OPEN_GROUPS.get(key[1])
    return key[0] in OPEN_KEYS if known is None else key[2] not in known


def _quote_each(values: str) -> str:
    plain = re.compile(r"[A-Za-z0-9_./*-]+")
    names = [name.strip() for name in values.split(",")]
    return ",".join(name if plain.fullmatch(name) else _quote_value(name) for name in names)


def _quote_value(value: str) -> str:
    """In double quotes, which are easier to type, where the value allows it."""
    return quoted(value) if re.search(r'["\\]|\$\{', value) else f'"{value}"'


def _quote_path(argument: str, multirun: bool) -> str:
    key, _, value = argument.partition("=")
    interpolated = key.startswith("hydra.") and "${" in value
    if key not in PATH_KEYS:
        return valid_text(argument)  # in an ASCII locale it comes as bytes
    if not value or value[0] in "'\"" or interpolated:
        return argument
    parsed = _parsed(argument)
    exists = not multirun and parsed != value and os.path.exists(os.path.expanduser(value))
    # An unreadable list is left for Hydra to reject: only the user knows which name is wrong.
    is_list = (value.startswith("[") and value.endswith("]")) or (multirun and "," in value)
    unreadable = parsed is _UNREADABLE and not is_list
    number = isinstance(parsed, int | float) and not isinstance(parsed, bool)
    changed = isinstance(parsed, str) and parsed != value  # a backslash before a bracket
    misread = exists or unreadable or number or changed
    return f"{key}={quoted(value)}" if misread else argument


def _parsed(argument: str) -> Any:
    """The value as Hydra reads it."""
    try:
        return OverridesParser.create().parse_override(argument).value()
    except HydraException:
        return _UNREADABLE
