"""List the caches of preprocessed images, or remove them with `python -m fracnet.cache clear`."""

import argparse
from collections.abc import Sequence

from fracnet.config import hydra_cli
from fracnet.data import image_cache
from fracnet.utils.text import counted

DAY = 86_400


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m fracnet.cache", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="clear")
    clear = commands.add_parser("clear", help="remove all image caches that are not being built")
    clear.add_argument(
        "--older-than",
        type=float,
        default=0.0,
        metavar="DAYS",
        help="only those that were built more than DAYS days ago",
    )
    options = parser.parse_args(arguments)
    if options.command == "clear":
        _clear(options.older_than)
    else:
        _list()


def _list() -> None:
    found = image_cache.entries()
    if not found:
        print(f"No image caches in {image_cache.images_dir()}.")
        return
    print(f"{'MB':>8}  {'images':>7}  {'pixels':>6}  {'age':>9}  path")
    for entry in found:
        images = "damaged" if entry.images is None else str(entry.images)
        print(
            f"{entry.n_bytes / 1e6:8.1f}  {images:>7}  {entry.image_size or '':>6}  "
            f"{_age(entry.age):>9}  {entry.path} ({entry.name})"
        )
    print(f"{sum(entry.n_bytes for entry in found) / 1e6:8.1f}  in all")


def _clear(days: float) -> None:
    freed = image_cache.sweep()
    removed = 0
    for entry in image_cache.entries():
        if entry.age < days * DAY:
            continue
        size = image_cache.remove(entry.path)
        if size is None:
            print(f"Left alone, because it is being built: {entry.path}")
            continue
        freed += size
        removed += 1
    what = counted(removed, "image cache")
    print(f"Removed {what} from {image_cache.images_dir()}: {freed / 1e6:.1f} MB.")


def _age(seconds: float) -> str:
    for length, unit in ((DAY, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= length:
            return counted(round(seconds / length), unit)
    return f"{seconds:.0f} s"


if __name__ == "__main__":
    with hydra_cli.may_close():
        main()
