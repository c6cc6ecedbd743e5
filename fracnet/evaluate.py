"""`python -m fracnet.evaluate`: all metrics of a run, or of anyone's predictions."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from fracnet.config import hydra_cli
from fracnet.config.commands import EvaluateCommand, newest_run
from fracnet.config.schema import Evaluation, validated
from fracnet.utils.errors import UserError

if TYPE_CHECKING:
    from fracnet.config.schema import Cited
    from fracnet.runs.evaluate_run import RunEvaluation
    from fracnet.runs.run_folder import RunFolder


def evaluate(cfg: DictConfig) -> "RunEvaluation":
    """Evaluate existing predictions; write and print the metrics.

    Raises:
        UserError: an error in the command, or in the files that it names.
    """
    plain = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    for key in ("image_size", "model"):  # a dataset sets them for training; the run has its own
        plain.pop(key, None)
    command = validated(EvaluateCommand, plain)
    check_command(command)
    validated(Evaluation, command.changes())  # reports a wrong option before any file is read

    from fracnet.runs.evaluate_run import read_cited
    from fracnet.runs.report_run import report_evaluation
    from fracnet.runs.run_folder import RunFolder

    cited = read_cited(Path(command.cited).expanduser()) if command.cited else []
    run = RunFolder.open(Path(command.run).expanduser().resolve()) if command.run else None
    with run.in_use() if run else nullcontext():
        if run:
            evaluation = evaluate_run_command(run, command, cited)
        else:
            evaluation = evaluate_table_command(command, cited)
        own = run is not None and run.path == evaluation.folder.path
        report_evaluation(
            evaluation,
            "Run" if own else "Evaluation",
            None if own else run,
            figures=command.figures,
            images=command.report.images,
        )
    return evaluation


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


def evaluate_run_command(
    run: "RunFolder", command: EvaluateCommand, cited: "list[Cited]"
) -> "RunEvaluation":
    """The evaluation of a run, predicted again where the command selects other images or views."""
    from fracnet.runs.evaluate_run import evaluate_run, evaluation_name
    from fracnet.utils.progress import progress_bar

    changes, new = command.changes(), None
    name_parts = dict(changes)
    if command.needs_model:
        from fracnet.runs.repredict import predict_again  # torch; metrics alone do not need it

        new = predict_again(run, command, progress=progress_bar)
        name_parts |= {"data": new.metadata.data} if command.on_other_data else {}
        name_parts |= {"tta": command.tta} if command.tta else {}
    name = command.name or evaluation_name(name_parts)
    return evaluate_run(run, changes, name, new=new, cited=cited, progress=progress_bar)


def evaluate_table_command(command: EvaluateCommand, cited: "list[Cited]") -> "RunEvaluation":
    """The evaluation of a csv of anyone's predictions."""
    from fracnet.evaluation.csv_import import origin, read_csv_predictions
    from fracnet.evaluation.decisions import check_operating_point
    from fracnet.runs.evaluate_run import evaluate_table
    from fracnet.utils.progress import progress_bar

    path = Path(str(command.table)).expanduser().resolve()
    predictions, notes = read_csv_predictions(path, command.columns, command.labels)
    if command.operating_point is not None:
        check_operating_point(command.operating_point, len(predictions.classes))
    out = path.with_name(f"{path.stem}_evaluation")
    if command.out:
        out = Path(command.out).expanduser().resolve()
    return evaluate_table(
        predictions,
        path.name,
        notes,
        validated(Evaluation, command.changes()),
        out,
        origin=origin(path, command.columns, command.labels),
        cited=cited,
        progress=progress_bar,
    )


if __name__ == "__main__":
    hydra_cli.run(evaluate, "evaluate", instead="name one run")
