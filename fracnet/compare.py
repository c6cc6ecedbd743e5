"""`python -m fracnet.compare`: compares runs on the same test images."""

from omegaconf import DictConfig
from rich.console import Console
from rich.text import Text

from fracnet.config import hydra_cli
from fracnet.config.commands import CompareCommand
from fracnet.config.fields import validated
from fracnet.utils.progress import progress_bar
from fracnet.utils.result_files import COMPARISON, check_no_results


def compare(cfg: DictConfig) -> None:
    """Read the runs, compare them, write comparison.json, two CSV files, a page and figures.

    Raises UserError for an error in the command, fewer than two runs, or runs that do not match.
    """
    command = validated(CompareCommand, cfg)

    # A typo must not wait for pandas and matplotlib.
    from fracnet.runs import compare_runs

    check_no_results(hydra_cli.output_dir(), COMPARISON)
    console = Console(highlight=False, force_jupyter=False)
    candidates, skipped, configurations = compare_runs.load_candidates(command)
    for run in skipped:
        console.print(Text(f"skipped: {run.name}: {run.reason}"), soft_wrap=True)
    result = compare_runs.compare_candidates(command, candidates, configurations, progress_bar)
    compare_runs.report_comparison(
        hydra_cli.output_dir(), command, result, configurations, skipped, console
    )


if __name__ == "__main__":
    hydra_cli.run(compare, "compare", instead="runs= takes several")
