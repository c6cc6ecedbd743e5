"""The command line: Hydra runs a task, and an error of the user's is printed as one paragraph.

Imports nothing heavy: `--help`, `--cfg job` and a mistyped override must answer at once.
"""

import gc
import io
import logging
import os
import re
import secrets
import select
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn, Protocol, TextIO, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fracnet.config import search
from fracnet.config.completion import completion_script
from fracnet.config.help_page import help_page
from fracnet.config.hints import (
    asks_for_multirun,
    explain_added,
    explain_config_name,
    explain_error,
    explain_group,
    explain_option,
)
from fracnet.config.overrides import add_open_keys, quote_paths
from fracnet.utils import deferred, distributed, processes
from fracnet.utils.errors import Diverged, Interrupted, Terminated, UserError, stop_behind
from fracnet.utils.files import cannot_write, config_dir, explain_disk_fault, valid_text
from fracnet.utils.text import one_line, without_controls

HYDRA_OPTIONS = (
    "-h", "--help", "--hydra-help", "-c", "--cfg", "--resolve", "-p", "--package", "-r", "--run",
    "-m", "--multirun", "-sc", "--shell-completion", "-cp", "--config-path", "-cn", "--config-name",
    "-cd", "--config-dir", "--experimental-rerun", "-i", "--info",
)  # fmt: skip
DRY_RUN = ("--dry-run", "sweep.dry_run=true")
"""Either lists the jobs of a sweep without running them; neither is a key of the config."""


def _release(number: str) -> tuple[int, ...]:
    """(1, 10) of "1.10.0rc3"."""
    return tuple(int(part) for part in number.split(".")[:2])


HYDRA_1_4 = _release(version("hydra-core")) >= (1, 4)
# OmegaConf 2.4 renamed this method; before, the new name belonged to a different one.
_renamed = _release(version("omegaconf")) >= (2, 4)
_register = OmegaConf.register_resolver if _renamed else OmegaConf.register_new_resolver
_register("fracnet.run_dir", lambda resume, new: resume or new, replace=True)
# Runs that start in the same second must not share a folder.
_register("fracnet.unique", lambda: secrets.token_hex(2), use_cache=True, replace=True)
_register("fracnet.jobs_at_once", search.jobs_at_once, replace=True)
_register("fracnet.sampler", search.sampler, replace=True)
_register("fracnet.directions", search.directions, replace=True)
_register("fracnet.chosen_at_once", search.chosen_at_once, replace=True)


def output_dir() -> Path:
    """The folder of the current Hydra job, as Hydra has stored it.

    Reading the key would resolve a `${...}` that stands in the name of a parent folder.
    """
    runtime: Any = OmegaConf.to_container(HydraConfig.get().runtime, resolve=False)
    return Path(runtime["output_dir"])


_register("fracnet.output_dir", lambda: str(output_dir()), replace=True)


_new_folders: list[Path] = []
"""The output folder of this command and its parents that did not exist before, innermost first."""


class NewFolders(Callback):
    """Called by Hydra before it creates the output folder: notes which folders will be new."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """For a single run."""
        _note_new_folders(config, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """For a sweep."""
        _note_new_folders(config, "hydra.sweep.dir")


def _note_new_folders(config: DictConfig, key: str) -> None:
    hydra_config = HydraConfig.instance()
    before = hydra_config.cfg
    try:
        hydra_config.set_config(config)  # which the name of the folder may refer to
        folder = Path(str(OmegaConf.select(config, key))).resolve()
    finally:
        hydra_config.cfg = before
    _new_folders[:] = [path for path in (folder, *folder.parents) if not os.path.exists(path)]


class Jobs(Protocol):
    """What runs the jobs of a sweep (`-m`): the module `fracnet.training.sweep`."""

    def begin(self, task: Callable[..., Any], dry_run: bool) -> None:
        """Forget any sweep that this process has run before.

        task: what runs one job. dry_run: list the jobs and run none.
        """

    def running(self) -> bool:
        """Whether the present task is a job of a sweep."""

    def run_job(self, task: Callable[[DictConfig], Any], cfg: DictConfig, traceback: bool) -> Any:
        """Run one job and record how it ended."""

    def launcher_failed(self, error: Exception) -> bool:
        """Whether `error` is that of a launcher whose jobs had started; it is reported then."""

    def finish(self) -> int:
        """Print the table of all jobs, if there was a sweep. Returns the exit code."""


def run(
    task: Callable[[DictConfig], Any],
    config_name: str,
    *,
    jobs: Jobs | None = None,
    instead: str = "",
) -> None:
    """Run `task` with the config that Hydra composes from conf/ and the command line.

    Args:
        task: what to do with the config.
        config_name: name of the YAML file in conf/, and of the command.
        jobs: what runs the jobs of a sweep; None where there is no `-m`.
        instead: advice for a user who gives `-m` to a command that cannot be swept.

    Exit codes: 0 done, 1 an error the user can fix (one paragraph on stderr), 130 interrupted, 143
    ended by SIGTERM, SIGUSR1 or a terminal that closes (SIGHUP). Any other exception is a bug and
    keeps its traceback. A sweep prints the table of its jobs at the end and exits with 1 if a job
    did not finish, with 130 or 143 if one of these signals stopped it as a whole.
    """
    _new_folders.clear()
    deferred.defer()
    # A log on a full disk: the command itself says so, once, instead of a traceback for each line.
    logging.raiseExceptions = False
    print_any_character()
    with quiet_on_closed_pipe():
        arguments = [word for word in sys.argv[1:] if word not in DRY_RUN]
        dry_run = len(arguments) < len(sys.argv) - 1
        multirun = asks_for_multirun(arguments)
        if jobs is None and multirun:
            exit_with(f"fracnet.{config_name} has no -m{instead and f': {instead}'}.")
        if dry_run and not multirun:
            exit_with(f"{DRY_RUN[0]} lists the jobs of a sweep: it needs -m.")
        sys.argv[1:] = add_open_keys(quote_paths(arguments, multirun))
        # An eighth of the wait for the answer to a typo: composing leaves hardly any garbage.
        gc.disable()
        try:
            with _errors_in_one_paragraph(config_name, arguments) as full_traceback:
                if wrong := explain_config_name(config_name, arguments):
                    raise UserError(wrong)
                if not _answer_option(config_name, sys.argv[1:]):
                    if wrong := explain_group(arguments) or explain_added(config_name, arguments):
                        raise UserError(wrong)
                    _run_with_hydra(task, config_name, jobs, full_traceback, dry_run)
        finally:
            gc.enable()


def print_any_character() -> None:
    """Print `\\xe9` for characters that a locale lacks and names that are not UTF-8: no error.

    A stream that is closed, as by `>&-`, becomes /dev/null: a file that is opened later would take
    its number, and get what is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _WithoutControls:
    """A text stream in which names cannot control the terminal.

    A terminal gets the colors, links and cursor moves that progress bars and tables need.

    A stream that fails, on a full disk or because its terminal has closed, becomes /dev/null: the
    work, whose results are in files, continues. failed: whether that happened.
    """

    # Also what a carriage return does for a progress bar.
    _SEQUENCES = re.compile(
        r"(\x1b\[[0-9;]*[mABCDGJK]|\x1b\[\?25[hl]|\x1b\]8;[^\x07\x1b]*\x1b\\|\r)"
    )

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty() or bool(os.environ.get("FORCE_COLOR"))
        self.failed = False

    def write(self, text: str) -> int:
        """Write the text with control characters as codes."""
        parts = self._SEQUENCES.split(text)
        for place, part in enumerate(parts):
            if not (place % 2 and (self._terminal or part == "\r")):
                parts[place] = without_controls(valid_text(part))
        with self._without_faults():
            self._stream.write("".join(parts))
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        with self._without_faults():
            self._stream.flush()

    @contextmanager
    def _without_faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if explain_disk_fault(error) is None:
                raise
            self.failed = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            if self._stream.fileno() != 2:
                reason = f"Cannot write to standard output: {error.strerror}"
                end = "no more is printed there, and the work continues."
                print(f"fracnet: error: {reason}; {end}", file=sys.stderr)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def quiet_on_closed_pipe() -> Iterator[None]:
    """End silently, with exit code 141, when the reader of the output has gone (`| head`).

    Meanwhile control characters are printed as codes: names of files and classes may hold any.
    Where standard output could not be written, the exit code is 1 at least.
    """
    streams = sys.stdout, sys.stderr
    out, err = map(_WithoutControls, streams)
    sys.stdout, sys.stderr = cast(tuple[TextIO, TextIO], (out, err))
    try:
        try:
            yield
        finally:
            sys.stdout, sys.stderr = streams
            out.flush()  # now, because nobody could catch it when Python ends
            ending = sys.exception()
            done = ending is None or (isinstance(ending, SystemExit) and not ending.code)
            if out.failed and done:
                sys.exit(1)
    except BrokenPipeError:
        if not reader_is_gone():
            raise
        # Python flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def reader_is_gone() -> bool:
    """Whether nobody reads standard output; a broken pipe may be a different one."""
    poll = select.poll()
    poll.register(1, 0)
    return any(flags & select.POLLERR for _, flags in poll.poll(0))


def _answer_option(config_name: str, arguments: Sequence[str]) -> bool:
    """Answer `--help`, `--version`, completion and unknown options; whether there was one."""
    if "--version" in arguments:
        print(f"fracnet {version('fracnet')}")
        return True
    if script := completion_script(arguments):
        print(script, end="")
        return True
    if "--help" in arguments or "-h" in arguments:
        overrides = [a for a in arguments if "=" in a and not a.startswith("-")]
        print(help_page(config_name, overrides), end="")
        return True
    for number, argument in enumerate(arguments):
        name = argument.partition("=")[0]
        known = any(option == name or option.startswith(name) for option in HYDRA_OPTIONS)
        if len(name) > 1 and name.startswith("-") and not known:
            value = next(iter(arguments[number + 1 :]), "")
            raise UserError(explain_option(argument, value, config_name))
    return False


@contextmanager
def _errors_in_one_paragraph(config_name: str, arguments: Sequence[str]) -> Iterator[bool]:
    """Print the user's errors without a traceback; yields whether a traceback was requested.

    arguments: what the user typed.
    """
    before = os.environ.get("HYDRA_FULL_ERROR")
    # The other processes of a run on several devices inherit the variable that is set below.
    full_traceback = before == "1" and distributed.rank() == 0
    # Otherwise Hydra prints its own report and exits before the error can be explained.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        with _endings_explained(full_traceback, config_name, arguments):
            yield full_traceback
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


@contextmanager
def _endings_explained(
    full_traceback: bool, config_name: str = "", arguments: Sequence[str] = ()
) -> Iterator[None]:
    """End the process with a sentence for a signal, and for an error that the user can fix."""
    try:
        # The other processes of a run may wait for each other, where Python hears no signal.
        with processes.sigterm_raises() if distributed.rank() == 0 else nullcontext():
            yield
    except (KeyboardInterrupt, Interrupted) as stop:
        _exit_interrupted(stop)
    except Exception as error:
        if full_traceback:
            raise
        if interruption := stop_behind(error):
            _exit_interrupted(interruption)
        for cause in _causes(error):
            if isinstance(cause, UserError):
                exit_with(str(cause))
            if isinstance(cause, HydraException | OmegaConfBaseException):
                exit_with(explain_error(cause, config_name, arguments))
            if sentence := explain_disk_fault(cause):
                exit_with(sentence)
        raise


@contextmanager
def without_hydra() -> Iterator[None]:
    """What `run` does about streams, signals and errors, for a command that needs no config."""
    print_any_character()
    with quiet_on_closed_pipe(), _endings_explained(full_traceback=False):
        yield


def _exit_interrupted(stop: BaseException) -> NoReturn:
    print(f"fracnet: interrupted{f'; {stop}' if str(stop) else ''}.", file=sys.stderr)
    terminated = any(isinstance(cause, Terminated) for cause in _causes(stop))
    sys.exit(128 + (signal.SIGTERM if terminated else signal.SIGINT))


def _run_with_hydra(
    task: Callable[[DictConfig], Any],
    config_name: str,
    jobs: Jobs | None,
    full_traceback: bool,
    dry_run: bool,
) -> None:
    if distributed.rank() > 0:
        distributed.silence_worker()
    # Up to 1.3 Hydra warns where the base version is left out, from 1.4 where it is given. There
    # it also needs to know which classes its own part of the config may name.
    extra: dict[str, Any] = {"execution_whitelist": ["fracnet.*"]}
    extra = extra if HYDRA_1_4 else {"version_base": "1.3"}
    decorate = hydra.main(config_path=str(config_dir()), config_name=config_name, **extra)
    if jobs is not None:
        jobs.begin(task, dry_run)
    code = 0
    reported = _with_errors_first(task, full_traceback, jobs)
    called = False

    def call(cfg: DictConfig) -> Any:
        nonlocal called
        called = True
        return reported(cfg)

    try:
        decorate(call)()
    except Exception as error:
        if full_traceback:
            raise
        if jobs is None or not jobs.launcher_failed(error):
            if not called and (reason := _explain_folder(error)):
                raise UserError(reason) from error
            raise
    finally:
        if jobs is not None:
            code = jobs.finish()
    if code:
        sys.exit(code)


def _explain_folder(error: Exception) -> str:
    """Why Hydra could not create the output folder, or its files there; "" for another error."""
    # A write to an open file, such as multirun.yaml, names none.
    if isinstance(error, OSError) and not error.filename and _new_folders:
        return str(cannot_write(_new_folders[0], error)) if explain_disk_fault(error) else ""
    if not isinstance(error, FileExistsError | NotADirectoryError | FileNotFoundError):
        return ""
    if error.filename is not None:
        return f"Cannot create the folder {error.filename}: {error.strerror}."
    try:
        os.getcwd()
    except FileNotFoundError:
        return "The current folder has been removed; change to another one."
    return ""


def _with_errors_first(
    task: Callable[[DictConfig], Any], full_traceback: bool, jobs: Jobs | None
) -> Callable[[DictConfig], Any]:
    """The task, which reports a user's error before Hydra adds its own lines about it."""

    def wrapped(cfg: DictConfig) -> Any:
        gc.enable()
        if jobs is not None and jobs.running():
            return jobs.run_job(task, cfg, full_traceback)
        try:
            return task(cfg)
        except BaseException as error:
            remove_new_folders()
            fault = next(filter(None, map(explain_disk_fault, _causes(error))), None)
            known = isinstance(error, UserError | OmegaConfBaseException)
            if full_traceback or not (known or fault):
                raise
            if distributed.rank() > 0 and isinstance(error, Diverged):
                sys.exit(0)  # process 0 reports it; a failure here would kill that process
            if not known:
                exit_with(str(fault))
            exit_with(str(error) if isinstance(error, UserError) else one_line(error))

    return wrapped


def remove_new_folders() -> None:
    """Remove the folders that this command created, from its output folder up, while empty."""
    for path in _new_folders:
        try:
            path.rmdir()
        except OSError:
            return  # it is not empty, or another run may just be starting in it


def is_new(folder: Path) -> bool:
    """Whether this command created the folder, which is empty."""
    return folder.resolve() in _new_folders and not any(folder.iterdir())


def typed_command(name: str) -> list[str]:
    """The words of the current command, fracnet.NAME, for a shell."""
    return [Path(sys.executable).name, "-m", f"fracnet.{name}", *sys.argv[1:]]


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from, outermost first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def exit_with(message: str) -> NoReturn:
    """Print an error of the user's, and end the command."""
    print(f"fracnet: error: {message}", file=sys.stderr)
    sys.exit(1)
