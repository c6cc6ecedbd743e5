"""`python -m fracnet.evaluate`: all figures of a run, or of anyone's predictions, once more."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from fracnet.config import hydra_cli
from fracnet.config.schema import EvaluateCommand, Evaluation, validated
from fracnet.runs.reevaluate import check_command, of_run, of_table, read_cited
from fracnet.runs.report_run import conclude

if TYPE_CHECKING:
    pass


def evaluate(cfg: DictConfig) -> None:
    """Score predictions that are there already; write and print the figures.

    Raises:
        UserError: a fault in the command, or in the files that it names.
    """
    plain = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    for key in ("image_size", "model"):  # that a data set may bring for training; the run has its
        plain.pop(key, None)
    command = validated(EvaluateCommand, plain)
    check_command(command)
    validated(Evaluation, command.changes())  # a mistyped option is told before any file is read
    beside = read_cited(Path(command.cited).expanduser()) if command.cited else []
    found = of_run(command, beside) if command.run else of_table(command, beside)
    own = bool(command.run) and not command.changes() and not command.again
    run = Path(command.run).expanduser().resolve() if command.run else None
    word, images = "Run" if own else "Evaluation", command.report.images
    conclude(found, word, run, figures=command.figures, images=images)


if __name__ == "__main__":
    hydra_cli.run(evaluate, "evaluate", instead="name one run")
