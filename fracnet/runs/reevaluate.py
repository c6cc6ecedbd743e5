"""Evaluate a finished run, or a table of predictions, again."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fracnet.config.schema import EvaluateCommand, Evaluation, validated
from fracnet.utils.errors import UserError

if TYPE_CHECKING:
    from fracnet.config.schema import Cited
    from fracnet.runs.evaluate_run import Judgment


def check_command(command: EvaluateCommand) -> None:
    """Raise UserError for keys that do not go together."""
    if (command.run is None) == (command.table is None):
        both = "not both" if command.run else "one of them is needed"
        raise UserError(
            f"run=<folder> or table=<csv>, {both}: python -m fracnet.evaluate run=runs/..."
        )
    keys = ("columns", "labels", "out") if command.run else ("name", "tta", "trust")
    for key in keys:
        if getattr(command, key) not in (None, False, []):
            other = "table" if command.run else "run"
            raise UserError(f"{key}={getattr(command, key)} goes with {other}=, and not without.")
    if command.table and command.elsewhere:
        raise UserError("data= is for the model of a run=, not for a table=.")
    if set(command.data) > {"on_bad_file"} and not command.elsewhere:
        raise UserError(f"data.*={command.data} is given, but no data set: data=mura, say.")
    if command.class_map is not None and not command.elsewhere:
        raise UserError(f"class_map={command.class_map} goes with another data set, data=...")
    if command.name is not None and not (command.changes() or command.again):
        raise UserError(
            f"name={command.name} is for an evaluation with other options than the run's own; "
            "allowed beside it: views, operating_point, calibrate, by, resamples, data, tta."
        )


def of_run(command: EvaluateCommand, beside: "Sequence[Cited]") -> "Judgment":
    """The figures of a run folder."""
    from fracnet.runs.evaluate_run import judge, progress_if
    from fracnet.runs.run_folder import RunFolder

    run = RunFolder(Path(str(command.run)).expanduser().resolve())
    changes = command.changes()
    words, remade = dict(changes), None
    if command.again:
        from fracnet.runs.repredict import remake

        remade = remake(run, command, progress=progress_if(True))
        words |= {"data": remade.told.data} if command.elsewhere else {}
        words |= {"tta": command.tta} if command.tta else {}
    name = command.name or name_of(words)
    return judge(run, changes, name, remade=remade, beside=beside, progress=progress_if(True))


def of_table(command: EvaluateCommand, beside: "Sequence[Cited]") -> "Judgment":
    """The figures of a csv of anyone's predictions."""
    from fracnet.evaluation.csv_import import load, origin
    from fracnet.evaluation.decisions import check_operating
    from fracnet.evaluation.predictions import classes_of
    from fracnet.runs.evaluate_run import judge_table, progress_if

    path = Path(str(command.table)).expanduser().resolve()
    table, notes = load(path, command.columns, command.labels)
    if command.operating_point is not None:
        check_operating(command.operating_point, len(classes_of(table)))
    out = path.with_name(f"{path.stem}_evaluation")
    if command.out:
        out = Path(command.out).expanduser().resolve()
    options = validated(Evaluation, command.changes())
    read = origin(path, command.columns, command.labels)
    return judge_table(
        table,
        path.name,
        notes,
        options,
        out,
        origin=read,
        beside=beside,
        progress=progress_if(True),
    )


def name_of(changes: dict[str, Any]) -> str:
    """A folder's name that says what differs: `views-max_operating-sensitivity-0.9`."""
    words = [f"{key} {value}" for key, value in changes.items()]
    return "_".join(re.sub(r"[^\w.]+", "-", word).strip("-") for word in words)[:100]


def read_cited(path: Path) -> "list[Cited]":
    """Published figures: a YAML list, or one under the key `cited`."""
    import yaml

    from fracnet.config.schema import Cited

    if not path.is_file():
        raise UserError(f"cited={path}: there is no such file.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"cited={path} is no YAML: {' '.join(str(error).split())}.") from error
    rows = content.get("cited") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise UserError(
            f"cited={path} holds no list of published figures; wanted, one or more times: "
            "- {metric: accuracy, value: 0.89, n: 83, source: where it stands}."
        )
    return [validated(Cited, row, f"{path}: cited.{i}") for i, row in enumerate(rows)]
