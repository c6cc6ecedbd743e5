"""`python -m fracnet.ensemble`: the mean of several runs, as a run of its own."""

from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from fracnet.config import hydra_cli
from fracnet.runs.report_run import conclude


def ensemble(cfg: DictConfig) -> None:
    """Average the runs' probabilities, write a run folder and measure it.

    Raises:
        UserError: a fault in the command, fewer than two runs, or runs that do not go together.
    """
    from hydra.core.hydra_config import HydraConfig

    from fracnet.config.schema import EnsembleCommand, validated

    command = validated(
        EnsembleCommand, cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    )

    from rich.console import Console
    from rich.text import Text

    from fracnet.report.comparison_page import ensemble_lines
    from fracnet.runs.ensemble_runs import combine, members
    from fracnet.runs.evaluate_run import judge, progress_if
    from fracnet.runs.run_folder import RunFolder

    console = Console(highlight=False)
    runs, left = members(command.runs)
    for run in left:
        console.print(Text(f"left out: {run.name}: {run.reason}"), soft_wrap=True)
    folder = RunFolder(Path(HydraConfig.get().runtime.output_dir))
    made = combine(runs, folder)
    for line in ensemble_lines(made):
        console.print(Text(line))
    conclude(judge(folder, progress=progress_if(True)), "Run", folder.path)


if __name__ == "__main__":
    hydra_cli.run(ensemble, "ensemble", instead="runs= takes several")
