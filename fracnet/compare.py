"""`python -m fracnet.compare`: runs side by side on the same test images."""

from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from fracnet import cli


def compare(cfg: DictConfig) -> None:
    """Read the runs, compare them, write comparison.json, two CSV files, a page and figures.

    Raises:
        UserError: a fault in the command, fewer than two runs, or runs that do not go together.
    """
    from hydra.core.hydra_config import HydraConfig

    from fracnet.config import validated
    from fracnet.run_options import CompareCommand

    command = validated(
        CompareCommand, cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    )

    from rich.console import Console
    from rich.text import Text

    from fracnet.evaluation import comparison
    from fracnet.progress import shown
    from fracnet.report.comparison import print_comparison
    from fracnet.training import comparing

    console = Console(highlight=False)
    candidates, left, known = comparing.candidates(command)
    for run in left:
        console.print(Text(f"left out: {run.name}: {run.reason}"), soft_wrap=True)
    found = comparison.compare(
        candidates,
        command.metric,
        of=command.of,
        level=command.level,
        reference=comparing.as_named(command.reference, known),
        pairs=command.pairs,
        margin=command.margin,
        resamples=command.resamples,
        show=shown,
    )
    print_comparison(console, found)
    folder = Path(HydraConfig.get().runtime.output_dir)
    paths = comparing.write(folder, command, found, known, left)
    console.print(f"\nComparison: {folder}", soft_wrap=True)
    for path in paths:
        console.print(f"  {path.relative_to(folder)}", soft_wrap=True)


if __name__ == "__main__":
    cli.run(compare, "compare", multirun=False, instead="runs= takes several")
