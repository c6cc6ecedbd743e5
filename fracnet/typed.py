"""Paths on the command line, taken as they are typed.

Hydra reads the value of an override by a grammar in which brackets, commas, `=`, `~` and any letter
but those of English have a meaning or none: `input=scan (1).dcm` would need quotes within quotes.
"""

import os
import re
import shlex
from collections.abc import Sequence
from typing import Any

PATHS = (
    "input", "run", "runs", "out", "table", "resume", "cited", "data_dir", "data.root",
    "data.csv", "data.test_root", "model.weights",
)  # fmt: skip


def as_typed(words: Sequence[str], sweep: bool) -> list[str]:
    """The words, those of `PATHS` quoted where the value would else be refused or taken apart.

    A list, `input=[a.png,b.png]`, stays one, and so does what is quoted already. `a,b.png` is one
    name if that is there. sweep: whether commas stand for several jobs.
    """
    return [_taken(word, sweep) for word in words]


def quoted(value: str) -> str:
    """The text as Hydra's grammar has it, so that OmegaConf looks for nothing to insert either."""
    text = re.sub(r"(\\*)('|$)", r"\1\1\2", value).replace("'", r"\'").replace("${", r"\${")
    return f"'{text}'"


def to_type(word: str, sweep: bool = False) -> str:
    """The word as a shell hands it over whole: `'input="scan (1).dcm"'`.

    sweep: whether commas stand for several jobs, each of which keeps its own value.
    """
    key, _, value = word.partition("=")
    if value.startswith("[") and value.endswith("]"):
        return shlex.quote(f"{key}=[{_each_in_quotes(value[1:-1])}]")
    if sweep and "," in value:
        return shlex.quote(f"{key}={_each_in_quotes(value)}")
    return shlex.quote(f"{key}={_in_quotes(value)}")


def _each_in_quotes(values: str) -> str:
    """Those between commas that need it."""
    plain = re.compile(r"[A-Za-z0-9_./*-]+")
    names = [name.strip() for name in values.split(",")]
    return ",".join(name if plain.fullmatch(name) else _in_quotes(name) for name in names)


def _in_quotes(value: str) -> str:
    """In double ones, which are easier to type, where the value allows it."""
    return quoted(value) if re.search(r'["\\]|\$\{', value) else f'"{value}"'


def _taken(word: str, sweep: bool) -> str:
    key, _, value = word.partition("=")
    if key not in PATHS or not value or value[0] in "'\"":
        return word
    held = _read(word)
    there = not sweep and held != value and os.path.exists(os.path.expanduser(value))
    # A list that cannot be read is left to be complained of: which name in it is at fault?
    a_list = (value.startswith("[") and value.endswith("]")) or (sweep and "," in value)
    refused = held is _UNREADABLE and not a_list
    number = isinstance(held, int | float) and not isinstance(held, bool)
    changed = isinstance(held, str) and held != value  # a backslash before a bracket
    return f"{key}={quoted(value)}" if there or refused or number or changed else word


_UNREADABLE = object()


def _read(word: str) -> Any:
    """The value as Hydra understands it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(word).value()
    except HydraException:
        return _UNREADABLE
