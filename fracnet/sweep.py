"""`python -m fracnet.sweep FOLDER`: the table of a sweep again, from the folders of its jobs."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from fracnet.config import hydra_cli
from fracnet.report.sweep_page import print_sweep
from fracnet.runs.sweep_summary import collect
from fracnet.utils.errors import UserError
from fracnet.utils.text import counted


def main() -> None:
    """Read FOLDER, write its sweep.json, sweep.csv and index.html anew, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m fracnet.sweep", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of a sweep: runs/sweep_...")
    parser.add_argument(
        "--show-test",
        choices=("best", "all"),
        default="best",
        help="whose test figures are shown; kept on record in sweep.json",
    )
    words = parser.parse_args()
    folder = words.folder.resolve()
    try:
        content = collect(folder, words.show_test)
    except UserError as error:
        print(f"fracnet: error: {error}", file=sys.stderr)
        sys.exit(1)
    print_sweep(Console(highlight=False), content, folder)
    if not any(job["status"] == "finished" for job in content["jobs"]):
        print(
            f"fracnet: error: none of the {counted(len(content['jobs']), 'job')} in {folder} has "
            "come to its end; python -m fracnet.train resume=<folder of a job> goes on with one "
            "that was cut off.",
            file=sys.stderr,
        )
        sys.exit(1)


if __name__ == "__main__":
    hydra_cli.print_any_character()
    with hydra_cli.quiet_on_closed_pipe():
        main()
