"""Caches of tiny datasets, and the contents of their folder."""

from pathlib import Path

from helpers.tiny import RESIZE

from fracnet.data.image_cache import ImageCache
from fracnet.data.manifest import Manifest
from fracnet.data.preprocess import Preprocess

PREPROCESS = Preprocess(RESIZE, 32)


def open_cache(manifest: Manifest, **settings: object) -> ImageCache:
    """Its cache at 32 pixels, without progress output."""
    defaults: dict = {"on_bad_file": "error", "progress": False}
    return ImageCache.open_or_build(manifest, PREPROCESS, **(defaults | settings))


def cache_contents(folder: Path) -> set[str]:
    """Names of everything in the folder except locks."""
    return {path.name for path in folder.glob("*") if path.suffix != ".lock"}
