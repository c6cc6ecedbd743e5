"""Remove local paths, user and host names and patient ids from what may leave the machine.

Offline runs are redacted too, since `wandb sync` can upload them at any time.
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

# Keys whose value is a local path, whatever it looks like; `on_bad_file` is not one of them.
_KEY = re.compile(r"(?:^|[-._])(?:root|dir|folder|path|resume|weights|(?<!on_bad_)file)$")

# Account names that identify nobody, and words that configs contain anyway.
_COMMON = ("root", "user", "admin", "test", "localhost", "data", "train")


class Scrubber:
    """Replaces local paths, host and user names in plain containers."""

    def __init__(self, known: Iterable[str | Path] = ()) -> None:
        homes = {str(Path.home()), os.path.expanduser("~"), os.getcwd()}
        paths = {os.path.abspath(path) for path in (*homes, *known)}
        # The longest first, so that no path is cut in two by one that it contains.
        longest = sorted((re.escape(p) for p in paths if len(p) > 3), key=len, reverse=True)
        self._known = re.compile(rf"(?:{'|'.join(longest)}){_REST}*")
        names = {socket.gethostname(), socket.gethostname().partition(".")[0], _user()}
        private = [name for name in names if len(name) > 2 and name.lower() not in _COMMON]
        words = "|".join(re.escape(name) for name in sorted(private, key=len, reverse=True))
        self._names = re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE) if words else None

    def scrub(self, value: Any, key: str = "") -> Any:
        """The same containers with `<path>` and `<name>` in place of private text."""
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
        # An argument that starts like a path is one to its end, spaces and commas included.
        whole = _WHOLE.match(text)
        if whole and "://" not in text:
            return (whole.group(1) or "") + PATH
        word, sign, rest = text.partition("=")
        if sign and rest and _KEY.search(word):
            return f"{word}={PATH}"
        text = _PATHS.sub(PATH, self._known.sub(PATH, text))
        return self._names.sub("<name>", text) if self._names else text


def hashed(kind: str, identity: str, salt: str) -> str:
    """12 hex digits for a patient or study: constant within a run, different between runs."""
    digest = hashlib.blake2b(f"{kind}:{identity}".encode(), key=salt.encode(), digest_size=6)
    return digest.hexdigest()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an account without a name, as in some containers
        return ""
