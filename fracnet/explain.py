"""`python -m fracnet.explain`: heatmaps of a finished run, scored, checked and drawn."""

from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from fracnet.config import hydra_cli
from fracnet.config.schema import ExplainCommand, validated


def explain(cfg: DictConfig) -> None:
    """Make a run's heatmaps again, or for the first time, and its report with them.

    Raises:
        UserError: a fault in the command, a run that has no heatmaps, or data that have changed.
    """
    plain = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    command = validated(ExplainCommand, plain)

    from fracnet.runs import explain_run, report_run
    from fracnet.runs.evaluate_run import progress_if
    from fracnet.runs.run_folder import RunFolder

    run = RunFolder(Path(command.run).expanduser().resolve())
    content = explain_run.again(run, command, progress_if(True))
    explain_run.tell_of(run, content, everything=True)
    page, *_ = report_run.write(run.path, images=command.report.images)
    print(f"\nReport  {page}")


if __name__ == "__main__":
    hydra_cli.run(explain, "explain", instead="name one run")
