"""How an entry point talks to a person: Hydra around a task, and errors in one paragraph.

Light on purpose: `--help`, `--cfg job` and a mistyped override must answer at once.

Output that nobody reads any more, as after `python -m fracnet.train --help | head -1`.

Paths on the command line, taken as they are typed.

Hydra reads the value of an override by a grammar in which brackets, commas, `=`, `~` and any letter
but those of English have a meaning or none: `input=scan (1).dcm` would need quotes within quotes.
"""

import os
import re
import secrets
import select
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, Protocol

import hydra
import omegaconf
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fracnet.config.instantiate import near_miss
from fracnet.utils import distributed
from fracnet.utils.errors import Diverged, Interrupted, UserError
from fracnet.utils.files import config_dir


@contextmanager
def may_close() -> Iterator[None]:
    """Around a command: where the reader of its output has gone it ends without a word.

    Exit code as of a program that the signal has ended, 141.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # here and not when Python ends, where nobody could catch it
    except BrokenPipeError:
        if not reader_is_gone():
            raise
        # Python tries once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def reader_is_gone() -> bool:
    """Whether standard output leads nowhere; a broken pipe may be another one."""
    poll = select.poll()
    poll.register(1, 0)
    return any(flags & select.POLLERR for _, flags in poll.poll(0))


PATHS = (
    "input", "run", "runs", "out", "table", "resume", "cited", "data_dir", "data.root",
    "data.csv", "data.test_root", "model.weights",
)  # fmt: skip


def as_typed(words: Sequence[str], sweep: bool) -> list[str]:
    """The words, those of `PATHS` quoted where the value would else be refused or taken apart.

    A list, `input=[a.png,b.png]`, stays one, and so does what is quoted already. `a,b.png` is one
    name if that is there. sweep: whether commas stand for several jobs.
    """
    return [_taken(word, sweep) for word in words]


def quoted(value: str) -> str:
    """The text as Hydra's grammar has it, so that OmegaConf looks for nothing to insert either."""
    text = re.sub(r"(\\*)('|$)", r"\1\1\2", value).replace("'", r"\'").replace("${", r"\${")
    return f"'{text}'"


def to_type(word: str, sweep: bool = False) -> str:
    """The word as a shell hands it over whole: `'input="scan (1).dcm"'`.

    sweep: whether commas stand for several jobs, each of which keeps its own value.
    """
    key, _, value = word.partition("=")
    if value.startswith("[") and value.endswith("]"):
        return shlex.quote(f"{key}=[{_each_in_quotes(value[1:-1])}]")
    if sweep and "," in value:
        return shlex.quote(f"{key}={_each_in_quotes(value)}")
    return shlex.quote(f"{key}={_in_quotes(value)}")


def _each_in_quotes(values: str) -> str:
    """Those between commas that need it."""
    plain = re.compile(r"[A-Za-z0-9_./*-]+")
    names = [name.strip() for name in values.split(",")]
    return ",".join(name if plain.fullmatch(name) else _in_quotes(name) for name in names)


def _in_quotes(value: str) -> str:
    """In double ones, which are easier to type, where the value allows it."""
    return quoted(value) if re.search(r'["\\]|\$\{', value) else f'"{value}"'


def _taken(word: str, sweep: bool) -> str:
    key, _, value = word.partition("=")
    if key not in PATHS or not value or value[0] in "'\"":
        return word
    held = _read(word)
    there = not sweep and held != value and os.path.exists(os.path.expanduser(value))
    # A list that cannot be read is left to be complained of: which name in it is at fault?
    a_list = (value.startswith("[") and value.endswith("]")) or (sweep and "," in value)
    refused = held is _UNREADABLE and not a_list
    number = isinstance(held, int | float) and not isinstance(held, bool)
    changed = isinstance(held, str) and held != value  # a backslash before a bracket
    return f"{key}={quoted(value)}" if there or refused or number or changed else word


_UNREADABLE = object()


def _read(word: str) -> Any:
    """The value as Hydra understands it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(word).value()
    except HydraException:
        return _UNREADABLE


def _release(version: str) -> tuple[int, ...]:
    """(1, 10) of "1.10.0rc3"."""
    return tuple(int(part) for part in version.split(".")[:2])


# The method has another name from OmegaConf 2.4 on; before, that name was another method's.
_new = _release(omegaconf.__version__) >= (2, 4)
_register = OmegaConf.register_resolver if _new else OmegaConf.register_new_resolver
_register("fracnet.run_dir", lambda resume, new: resume or new, replace=True)

# Runs that start in the same second must not share a folder.
_register("fracnet.unique", lambda: secrets.token_hex(2), use_cache=True, replace=True)


class Jobs(Protocol):
    """What runs the jobs of a sweep (`-m`): the module `fracnet.training.sweep`."""

    def begin(self) -> None:
        """Forget any sweep that this process has run before."""

    def running(self) -> bool:
        """Whether the present task is a job of a sweep."""

    def run_job(self, task: Callable[[DictConfig], Any], cfg: DictConfig, traceback: bool) -> float:
        """Run one job and record how it ended."""

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
        jobs: what runs the jobs of a sweep; None where the command cannot be swept.
        instead: what to do where the command cannot be swept and `-m` was given.

    Exit codes: 0 done, 1 a fault the user can mend (one paragraph on stderr), 130 interrupted.
    Any other exception is a fault of the program and keeps its traceback. A sweep (`-m`) prints
    the table of its jobs at the end, and exits with 1 if one of them has not come to its end, with
    130 or 143 if it was ended as a whole.
    """
    with may_close():
        several = _ask_for_multirun(sys.argv[1:])
        if jobs is None and several:
            _give_up(f"fracnet.{config_name} has no -m{instead and f': {instead}'}.")
        sys.argv[1:] = as_typed(sys.argv[1:], several)
        _run(task, config_name, jobs)


def _ask_for_multirun(words: Sequence[str]) -> bool:
    """Hydra takes any beginning of `--multirun` for it, and a key of its own."""
    own = ("-m", "hydra.mode=MULTIRUN")
    return any(w in own or (len(w) > 2 and "--multirun".startswith(w)) for w in words)


def _run(task: Callable[[DictConfig], Any], config_name: str, jobs: Jobs | None) -> None:
    if distributed.rank() > 0:
        distributed.step_back()
    before = os.environ.get("HYDRA_FULL_ERROR")
    wanted_full = before == "1" and distributed.rank() == 0  # the others inherit the line below
    # Otherwise Hydra prints its own report and exits before the error can be explained.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # Up to 1.3 Hydra warns where the base version is left out, from 1.4 where it is given. There
    # it wants to be told, too, which classes its own part of the config may name.
    extra: dict[str, Any] = {"execution_whitelist": ["fracnet.*"]}
    extra = {"version_base": "1.3"} if _release(hydra.__version__) < (1, 4) else extra
    decorate = hydra.main(config_path=str(config_dir()), config_name=config_name, **extra)
    if jobs is not None:
        jobs.begin()
    code = 0
    try:
        try:
            decorate(_explained(task, wanted_full, jobs))()
        finally:
            if jobs is not None:
                code = jobs.finish()
    except (KeyboardInterrupt, Interrupted) as stop:
        print(f"fracnet: interrupted{f'; {stop}' if str(stop) else ''}.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if wanted_full:
            raise
        for cause in _causes(error):
            if isinstance(cause, UserError):
                _give_up(str(cause))
            if isinstance(cause, HydraException | OmegaConfBaseException):
                _give_up(explain(cause, config_name, sys.argv[1:]))
        raise
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before
    if code:
        sys.exit(code)


def _explained(
    task: Callable[[DictConfig], Any], wanted_full: bool, jobs: Jobs | None
) -> Callable[[DictConfig], Any]:
    """The task with a user's fault reported before Hydra adds its own lines about it."""

    def wrapped(cfg: DictConfig) -> Any:
        if jobs is not None and jobs.running():
            return jobs.run_job(task, cfg, wanted_full)
        done = False
        try:
            value = task(cfg)
            done = True
            return value
        except (UserError, OmegaConfBaseException) as error:
            if wanted_full:
                raise
            if distributed.rank() > 0 and isinstance(error, Diverged):
                sys.exit(0)  # number 0 says it; a failure here would have it killed
            _give_up(str(error) if isinstance(error, UserError) else _one_line(error))
        finally:
            if not done:
                _leave_no_empty(Path(HydraConfig.get().runtime.output_dir))

    return wrapped


def _leave_no_empty(folder: Path) -> None:
    """Take away the folder that Hydra has made for a run that wrote nothing, and empty ones above.

    Only below the current folder, which itself stays: some entry points work in it.
    """
    here = Path.cwd()
    own = [path for path in (folder, *folder.parents) if here in path.parents]
    for path in own or ([folder] if folder != here else []):
        try:
            path.rmdir()
        except OSError:
            return  # it is not empty, or another run may just be starting in it


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from, outermost first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _give_up(message: str) -> NoReturn:
    print(f"fracnet: error: {message}", file=sys.stderr)
    sys.exit(1)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def explain(error: BaseException, config_name: str, words: Sequence[str]) -> str:
    """Hydra's or OmegaConf's complaint in one paragraph, with the allowed set and the near miss.

    words: the arguments that it is about.
    """
    message = _one_line(error)
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        options = sorted(error.options)
        return (
            f"{group}={choice} is not one of the choices of '{group}'; "
            f"allowed: {', '.join(options)}.{near_miss(choice, options)}"
        )
    unknown = re.search(r"Could not override '([\w./@]+)'", message)
    if unknown:
        return _explain_key(unknown.group(1), config_name, words)
    several = re.match(r"Ambiguous value for argument '([^']*)'", message)
    if several:
        key, _, value = several.group(1).partition("=")
        sweep_too = ", for a job each add -m" if config_name == "train" else ""
        return (
            f"'{several.group(1)}' has a comma: for several values type "
            f"{shlex.quote(f'{key}=[{value}]')}, for one with a comma in it "
            f"{to_type(several.group(1))}{sweep_too}."
        )
    bare = getattr(error, "override", None)
    if bare and re.match(r"[+~]*[\w./@]+=", bare):
        return (
            f"'{bare}' cannot be read: what has other signs than letters, digits and _-./ must "
            f"stand in quotes within quotes. Type {to_type(bare, _ask_for_multirun(words))}."
        )
    if bare:
        return f"'{bare}' is not an override; allowed: key=value, group=choice, ~key, +key=value."
    return message


def _explain_key(key: str, config_name: str, words: Sequence[str]) -> str:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    pieces = [piece for word in words for piece in word.split("=", 1)]
    own = [Path(b).resolve() for a, b in pairwise(pieces) if a in ("--config-dir", "-cd")]
    groups = [
        word
        for word in words
        if re.fullmatch(r"\w+=\w+", word)
        and any((folder / word.split("=")[0]).is_dir() for folder in (config_dir(), *own))
    ]
    search = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in own)}]"]
    with initialize_config_dir(str(config_dir())):
        node: Any = compose(config_name, [*search, *groups])
    known, parts = "", key.split(".")
    while isinstance(node, DictConfig) and parts and parts[0] in node:
        known = f"{known}{parts[0]}."
        node = node._get_node(parts.pop(0))
    if not parts and isinstance(node, DictConfig):
        names = ", ".join(str(name) for name in node)
        return f"'{key}' was given a key that it does not have; allowed under it: {names}."
    if not isinstance(node, DictConfig):
        return f"'{key}' cannot be overridden: '{known.rstrip('.')}' holds a plain value."
    allowed = sorted(str(name) for name in node if name != "_target_")
    guess = near_miss(parts[0], allowed)
    if not guess and not known:
        guess = _elsewhere(parts[-1], node)
    return (
        f"there is no key '{known}{parts[0]}'; allowed"
        f"{f' under {known[:-1]!r}' if known else ''}: {', '.join(allowed)}.{guess}"
    )


def _elsewhere(name: str, config: DictConfig) -> str:
    """`lr=0.1` is meant as `optim.lr=0.1`: name the place where such a key exists."""
    found = [
        f"{group!s}.{name}"
        for group, node in config.items()
        if isinstance(node, DictConfig) and name in node
    ]
    return f" Did you mean '{found[0]}'?" if found else ""
