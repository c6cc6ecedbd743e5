"""Rebuild the table of a sweep from the folders of its jobs, or finish the sweep."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from fracnet.config import hydra_cli
from fracnet.report.sweep_page import print_sweep
from fracnet.runs.sweep_summary import collect
from fracnet.training.resume_sweep import Resumption, resume_sweep
from fracnet.utils.errors import UserError
from fracnet.utils.text import counted, near_miss

RESUME_HELP = """\
to finish a sweep that was stopped or killed: python -m fracnet.sweep resume=FOLDER
  add=optim.lr=1e-5,1e-6   add jobs with further values of an axis
  sweeper.n_trials=60      jobs that a search is to have in all
  launcher=ray             choose another launcher; launcher.<option>= sets its options
  changed_code=true        continue although fracnet has changed since
  trust=true               allow classes and config folders of your own
  --dry-run                list the jobs that would run
"""


def main() -> None:
    """Show a sweep, or with `resume=` run its jobs that are not finished and those of `add=`."""
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    resumes = any("=" in word and not Path(word).is_dir() for word in words)
    try:
        if not resumes:
            options = _parser().parse_args()
            show(options.folder.resolve(), options.show_test)
        elif resume_sweep(wanted := _resumption(sys.argv[1:])):
            show(wanted.folder)  # it may have been killed just before its table was written
    except UserError as error:
        hydra_cli.exit_with(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fracnet.sweep",
        description=__doc__,
        epilog=RESUME_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="folder of a sweep: runs/sweep_...")
    parser.add_argument(
        "--show-test",
        choices=("best", "all"),
        default="best",
        help="whose test metrics are shown; recorded in sweep.json",
    )
    return parser


def show(folder: Path, show_test: str = "best") -> None:
    """Write a sweep's sweep.json, sweep.csv and index.html from its jobs, and print the table."""
    content = collect(folder, show_test)
    print_sweep(Console(highlight=False), content, folder)
    if not any(job["status"] == "finished" for job in content["jobs"]):
        raise UserError(
            f"none of the {counted(len(content['jobs']), 'job')} in {folder} has finished; finish "
            f"the sweep with: python -m fracnet.sweep resume={folder}"
        )


def _resumption(words: Sequence[str]) -> Resumption:
    """The parsed arguments of `resume=`. Raises UserError for an unknown one."""
    given: dict[str, list[str]] = {"resume": [], "add": [], "launcher": [], "sweeper.n_trials": []}
    switches = {"trust": False, "changed_code": False, "dry_run": "--dry-run" in words}
    for word in words:
        key, _, value = word.partition("=")
        if key in given and not value:
            raise UserError(f"'{word}' has no value.")
        if key.split(".")[0] == "launcher":
            given["launcher"].append(word)
        elif key in given:
            given[key].append(value)
        elif key in switches and value.lower() in ("true", "false"):
            switches[key] = value.lower() == "true"
        elif word != "--dry-run":
            raise UserError(
                f"'{word}' is not possible with resume=; allowed: resume=FOLDER, "
                "add='optim.lr=1e-5,1e-6', sweeper.n_trials=, launcher=, launcher.<option>=, "
                f"trust=true, changed_code=true, --dry-run.{near_miss(key, [*given, *switches])}"
            )
    if len(given["resume"]) != 1:
        raise UserError("name one sweep: python -m fracnet.sweep resume=runs/sweep_...")
    folder = Path(given["resume"][0]).expanduser().resolve()
    n_trials = given["sweeper.n_trials"]
    last = n_trials[-1] if n_trials else None
    return Resumption(folder, given["add"], given["launcher"], last, **switches)


if __name__ == "__main__":
    hydra_cli.print_any_character()
    with hydra_cli.quiet_on_closed_pipe():
        main()
