"""`python -m fracnet.ensemble`: the mean of several runs, as a run of its own."""

from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from fracnet.config import hydra_cli
from fracnet.config.commands import EnsembleCommand
from fracnet.config.schema import validated


def ensemble(cfg: DictConfig) -> None:
    """Average the runs' probabilities, write a run folder and evaluate it.

    Raises:
        UserError: an error in the command, fewer than two runs, or runs that do not match.
    """
    plain = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    command = validated(EnsembleCommand, plain)

    from rich.console import Console
    from rich.text import Text

    from fracnet.report.comparison_page import ensemble_notes
    from fracnet.runs.ensemble_runs import write_ensemble
    from fracnet.runs.evaluate_run import evaluate_run
    from fracnet.runs.find_runs import find_two_or_more
    from fracnet.runs.report_run import report_evaluation
    from fracnet.runs.run_folder import RunFolder
    from fracnet.utils.progress import progress_bar

    console = Console(highlight=False)
    runs, skipped = find_two_or_more(command.runs, "an ensemble", ensembles=False)
    for run in skipped:
        console.print(Text(f"skipped: {run.name}: {run.reason}"), soft_wrap=True)
    folder = RunFolder(hydra_cli.output_dir())
    for line in ensemble_notes(write_ensemble(runs, folder)):
        console.print(Text(line))
    report_evaluation(evaluate_run(folder, progress=progress_bar), "Run")


if __name__ == "__main__":
    hydra_cli.run(ensemble, "ensemble", instead="runs= takes several")
