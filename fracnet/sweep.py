"""Show a sweep: rebuild its table and page from the folders of its jobs; or finish the sweep."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from fracnet.config import hydra_cli
from fracnet.utils.errors import UserError
from fracnet.utils.text import near_miss

HELP = """\
Rebuild the table and the page of a sweep from the folders of its jobs, or finish the sweep.
Research use only, not a medical device.

  python -m fracnet.sweep runs/sweep_...
  python -m fracnet.sweep runs/sweep_... show_test=all
  python -m fracnet.sweep resume=runs/sweep_...

Keys (key=value):
show_test=best           # whose test metrics are shown: best (by validation) | all (recorded)
resume=FOLDER            # finish a sweep that was stopped or killed; the keys below need this one
add=optim.lr=1e-5,1e-6   # add jobs with further values of an axis
sweeper.n_trials=60      # jobs that a search is to have in all
launcher=ray             # choose another launcher; launcher.<option>= sets its options
changed_code=true        # continue although fracnet has changed since
trust=true               # allow classes and config folders of your own

Options:
--dry-run                # with resume=: list the jobs that would run
--version                # print the version
"""
KEYS = ("resume", "show_test", "add", "launcher", "sweeper.n_trials", "changed_code", "trust")


@dataclass
class Arguments:
    """The parsed command line: the folder of a sweep, and the values of each key that is given."""

    folder: Path
    resumes: bool
    dry_run: bool
    values: dict[str, list[str]] = field(default_factory=dict)

    def last(self, key: str) -> str | None:
        """The last value of a key; None without one."""
        return self.values[key][-1] if key in self.values else None

    def switch(self, key: str) -> bool:
        """A key that is true or false. Raises UserError for another value."""
        value = self.last(key) or "false"
        if value.lower() not in ("true", "false"):
            raise UserError(f"{key}={value} is not allowed; allowed: true, false.")
        return value.lower() == "true"


def main() -> None:
    """Show a sweep, or with `resume=` run its jobs that are not finished and those of `add=`."""
    words = sys.argv[1:]
    if "--version" in words:
        print(f"fracnet {version('fracnet')}")
        return
    if "-h" in words or "--help" in words:
        print(HELP, end="")
        return
    try:
        arguments = parse(words)
        if arguments.resumes:
            from fracnet.training.resume_sweep import Resumption, resume_sweep

            wanted = Resumption(
                arguments.folder,
                arguments.values.get("add", []),
                arguments.values.get("launcher", []),
                arguments.last("sweeper.n_trials"),
                arguments.switch("trust"),
                arguments.switch("changed_code"),
                arguments.dry_run,
            )
            if not resume_sweep(wanted):
                return  # otherwise it may have been killed just before its table was written
        show(arguments.folder, arguments.last("show_test") or "best")
    except UserError as error:
        hydra_cli.exit_with(str(error))


def show(folder: Path, show_test: str = "best") -> None:
    """Write a sweep's sweep.json, sweep.csv and index.html from its jobs, and print the table."""
    from fracnet.runs import sweep_summary  # seconds: a typo must not wait for pandas

    content = sweep_summary.collect(folder, show_test)
    sweep_summary.print_summary(content, folder)
    if not any(job["status"] == "finished" for job in content["jobs"]):
        raise UserError(
            f"no job of {folder} has finished; finish the sweep with: "
            f"python -m fracnet.sweep resume={folder}"
        )


def parse(words: Sequence[str]) -> Arguments:
    """Parse the command line. Raises UserError for what is unknown or missing."""
    folders, values = [], dict[str, list[str]]()
    for word in words:
        key, _, value = word.partition("=")
        name = "launcher" if key.startswith("launcher.") else key
        if word.startswith("-"):
            if word != "--dry-run":
                close = near_miss(key.lstrip("-").replace("-", "_"), KEYS)
                raise UserError(
                    f"'{word}' is not an option; keys are written key=value, without dashes.{close}"
                )
        elif "=" not in word or Path(word).is_dir():
            folders.append(word)
        elif not key or not value:
            lacks = "key" if value else "value" if key else "key and no value"
            raise UserError(f"'{word}' has no {lacks}; write key=value without spaces.")
        elif name not in KEYS:
            raise UserError(
                f"There is no key '{key}'; allowed: the folder of a sweep, {', '.join(KEYS)}, "
                f"launcher.<option>.{near_miss(key, KEYS)}"
            )
        else:
            values.setdefault(name, []).append(word if name == "launcher" else value)
    resumed = values.get("resume", [])
    if len(folders) + len(resumed) != 1:
        given = " and ".join([*folders, *(f"resume={folder}" for folder in resumed)]) or "none"
        raise UserError(
            "name one sweep: python -m fracnet.sweep runs/sweep_... to show it, resume=runs/sweep_"
            f"... to finish it; given: {given}."
        )
    if (test := values.get("show_test", ["best"])[-1]) not in ("best", "all"):
        raise UserError(f"show_test={test} is not allowed; allowed: best, all.")
    if resumed and "show_test" in values:
        raise UserError("show_test= shows a sweep; it is not possible with resume=.")
    dry_run = "--dry-run" in words
    of_resume = [f"{key}=" for key in KEYS[2:] if key in values] + ["--dry-run"] * dry_run
    if of_resume and not resumed:
        raise UserError(
            f"{of_resume[0]} needs resume=: python -m fracnet.sweep resume={folders[0]}"
        )
    folder = Path((folders or resumed)[0]).expanduser().resolve()
    return Arguments(folder, bool(resumed), dry_run, values)


if __name__ == "__main__":
    with hydra_cli.without_hydra():
        main()
