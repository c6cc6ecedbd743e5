"""`python -m fracnet.ensemble`: the mean of several runs, as a run of its own."""

from omegaconf import DictConfig
from rich.console import Console
from rich.text import Text

from fracnet.config import hydra_cli
from fracnet.config.commands import EnsembleCommand
from fracnet.config.fields import validated
from fracnet.utils.progress import progress_bar
from fracnet.utils.result_files import check_no_results


def ensemble(cfg: DictConfig) -> None:
    """Average the runs' probabilities, write a run folder and evaluate it.

    Raises UserError for an error in the command, fewer than two runs, or runs that do not match.
    """
    command = validated(EnsembleCommand, cfg)

    from fracnet.runs import ensemble_runs, evaluate_run, find_runs, report_run, run_folder

    check_no_results(hydra_cli.output_dir())
    console = Console(highlight=False)
    runs, skipped = find_runs.find_two_or_more(command.runs, "an ensemble", ensembles=False)
    for run in skipped:
        console.print(Text(f"skipped: {run.name}: {run.reason}"), soft_wrap=True)
    notes = []
    if command.tta:
        from fracnet.runs import repredict  # torch; predictions alone do not need it

        runs = [repredict.with_tta(run, command.tta, command.trust, progress_bar) for run in runs]
        notes.append(repredict.tta_note(command.tta))
    folder = run_folder.RunFolder(hydra_cli.output_dir())
    written = ensemble_runs.write_ensemble(runs, folder, command.tta)
    for line in [*ensemble_runs.ensemble_notes(written), *notes]:
        console.print(Text(line))
    evaluation = evaluate_run.evaluate_run(folder, progress=progress_bar)
    report_run.report_evaluation(evaluation, "Run")


if __name__ == "__main__":
    hydra_cli.run(ensemble, "ensemble", instead="runs= takes several")
