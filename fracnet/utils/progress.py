"""Progress of long work: a bar on a terminal, a line now and then in a log file."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TypeVar

from rich import progress as rich_progress
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

T = TypeVar("T")

Progress = Callable[[Iterable[T], int, str], Iterable[T]]
"""Passes the items of a step on and shows progress: items, their number, the step's name."""

LOG_INTERVAL = 60.0  # seconds between two lines where there is no terminal


class _Rate(ProgressColumn):
    """Items per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f}/s" if task.speed else "")


def progress_bar(
    items: Iterable[T], total: int, description: str, visible: bool = True
) -> Iterator[T]:
    """Pass `items` on and show on stderr how many are done.

    On a terminal, a bar that disappears at the end; elsewhere a line every `LOG_INTERVAL` seconds.
    """
    console = Console(stderr=True)
    if not visible:
        yield from items
    elif console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
        )
        with rich_progress.Progress(*columns, console=console, transient=True) as bar:
            yield from bar.track(items, total=total, description=description)
    else:
        yield from _with_lines(items, total, description)


def _with_lines(items: Iterable[T], total: int, description: str) -> Iterator[T]:
    start = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - last >= LOG_INTERVAL:
            last = now
            left = (now - start) / done * (total - done)
            minutes = f"about {left / 60:.0f} min" if left >= 90 else f"about {left:.0f} s"
            line = (
                f"{description}: {done} of {total} ({done / (now - start):.3g}/s, {minutes} left)"
            )
            print(line, file=sys.stderr, flush=True)
        yield item


@contextmanager
def spinner(description: str) -> Iterator[None]:
    """Show a spinner on a terminal, but not in a notebook."""
    console = Console(stderr=True)
    with console.status(description) if console.is_terminal else nullcontext():
        yield


def no_progress(items: Iterable[T], total: int, description: str) -> Iterable[T]:
    """A `Progress` that shows nothing."""
    return items
