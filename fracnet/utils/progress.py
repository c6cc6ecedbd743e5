"""A progress bar for a person who watches, and silence for a log file."""

from collections.abc import Callable, Iterable, Iterator
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
"""Passes on items, of which there are so many, of a step that is called so."""


class _Rate(ProgressColumn):
    """Items a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f}/s" if task.speed else "")


def progress_bar(
    items: Iterable[T], total: int, description: str, visible: bool = True
) -> Iterator[T]:
    """Pass `items` on; a bar on stderr tells how many, and goes when all are done.

    There is none where stderr is no terminal.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    hidden = not (visible and console.is_terminal)
    with rich_progress.Progress(*columns, console=console, disable=hidden, transient=True) as bar:
        yield from bar.track(items, total=total, description=description)


def no_progress(items: Iterable[T], total: int, description: str) -> Iterable[T]:
    """A `Show` that shows nothing."""
    return items
