"""Numbers and intervals in sentences; text that a terminal, page or spreadsheet may show."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any


def counted(n: int, noun: str) -> str:
    """`1 image`, `2 images`, `3 studies`, `4 classes`; without thousands separators."""
    if n == 1:
        return f"1 {noun}"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{n} {noun[:-1]}ies"
    return f"{n} {noun}es" if noun.endswith(("s", "x", "tch", "nch")) else f"{n} {noun}s"


def near_miss(word: str, allowed: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or nothing where no allowed word is close."""
    matches = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def duration(seconds: float) -> str:
    """`48 s`, `8 min 50 s`, `3 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def time_text(seconds: Mapping[str, float]) -> str:
    """`1 min 3 s: start 4 s, forward 20 s` of seconds by phase, without what took next to none."""
    total = sum(seconds.values())
    least = max(0.5, 0.01 * total)
    parts = [f"{name} {duration(s)}" for name, s in seconds.items() if s >= least]
    return f"{duration(total)}: {', '.join(parts)}" if parts else ""


def are(n: int) -> str:
    """The verb that goes with `n` things: is or are."""
    return "is" if n == 1 else "are"


def have(n: int) -> str:
    """The verb that goes with `n` things: has or have."""
    return "has" if n == 1 else "have"


def one_line(text: object) -> str:
    """The text, or an error's message, with all white space folded."""
    return " ".join(str(text).split())


def as_clause(text: object) -> str:
    """`one_line` without a period at its end, for the middle of a sentence or before a period."""
    line = one_line(text)
    return line if line.endswith("...") else line.rstrip(".")


def limits(low: float, high: float, digits: int = 3) -> str:
    """`0.81-0.93`, or `-0.02 to 0.07` where a hyphen would read as a sign."""
    return f"{low:.{digits}f}{'-' if low >= 0 else ' to '}{high:.{digits}f}"


def list_some(items: Iterable[str], total: int, limit: int = 10) -> str:
    """`a, b and 3 more`: the first `limit` of `total` items, then the number of the others."""
    names = [item for item, _ in zip(items, range(limit), strict=False)]
    more = total - len(names)
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


MAX_NAMES = 6
"""How many classes or groups a sentence names; the browser page's decide.js has the same."""


def join_names(names: Sequence[str], limit: int = MAX_NAMES) -> str:
    """`a, b and c`; of more than `limit` names the first ones and the number of the others."""
    if len(names) > limit:
        return list_some(names, len(names), limit)
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def number_in(text: str) -> Decimal | None:
    """The exact number that a text spells, without an exponent; 1, 01 and 1.0 are equal."""
    plain = re.fullmatch(r"[+-]?\d+(\.\d*)?", text, re.ASCII)
    return Decimal(text) if plain else None


def shortened(text: str, width: int) -> str:
    """At most `width` characters: cut after a word or, in a long word, within it, with a `…`."""
    text = " ".join(text.split())
    if len(text) <= width:
        return text
    start = text[: width - 1]
    words = text[:width].rpartition(" ")[0]
    return f"{words if 2 * len(words) > width else start}…"


def quoted(value: str) -> str:
    """The text as Hydra's grammar writes it, safe from OmegaConf's interpolation too."""
    text = re.sub(r"(\\*)('|$)", r"\1\1\2", value).replace("'", r"\'").replace("${", r"\${")
    return f"'{text}'"


def override_value(value: Any) -> str:
    """A Python value as an override writes it."""
    if isinstance(value, Mapping):
        pairs = (f"{key}: {override_value(item)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(override_value, value)) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    plain = not isinstance(value, str | Path) or re.fullmatch(r"[A-Za-z0-9_.+:%@/-]+", str(value))
    return str(value) if plain else quoted(str(value))


def as_typed(value: Any) -> str:
    """A value of a config as its user has typed it: `true` for True, and texts without quotes."""
    return value if isinstance(value, str) else override_value(value)


# Control characters except line feed and tab, and those that turn the direction of writing.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


def without_controls(text: str) -> str:
    """The text with each control character as its code, e.g. `\\x1b`; names may hold any."""
    return _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)


def plain_cell(value: Any) -> Any:
    """A value for a csv file that people open in a spreadsheet: no text becomes a formula.

    Text that begins like one, and is no number, gets an apostrophe in front, and so does text that
    begins with one, so that `exact_cell` can undo it.
    """
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r", "'")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def exact_cell(value: Any) -> Any:
    """The value that `plain_cell` has made plain."""
    return value[1:] if isinstance(value, str) and value.startswith("'") else value
