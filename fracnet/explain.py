"""`python -m fracnet.explain`: heatmaps of a finished run, scored, checked and drawn."""

from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from fracnet import cli
from fracnet.config import validated
from fracnet.explain_options import ExplainCommand


def explain(cfg: DictConfig) -> None:
    """Make a run's heatmaps again, or for the first time, and its report with them.

    Raises:
        UserError: a fault in the command, a run that has no heatmaps, or data that have changed.
    """
    plain = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    command = validated(ExplainCommand, plain)

    from fracnet.training import explained, reporting
    from fracnet.training.present import progress
    from fracnet.training.run_folder import RunFolder

    run = RunFolder(Path(command.run).expanduser().resolve())
    content = explained.again(run, command, progress(True))
    explained.tell_of(run, content, everything=True)
    page, *_ = reporting.write(run.path, images=command.report.images)
    print(f"\nReport  {page}")


if __name__ == "__main__":
    cli.run(explain, "explain", multirun=False, instead="name one run")
