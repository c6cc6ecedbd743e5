"""An evaluation as a person meets it: figures in the folder, tables on the screen."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console

from fracnet.progress import Show, T, shown
from fracnet.report import figures
from fracnet.report.judgement import print_assessment
from fracnet.training.judge import Judgement
from fracnet.training.run_folder import RunFolder


def progress(visible: bool) -> Show:
    """A bar on stderr, where it is wanted and stderr is a terminal."""

    def show(items: Iterable[T], total: int, description: str) -> Iterable[T]:
        return shown(items, total, description, visible)

    return show


def draw(found: Judgement, everything: bool = True) -> list[Path]:
    """Draw what belongs to the evaluation, and the learning curves of a run's own folder.

    everything: otherwise the curves and the confusion matrix alone.
    """
    run = RunFolder(found.folder)
    folder = run.figures
    drawn = []
    epoch = (found.told.selected or {}).get("epoch")
    if epoch is not None and run.curves.is_file():
        drawn += figures.curves(run.curves, folder, selected=epoch)
    if not everything:
        return drawn + figures.draw_confusion(found.assessment, folder)
    with Console(stderr=True).status("drawing figures"):  # seconds; nothing but on a terminal
        return drawn + figures.draw_all(found.assessment, found.table, folder)


def present(console: Console, found: Judgement, drawn: Sequence[Path], word: str = "Run") -> None:
    """Print the figures, then where everything lies; `word` says what kind of folder it is."""
    print_assessment(console, found.assessment, notes=found.told.notes, cited=found.cited)
    names = ("metrics.json", "predictions.csv", "decisions.json")
    there = [found.folder / name for name in names if (found.folder / name).is_file()]
    print(f"\n{word} folder: {found.folder}")
    for path in [*there, *(path for path in drawn if path.suffix == ".png")]:
        print(f"  {path.relative_to(found.folder)}")
