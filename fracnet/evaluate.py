"""`python -m fracnet.evaluate`: all metrics of a run, or of any table of predictions."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from fracnet.config import hydra_cli
from fracnet.config.commands import EvaluateCommand, newest_run
from fracnet.config.fields import validated
from fracnet.config.schema import Evaluation
from fracnet.utils.errors import UserError
from fracnet.utils.progress import progress_bar

if TYPE_CHECKING:
    from fracnet.runs.evaluate_run import RunEvaluation


def evaluate(cfg: DictConfig) -> "RunEvaluation":
    """Evaluate existing predictions; write and print the metrics.

    Raises UserError for an error in the command, or in the files that it names.
    """
    command = validated(EvaluateCommand, cfg)
    check_command(command)
    changes = command.changes()
    validated(Evaluation, changes)  # reports a wrong option before any file is read

    from fracnet.runs import evaluate_run, report_run, run_folder

    cited = evaluate_run.read_cited(Path(command.cited).expanduser()) if command.cited else []
    run = run_folder.RunFolder.open(full_path(command.run)) if command.run else None
    with run.in_use() if run else nullcontext():
        if run:
            new, name_parts = None, dict(changes)
            if command.needs_model:
                from fracnet.runs import repredict  # torch; metrics alone do not need it

                new = repredict.predict_again(run, command, progress=progress_bar)
                name_parts |= {"data": new.metadata.data} if command.on_other_data else {}
                name_parts |= {"tta": command.tta} if command.tta else {}
            name = command.name or evaluate_run.evaluation_name(name_parts)
            evaluation = evaluate_run.evaluate_run(
                run, changes, name, new=new, cited=cited, progress=progress_bar
            )
        else:
            table = full_path(str(command.table))
            out = full_path(command.out or str(table.with_name(f"{table.stem}_evaluation")))
            evaluation = evaluate_run.evaluate_table(table, command, out, cited, progress_bar)
        own = run is not None and run.path == evaluation.folder.path
        report_run.report_evaluation(
            evaluation,
            "Run" if own else "Evaluation",
            None if own else run,
            figures=command.figures,
            images=command.report.images,
        )
    return evaluation


def full_path(text: str) -> Path:
    """The absolute path."""
    return Path(text).expanduser().resolve()


def check_command(command: EvaluateCommand) -> None:
    """Raise UserError for keys that do not go together."""
    if (command.run is None) == (command.table is None):
        problem = "both are given" if command.run else "neither is given"
        raise UserError(
            f"give either run=<folder> or table=<csv> ({problem}), e.g. run={newest_run()}."
        )
    keys = ("columns", "labels", "out") if command.run else ("name", "tta", "trust")
    for key in keys:
        if getattr(command, key) not in (None, False, []):
            other = "table" if command.run else "run"
            raise UserError(f"{key}={getattr(command, key)} is only allowed with {other}=.")
    if command.table and command.on_other_data:
        raise UserError("data= selects images for the model of run=; table= has no model.")
    if set(command.data) > {"on_bad_file"} and not command.on_other_data:
        raise UserError(f"data.*={command.data} needs a dataset, e.g. data=mura.")
    if command.class_map is not None and not command.on_other_data:
        raise UserError(f"class_map={command.class_map} needs another dataset, data=...")
    if command.name is not None and not (command.changes() or command.needs_model):
        raise UserError(
            f"name={command.name} needs an option that differs from the run's own; allowed: views, "
            "operating_point, calibrate, by, resamples, data, tta."
        )


if __name__ == "__main__":
    hydra_cli.run(evaluate, "evaluate", instead="name one run")
