"""List the caches of preprocessed images, or remove them with `python -m fracnet.cache clear`."""

import argparse
from collections.abc import Sequence

from fracnet.config import hydra_cli
from fracnet.data import cache_folders
from fracnet.utils.text import counted

DAY = 86_400


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m fracnet.cache", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="{list,clear}")
    commands.add_parser("list", help="list all caches of images and features, as without a command")
    clear = commands.add_parser("clear", help="remove all caches that are not being built")
    clear.add_argument(
        "--older-than",
        type=float,
        default=0.0,
        metavar="DAYS",
        help="only caches built more than DAYS days ago",
    )
    options = parser.parse_args(arguments)
    if options.command == "clear":
        _clear(options.older_than)
    else:
        _list()


def _list() -> None:
    caches = cache_folders.list_caches()
    if not caches:
        print(f"No caches in {cache_folders.images_dir()}.")
        return
    print(f"{'MB':>8}  {'images':>7}  {'pixels':>6}  {'age':>9}  path")
    for entry in caches:
        images = "damaged" if entry.images is None else str(entry.images)
        print(
            f"{entry.n_bytes / 1e6:8.1f}  {images:>7}  {entry.image_size or '':>6}  "
            f"{_age(entry.age):>9}  {entry.path} ({entry.name})"
        )
    print(f"{sum(entry.n_bytes for entry in caches) / 1e6:8.1f}  total")


def _clear(days: float) -> None:
    freed = cache_folders.remove_leftovers()
    removed = 0
    for entry in cache_folders.list_caches():
        if entry.age < days * DAY:
            continue
        size = cache_folders.remove_cache(entry.path)
        if size is None:
            print(f"Skipped: a build is in progress: {entry.path}")
            continue
        freed += size
        removed += 1
    what = counted(removed, "cache")
    print(f"Removed {what} from {cache_folders.images_dir()}: {freed / 1e6:.1f} MB.")


def _age(seconds: float) -> str:
    for length, unit in ((DAY, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= length:
            return counted(round(seconds / length), unit)
    return f"{seconds:.0f} s"


if __name__ == "__main__":
    with hydra_cli.without_hydra():
        main()
