"""Caches of tiny data sets, and what lies in their folder."""

from pathlib import Path

from helpers.tiny import RESIZE

from fracnet.data.image_cache import ImageCache
from fracnet.data.manifest import Manifest
from fracnet.data.preprocess import build_preprocess

ENHANCE = build_preprocess(RESIZE, 32)


def opened(manifest: Manifest, **settings: object) -> ImageCache:
    """Its cache at 32 pixels, built without a word."""
    defaults: dict = {"on_bad_file": "error", "progress": False}
    return ImageCache.open_or_build(manifest, ENHANCE, **(defaults | settings))


def lying(folder: Path) -> set[str]:
    """Everything in the folder but locks."""
    return {path.name for path in folder.glob("*") if path.suffix != ".lock"}
