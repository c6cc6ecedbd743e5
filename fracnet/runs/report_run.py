"""A run's report: report/index.html and report/model_card.md, from the files of its folder alone.

Training writes it at its end, `fracnet.evaluate` for what it has scored, `fracnet.explain` anew.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from fracnet.config.schema import Config
from fracnet.data.manifest import read_table
from fracnet.evaluation.assessment import assessment_of
from fracnet.report.model_card import as_card
from fracnet.report.run_content import RunContent
from fracnet.report.run_page import as_page
from fracnet.runs.run_folder import RunFolder, mapping, read_baselines, write_json, write_whole
from fracnet.utils.redaction import Scrubber

if TYPE_CHECKING:
    from fracnet.runs.evaluate_run import Judgment

PEOPLE = ("patient", "study", "path")
NAMED = "(left out)"

# At either end of a name no letter, digit or hyphen: that would be another, longer name.
BEFORE, BEHIND = r"(?<![\w.-])", r"(?![\w-])"
KIND = r"\b(?i:patient|study)(?: |\s*[=:]\s*)['\"(\[]?"


def shows_images(config: Config) -> bool:
    """What `report.images` comes to: null is yes, but no where W&B gets the run at once."""
    asked = config.report.images
    return config.logger.mode != "online" if asked is None else asked


def write(
    folder: Path,
    *,
    run: RunFolder | None = None,
    images: bool | None = None,
    cited: Sequence[Mapping[str, str]] | None = None,
) -> list[Path]:
    """Write report/index.html and report/model_card.md into a folder with a metrics.json.

    Args:
        folder: of a run, of a further evaluation of one, or of one of others' predictions.
        run: whose evaluation it is; None where it is the run's own, or there is none.
        images: whether pixels, names of files and of patients are shown, from now on; None as it
            was last said of the run.
        cited: published figures beside the own ones; None for those that metrics.json holds.

    Returns:
        The files. A card is written for a run's own figures alone.

    Raises:
        UserError: a metrics.json of an older fracnet.
    """
    content = content_of(folder, run, chosen(run or RunFolder(folder), images), cited)
    report = RunFolder(folder).report
    report.parent.mkdir(parents=True, exist_ok=True)
    write_whole(report, as_page(content))
    if not content.run_known or content.evaluation:
        return [report]
    card = report.with_name("model_card.md")
    # Made to be published, so without names whatever the page shows.
    write_whole(card, as_card(content_of(folder, images=False) if content.images else content))
    return [report, card]


def chosen(run: RunFolder, said: bool | None = None) -> bool:
    """Whether pages of the run and of its evaluations show images: as it was last said.

    What is said is kept in fit.json, so that a later command that says nothing brings back no
    pixels and no names. True where nobody has said anything.
    """
    fit = mapping(run.fit)
    kept = bool((fit.get("report") or {}).get("images", True))
    if said is None or said == kept:
        return kept
    write_json(run.fit, fit | {"report": {"images": said}})
    return said


def content_of(
    folder: Path,
    run: RunFolder | None = None,
    images: bool = True,
    cited: Sequence[Mapping[str, str]] | None = None,
) -> RunContent:
    """Read what `write` writes of; its arguments."""
    own = RunFolder(folder)
    home = run or own
    metrics, fit = mapping(own.metrics), mapping(home.fit)
    config, provenance = mapping(home.config), mapping(home.provenance)
    table = read_table((own if own.predictions.is_file() else home).predictions)
    anew = run is not None and own.predictions.is_file()
    about = metrics.get("data") or fit.get("data") or {}
    notes = [str(note) for note in about.get("notes", [])]
    if not images:
        scrub = Scrubber().scrub
        config, provenance = scrub(config), scrub(provenance)
        notes = list(unnamed(scrub(notes), table))
        metrics |= {"notes": list(unnamed(metrics.get("notes", []), table))}
    explained = mapping(home.explanation) if not anew else {}
    assessment = assessment_of(metrics, str(own.metrics))
    # The run's heatmaps were sorted into right and wrong by what the run itself decides.
    redecided = run is not None and (assessment.decisions or {}) != mapping(home.decisions)
    return RunContent(
        name=home.path.name,
        evaluation=folder.name if run is not None else "",
        run_known=home.config.is_file(),
        data=str(about.get("name") or data_named(config)),
        notes=notes,
        assessment=assessment,
        table=table,
        baselines=baselines_for(home, table),
        config=config,
        fit=fit,
        provenance=provenance,
        curves=pd.read_csv(home.curves) if home.curves.is_file() else None,
        explained=explained or None,
        explain_folder=home.explain,
        cited=metrics.get("cited", []) if cited is None else cited,
        images=images,
        anew=anew,
        redecided=redecided,
    )


def data_named(config: Mapping[str, Any]) -> str:
    """The data set's class, for runs of before there was fit.json; else that it is not known."""
    target = str((config.get("data") or {}).get("_target_", ""))
    return target.rpartition(".")[2] or "unnamed data"


def baselines_for(run: RunFolder, table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The run's baselines where they are of the test rows of this table; else none."""
    test = set(table.loc[table["split"] == "test", "path"])
    return {name: of for name, of in read_baselines(run).items() if set(of["path"]) == test}


def unnamed(sentences: Iterable[str], table: pd.DataFrame) -> Iterable[str]:
    """The sentences without the names of files, studies and patients of the table.

    A name that might be a figure or a word is one behind `patient` or `study` only.
    """
    names: set[str] = set()
    for column in PEOPLE:
        if column in table:
            names |= set(table[column].dropna().astype(str))
    longest = [re.escape(name) for name in sorted(names - {""}, key=lambda n: (-len(n), n))]
    telling = {re.escape(name) for name in names if _telling(name)}
    forms = []
    if telling:
        forms.append(rf"{BEFORE}(?:{'|'.join(n for n in longest if n in telling)}){BEHIND}")
    if len(telling) < len(longest):
        others = "|".join(name for name in longest if name not in telling)
        forms.append(rf"(?P<kind>{KIND})(?:{others}){BEHIND}(?!\.\d)")
    pattern = re.compile("|".join(forms) or r"(?!)")
    for sentence in sentences:
        yield pattern.sub(lambda found: f"{found.groupdict().get('kind') or ''}{NAMED}", sentence)


def _telling(name: str) -> bool:
    """Whether it cannot be taken for a figure, or for a word as short as `a`."""
    if name.isdigit() or len(name) < 3:
        return False
    return len(name) > 4 or any(letter.isalpha() for letter in name)


def conclude(
    found: "Judgment",
    word: str,
    run: Path | None,
    *,
    figures: bool | None = None,
    images: bool | None = None,
) -> None:
    """Draw the figures, print the tables, write the report.

    run: whose figures they are; None for those of others' predictions. figures, images: None is as
    the run has it.
    """
    from rich.console import Console

    pass
    from fracnet.runs.evaluate_run import draw, present
    from fracnet.runs.run_folder import RunFolder

    drawn = draw(found, found.told.options.figures if figures is None else figures)
    present(Console(highlight=False, soft_wrap=False), found, drawn, word)
    home = RunFolder(run) if run and run != found.folder else None
    paths = write(found.folder, run=home, images=images, cited=found.cited)
    print(f"\nReport  {paths[0]}", flush=True)
