"""The report of an evaluation: report/index.html, and report/model_card.md for a run's own one."""

import os
import re
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pandas as pd
from rich.console import Console

from fracnet.config.schema import Config
from fracnet.report.console import print_assessment
from fracnet.report.model_card import model_card_text
from fracnet.report.run_charts import save_figures, save_learning_curves
from fracnet.report.run_content import RunContent
from fracnet.report.run_page import run_page
from fracnet.report.tables import Link
from fracnet.report.verdict import run_verdict
from fracnet.runs.evaluate_run import RunEvaluation
from fracnet.runs.run_folder import RunFolder, read_curves, read_mapping, write_json
from fracnet.utils.files import path_text, write_atomically
from fracnet.utils.progress import spinner
from fracnet.utils.redaction import Scrubber

ID_COLUMNS = ("patient", "study", "path")
REMOVED = "(left out)"

# A letter, digit or hyphen at either end makes it another, longer name.
BEFORE, AFTER = r"(?<![\w.-])", r"(?![\w-])"
KIND = r"\b(?i:patient|study)(?: |\s*[=:]\s*)['\"(\[]?"


def report_evaluation(
    evaluation: RunEvaluation,
    label: str,
    run: RunFolder | None = None,
    *,
    figures: bool | None = None,
    images: bool | None = None,
) -> None:
    """Draw the figures, print the tables and write the report of an evaluation.

    label: names the kind of folder in print. run, images: as for `write_report`. figures: None
    keeps the setting of the evaluation's options.
    """
    options = evaluation.metadata.options
    paths = draw_figures(evaluation, options.figures if figures is None else figures)
    print_evaluation(evaluation, paths, label, run)
    page, *_ = write_report(evaluation, run, images=images)
    print(f"\nReport  {page}", flush=True)


def draw_figures(evaluation: RunEvaluation, everything: bool = True) -> list[Path]:
    """Draw the figures of an evaluation, with the learning curves in a run's own folder.

    everything: False draws the learning curves and the confusion matrix alone.
    """
    run, assessment = evaluation.folder, evaluation.assessment
    paths = []
    epoch = (evaluation.metadata.selected or {}).get("epoch")
    if epoch is not None and run.curves.is_file():
        paths += save_learning_curves(run.curves, run.figures, selected=epoch)
    with spinner("drawing figures") if everything else nullcontext():  # takes seconds
        return paths + save_figures(assessment, evaluation.predictions, run.figures, everything)


def print_evaluation(
    evaluation: RunEvaluation, figures: Sequence[Path], label: str, run: RunFolder | None = None
) -> None:
    """Print the metrics with the page's verdict, then the paths of all files.

    label: names the kind of folder. run: as for `write_report`.
    """
    folder = evaluation.folder
    # Heatmaps follow the metrics and are printed with their own scores.
    content = replace(report_content(evaluation, run), explained=None)
    print_assessment(
        Console(highlight=False, soft_wrap=False, force_jupyter=False),  # one text in a notebook
        content,
        run_verdict(content),
        notes=evaluation.metadata.notes,
        cited=evaluation.cited,
        data=content.data,
    )
    files = [folder.metrics, folder.predictions, folder.decisions]
    figures = [path for path in figures if path.suffix == ".png"]
    print(f"\n{label} folder: {folder.path}")
    for path in [*(path for path in files if path.is_file()), *figures]:
        print(f"  {path.relative_to(folder.path)}")


def write_report(
    evaluation: RunEvaluation, run: RunFolder | None = None, *, images: bool | None = None
) -> list[Path]:
    """Write report/index.html and report/model_card.md into the folder of the evaluation.

    Args:
        evaluation: of a run, a further one of a run, or one of others' predictions.
        run: to which a further evaluation belongs; None for a run's own, or where there is no run.
        images: whether pixels and the names of files and patients are shown from now on; None keeps
            the setting of the run.

    Returns:
        The files. Only a run's own metrics get a model card.
    """
    images = images_allowed(run or evaluation.folder, images)
    content = report_content(evaluation, run, images)
    page = evaluation.folder.report
    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(page, run_page(content))
    if not content.run_known or content.evaluation:
        return [page]
    card = page.with_name("model_card.md")
    # The card is meant to be published, so it never shows names, whatever the page shows.
    public = report_content(evaluation, images=False) if images else content
    write_atomically(card, model_card_text(public))
    return [page, card]


def config_shows_images(config: Config) -> bool:
    """The value of `report.images`; null means yes, but no where W&B uploads the run at once."""
    images = config.report.images
    return not config.logger.online if images is None else images


def images_allowed(run: RunFolder, requested: bool | None = None) -> bool:
    """Whether pages of the run and of its evaluations show images.

    A request is stored in fit.json, so that a later command without one brings back no pixels and
    no names. True where nothing was ever requested.
    """
    fit = read_mapping(run.fit)
    stored = bool((fit.get("report") or {}).get("images", True))
    if requested is None or requested == stored:
        return stored
    write_json(run.fit, fit | {"report": {"images": requested}})
    return requested


def report_content(
    evaluation: RunEvaluation, run: RunFolder | None = None, images: bool = True
) -> RunContent:
    """What the page and the card show: the evaluation, and the other files of the run's folder.

    run: as for `write_report`. images: False leaves out the names of files, studies and patients.
    """
    folder, assessment = evaluation.folder, evaluation.assessment
    table = evaluation.predictions.table
    home = run or folder
    config, provenance = read_mapping(home.config), read_mapping(home.provenance)
    notes = [str(note) for note in evaluation.metadata.notes]
    if not images:
        scrub = Scrubber().scrub
        config, provenance = scrub(config), scrub(provenance)
        notes = list(without_names(scrub(notes), table))
        assessment = replace(assessment, notes=tuple(without_names(assessment.notes, table)))
    new_predictions = run is not None and folder.predictions.is_file()
    explained = read_mapping(home.explanation) if not new_predictions else {}
    return RunContent(
        name=path_text(home.path.name),
        evaluation=path_text(folder.path.name) if run is not None else "",
        run_known=home.config.is_file(),
        data=evaluation.metadata.data,
        notes=notes,
        assessment=assessment,
        predictions=evaluation.predictions,
        baselines=evaluation.baselines,
        config=config,
        fit=read_mapping(home.fit),
        provenance=provenance,
        curves=read_curves(home),
        explained=explained or None,
        explain_folder=home.explain,
        cited=evaluation.cited,
        images=images,
        repredicted=new_predictions,
        # The run's heatmaps were sorted into right and wrong by the run's own decisions.
        redecided=run is not None and (assessment.decisions or {}) != read_mapping(home.decisions),
        files=_linked_files(folder),
        sweep=_sweep_link(home, folder.report.parent),
    )


CARD = "report/model_card.md"
LINKED_FILES = {
    "metrics.json": "all metrics with their intervals",
    "predictions.csv": "one row per image of val and test",
    "decisions.json": "thresholds and temperature that validation chose",
    "config.yaml": "every setting",
    "provenance.json": "command, code, data and machine",
    "metrics.csv": "metrics by epoch",
    "figures": "the charts of this page as PNG and SVG",
    "explain/explain.json": "heatmaps and their scores",
    CARD: "the model card",
}


def _linked_files(run: RunFolder) -> list[tuple[Link, str]]:
    """The files of a folder that its page links to, and what they hold."""
    # The card of a run, which has a config, is written after the page.
    names = [n for n in LINKED_FILES if (run.path / n).exists()]
    names += [CARD] if run.config.is_file() and CARD not in names else []
    links = {n: Path(os.path.relpath(run.path / n, run.report.parent)).as_posix() for n in names}
    return [(Link(name, links[name]), what) for name, what in LINKED_FILES.items() if name in links]


def _sweep_link(run: RunFolder, start: Path) -> str:
    """Address of the page of the sweep that the run is a job of; "" for a single run."""
    if not (run.path / "job.json").is_file():
        return ""
    # Hydra writes multirun.yaml before the first job, and the page follows the last one.
    root = next((p for p in run.path.parents if (p / "multirun.yaml").is_file()), run.path.parent)
    return quote(Path(os.path.relpath(root / "index.html", start)).as_posix())


def without_names(sentences: Iterable[str], table: pd.DataFrame) -> Iterable[str]:
    """The sentences without the names of files, studies and patients of the table.

    A name that could be a number or a word is removed only after `patient` or `study`.
    """
    names: set[str] = set()
    for column in ID_COLUMNS:
        if column in table:
            names |= set(table[column].dropna().astype(str))
    longest = [re.escape(name) for name in sorted(names - {""}, key=lambda n: (-len(n), n))]
    distinctive = {re.escape(name) for name in names if _is_distinctive(name)}
    forms = []
    if distinctive:
        forms.append(rf"{BEFORE}(?:{'|'.join(n for n in longest if n in distinctive)}){AFTER}")
    if len(distinctive) < len(longest):
        others = "|".join(name for name in longest if name not in distinctive)
        forms.append(rf"(?P<kind>{KIND})(?:{others}){AFTER}(?!\.\d)")
    pattern = re.compile("|".join(forms) or r"(?!)")
    for sentence in sentences:
        yield pattern.sub(lambda match: f"{match.groupdict().get('kind') or ''}{REMOVED}", sentence)


def _is_distinctive(name: str) -> bool:
    """Whether it cannot be mistaken for a number, or for a word as short as `a`."""
    if name.isdigit() or len(name) < 3:
        return False
    return len(name) > 4 or any(letter.isalpha() for letter in name)
