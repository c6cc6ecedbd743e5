"""`python -m fracnet.ensemble`: the mean of several runs, as a run of its own."""

from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from fracnet import cli
from fracnet.evaluate import conclude


def ensemble(cfg: DictConfig) -> None:
    """Average the runs' probabilities, write a run folder and measure it.

    Raises:
        UserError: a fault in the command, fewer than two runs, or runs that do not go together.
    """
    from hydra.core.hydra_config import HydraConfig

    from fracnet.config import validated
    from fracnet.run_options import EnsembleCommand

    command = validated(
        EnsembleCommand, cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    )

    from rich.console import Console
    from rich.text import Text

    from fracnet.report.comparison import ensemble_lines
    from fracnet.training.combining import combine, members
    from fracnet.training.judge import judge
    from fracnet.training.present import progress
    from fracnet.training.run_folder import RunFolder

    console = Console(highlight=False)
    runs, left = members(command.runs)
    for run in left:
        console.print(Text(f"left out: {run.name}: {run.reason}"), soft_wrap=True)
    folder = RunFolder(Path(HydraConfig.get().runtime.output_dir))
    made = combine(runs, folder)
    for line in ensemble_lines(made):
        console.print(Text(line))
    conclude(judge(folder, show=progress(True)), "Run", folder.path)


if __name__ == "__main__":
    cli.run(ensemble, "ensemble", multirun=False, instead="runs= takes several")
