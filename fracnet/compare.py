"""`python -m fracnet.compare`: runs side by side on the same test images."""

from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from fracnet.config import hydra_cli


def compare(cfg: DictConfig) -> None:
    """Read the runs, compare them, write comparison.json, two CSV files, a page and figures.

    Raises:
        UserError: a fault in the command, fewer than two runs, or runs that do not go together.
    """
    from hydra.core.hydra_config import HydraConfig

    from fracnet.config.schema import CompareCommand, validated

    command = validated(
        CompareCommand, cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    )

    from rich.console import Console
    from rich.text import Text

    from fracnet.evaluation import comparison
    from fracnet.report.comparison_page import print_comparison
    from fracnet.runs import compare_runs
    from fracnet.utils.progress import progress_bar

    console = Console(highlight=False)
    candidates, left, known = compare_runs.candidates(command)
    for run in left:
        console.print(Text(f"left out: {run.name}: {run.reason}"), soft_wrap=True)
    found = comparison.compare(
        candidates,
        command.metric,
        of=command.of,
        level=command.level,
        reference=compare_runs.as_named(command.reference, known),
        pairs=command.pairs,
        margin=command.margin,
        resamples=command.resamples,
        progress=progress_bar,
    )
    print_comparison(console, found)
    folder = Path(HydraConfig.get().runtime.output_dir)
    paths = compare_runs.write(folder, command, found, known, left)
    console.print(f"\nComparison: {folder}", soft_wrap=True)
    for path in paths:
        console.print(f"  {path.relative_to(folder)}", soft_wrap=True)


if __name__ == "__main__":
    hydra_cli.run(compare, "compare", instead="runs= takes several")
