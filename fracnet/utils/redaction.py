"""What may leave the machine: no local paths, no names of people or machines, no patient ids.

It holds for offline runs as well, since `wandb sync` can upload them at any time.
"""

import getpass
import hashlib
import os
import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PATH = "<path>"

# The first word of an absolute, home or upward path inside a text; not the rest of a URL.
_REST = r"[^\s\"',;)\]}]"
_PATHS = re.compile(
    rf"(?<![\w/.\\])(?<!https:)(?<!http:)(?:file:/+|\\\\|~[\w.-]*/|/|\.\./|[A-Za-z]:[\\/]){_REST}+"
)
_WHOLE = re.compile(r"([+~]?[\w.@/]+=)?[\"']?(?:~|/|\.\.?/|[A-Za-z]:[\\/])")

# Keys that hold a path of this machine, whatever it looks like; `on_bad_file` is none of them.
_KEY = re.compile(r"(?:^|[-._])(?:root|dir|folder|path|resume|weights|(?<!on_bad_)file)$")

# Accounts that say nothing about a person, and words that configs hold anyway.
_COMMON = ("root", "user", "admin", "test", "localhost", "data", "train")


class Scrubber:
    """Takes local paths, host and user names out of plain containers."""

    def __init__(self, known: Iterable[str | Path] = ()) -> None:
        homes = {str(Path.home()), os.path.expanduser("~"), os.getcwd()}
        paths = {os.path.abspath(path) for path in (*homes, *known)}
        # The longest first: a path inside another one is gone before it could be cut in two.
        longest = sorted((re.escape(p) for p in paths if len(p) > 3), key=len, reverse=True)
        self._known = re.compile(rf"(?:{'|'.join(longest)}){_REST}*")
        names = {socket.gethostname(), socket.gethostname().partition(".")[0], _user()}
        wanted = [name for name in names if len(name) > 2 and name.lower() not in _COMMON]
        words = "|".join(re.escape(name) for name in sorted(wanted, key=len, reverse=True))
        self._names = re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE) if words else None

    def scrub(self, value: Any, key: str = "") -> Any:
        """The same containers with `<path>` and `<name>` in place of what is private."""
        if isinstance(value, dict):
            return {name: self.scrub(item, str(name)) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.scrub(item, key) for item in value]
        if not isinstance(value, str):
            return value
        if value and _KEY.search(key):
            return PATH
        return self._text(value)

    def _text(self, text: str) -> str:
        # A word of a command is a path to its end, blanks and commas included.
        whole = _WHOLE.match(text)
        if whole and "://" not in text:
            return (whole.group(1) or "") + PATH
        word, sign, rest = text.partition("=")
        if sign and rest and _KEY.search(word):
            return f"{word}={PATH}"
        text = _PATHS.sub(PATH, self._known.sub(PATH, text))
        return self._names.sub("<name>", text) if self._names else text


def hashed(kind: str, identity: str, salt: str) -> str:
    """12 hex digits for a patient or study: the same within a run, another one in each run."""
    digest = hashlib.blake2b(f"{kind}:{identity}".encode(), key=salt.encode(), digest_size=6)
    return digest.hexdigest()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an account without a name, as in some containers
        return ""
