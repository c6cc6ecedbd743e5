"""What tells the content of one file from that of another.

Where fracnet finds its configuration and keeps its cache. Imports nothing heavy.
"""

import hashlib
import os
from pathlib import Path


def sha256_of(file: Path) -> str:
    """SHA-256 of a file in 64 hex digits; read in parts. Raises OSError."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def config_dir() -> Path:
    """The folder of Hydra groups: inside an installed wheel, else beside the package."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def cache_dir() -> Path:
    """Folder for everything that can be made again: $FRACNET_CACHE, else ~/.cache/fracnet."""
    own = os.environ.get("FRACNET_CACHE")
    if own:
        return Path(own).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().resolve() / "fracnet"
