"""plan.json: what a sweep is to run, written once before its first job; and what is left of it.

Together with the job.json of each job it is all that `python -m fracnet.sweep resume=` needs.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from pydantic import TypeAdapter

from fracnet.utils import processes
from fracnet.utils.errors import UserError
from fracnet.utils.files import by_number, config_dir, write_atomically, write_record
from fracnet.utils.result_files import PLAN_FILE
from fracnet.utils.text import as_clause, counted, one_line

JOB_FILE = "job.json"
STOP_FILE = "stop"
"""Asks the running jobs of a sweep to end: "1" at their last checkpoint, "2" at once."""
LOCK_FILE = ".sweep.lock"


@dataclass(frozen=True)
class SweepPlan:
    """The jobs of a sweep and how each is started.

    program: arguments of Python that start one run: ["-m", "fracnet.train"].
    options: of every job: `--config-dir DIR` and keys of Hydra.
    folder: the working directory.
    code: see `code_hash`.
    launcher: its options; `name` is the choice of the group.
    jobs: overrides of job 0, 1, ...; empty where a sweeper chooses them by earlier results.
    epochs: of each job, at most; of those that a sweeper chooses, too.
    process: of the command that runs the sweep now, see `processes.this_process`.
    """

    program: list[str]
    options: list[str]
    folder: str
    code: str
    launcher: dict[str, Any]
    sweeper: str
    jobs: list[list[str]]
    epochs: list[int]
    process: dict[str, Any]

    def write(self, sweep: Path) -> None:
        """Write the whole file, or nothing."""
        write_atomically(sweep / PLAN_FILE, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, sweep: Path) -> "SweepPlan":
        """Raises UserError for a folder that is not a sweep's, or a damaged file."""
        path = sweep / PLAN_FILE
        if (sweep / "config.yaml").is_file():
            raise UserError(
                f"{sweep} is a run folder; resume the run with: python -m fracnet.train "
                f"resume={sweep}"
            )
        if not path.is_file():
            raise UserError(
                f"{sweep} is not the folder of a sweep that can be resumed: it has no {PLAN_FILE}; "
                "allowed: a folder that `python -m fracnet.train -m` has made."
            )
        try:
            plan = _PLAN.validate_python(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} cannot be read: {as_clause(error)[:300]}.") from error
        if plan.jobs and len(plan.epochs) != len(plan.jobs):
            raise UserError(
                f"{path} is damaged: it has {len(plan.epochs)} numbers of epochs for "
                f"{counted(len(plan.jobs), 'job')}."
            )
        return plan

    def claimed(self) -> "SweepPlan":
        """The same plan, run by this process."""
        return replace(self, process=processes.this_process())


_PLAN = TypeAdapter(SweepPlan)


def code_hash() -> str:
    """fracnet's version and a hash of its source and configs: jobs of one sweep share it."""
    digest = hashlib.sha256()
    package = Path(__file__).resolve().parents[1]
    for folder, pattern in ((package, "*.py"), (config_dir(), "*.yaml")):
        for path in sorted(folder.rglob(pattern)):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{version('fracnet')} {digest.hexdigest()[:16]}"


def program_of(task: object) -> list[str]:
    """What Python runs for one job, which calls `task`: the command of this process."""
    name = getattr(task, "__module__", "__main__")
    if name != "__main__":
        return ["-m", name]
    main: Any = sys.modules["__main__"]
    if main.__spec__ is not None:
        return ["-m", main.__spec__.name]
    return [str(Path(main.__file__).resolve())] if hasattr(main, "__file__") else []


def options_of(hydra: Any) -> list[str]:
    """The options of Hydra that each job gets as well."""
    folders = [
        option
        for source in hydra.runtime.config_sources
        if source.provider == "command-line"
        for option in ("--config-dir", str(source.path))
    ]
    ours = ("hydra.sweep", "hydra.run.dir", "hydra.mode", "hydra.launcher", "hydra/launcher")
    given = [o for o in hydra.overrides.hydra if not o.lstrip("+~").startswith((*ours, "hydra/s"))]
    return [*folders, *given]


def job_folders(sweep: Path) -> dict[int, Path]:
    """Folders of the jobs that have started, by number. Raises UserError where some share one."""
    records = [(path.parent, read_record(path).get("job")) for path in sweep.rglob(JOB_FILE)]
    return by_number(sweep, [(job, folder) for folder, job in records if isinstance(job, int)])


def read_record(path: Path) -> Mapping[str, Any]:
    """A job.json; empty where it cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def stop_level(sweep: Path) -> int:
    """How urgently the sweep is to stop: 0 not, 1 at the last checkpoint, 2 at once."""
    try:
        path = sweep / STOP_FILE
        return int(path.read_text(encoding="ascii") or 0) if path.is_file() else 0
    except (OSError, ValueError):
        return 0


def ask_to_stop(sweep: Path, level: int) -> None:
    """Ask all jobs of the sweep, on any machine, to end; see `stop_level`."""
    write_atomically(sweep / STOP_FILE, str(level))


def swept_overrides(overrides: Sequence[str], *groups: str) -> list[str]:
    """Overrides of one job without those that say how the sweep chooses and starts its jobs.

    groups: which those are; without any, launcher and sweeper.
    """
    left_out = groups or ("launcher", "sweeper")
    return [o for o in overrides if re.split("[.@=]", o.lstrip("+~"))[0] not in left_out]


def risky_overrides(overrides: Iterable[str]) -> list[str]:
    """Those that could do more than set a key of one training to one value.

    An interpolation could have another value in the process of the job than here, and a choice
    with `..` could be any file, whose keys may be of any group, and Hydra's own.
    """
    parser, risky = OverridesParser.create(), []
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException:  # such as an option of the command line
            risky.append(text)
            continue
        group = str(override.key_or_group)
        outside = ".." in text and (config_dir() / group).is_dir()
        named = re.split("[./]", group)[0] in ("hydra", "resume", "trust")
        if override.package or named or outside or "${" in text:
            risky.append(text)
    return risky


@dataclass(frozen=True)
class JobRecord:
    """job.json: the state of a job of a sweep, whichever process runs it."""

    folder: Path
    content: Mapping[str, Any]

    @classmethod
    def of(cls, folder: Path) -> "JobRecord":
        """The record of a job that exists."""
        content = read_record(folder / JOB_FILE)
        changing = ("status", "reason", "process")
        return cls(folder, {k: v for k, v in content.items() if k not in changing})

    @property
    def overrides(self) -> list[str]:
        """Those of the job."""
        return list(self.content.get("overrides") or ())

    def write(self, status: str, reason: str = "") -> None:
        """Write the current status."""
        content = {**self.content, "status": status, "reason": one_line(reason)}
        if status == "running":
            content["process"] = processes.this_process()
        write_record(self.folder / JOB_FILE, json.dumps(content, indent=2) + "\n")
