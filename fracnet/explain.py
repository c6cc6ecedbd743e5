"""`python -m fracnet.explain`: heatmaps of a finished run, scored, checked and drawn."""

from pathlib import Path

from omegaconf import DictConfig

from fracnet.config import hydra_cli
from fracnet.config.commands import ExplainCommand
from fracnet.config.fields import validated
from fracnet.utils.progress import progress_bar


def explain(cfg: DictConfig) -> None:
    """Make a run's heatmaps, replacing earlier ones, and write its report with them.

    Raises UserError for an error in the command, a run without heatmaps, or data that have changed.
    """
    command = validated(ExplainCommand, cfg)

    from fracnet.runs import run_folder

    run = run_folder.RunFolder.open(Path(command.run).expanduser().resolve())
    config = run_folder.read_config(run, command.trust)

    from fracnet.runs import evaluate_run, explain_run, report_run  # with torch

    with run.in_use():
        evaluation = evaluate_run.evaluate_run(run, progress=progress_bar)
        content = explain_run.explain_finished_run(evaluation, config, command, progress_bar)
        explain_run.print_heatmap_summary(run, content, everything=True)
        page, *_ = report_run.write_report(evaluation, images=command.report.images)
    print(f"\nReport  {page}")


if __name__ == "__main__":
    hydra_cli.run(explain, "explain", instead="name one run")
