"""Exceptions whose messages are written for the user."""

import importlib.util
import signal


class UserError(ValueError):
    """An error that the user can fix: shown as one paragraph, without a traceback.

    The message names the key or file, the value given and what is allowed.
    """

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows in place of the frames."""
        return [f"fracnet: error: {self}"]


class DataFault(UserError):
    """A fault in a dataset's own files: other commands fail on it, an audit reports it."""


class Diverged(UserError):
    """The training loss became NaN or infinite."""


class Pruned(UserError):
    """A job of a sweep was stopped because it could no longer win; `value` is its best metric."""

    def __init__(self, reason: str, value: float) -> None:
        super().__init__(reason)
        self.value = value


class Interrupted(BaseException):
    """Ends one job of a sweep; `KeyboardInterrupt` would end the whole sweep."""


class Terminated(Interrupted):
    """A signal, usually SIGTERM, ended the command."""

    number: int = signal.SIGTERM


def stop_behind(error: BaseException) -> BaseException | None:
    """The Ctrl-C or signal from which an error arose, as in a library's clean-up, if any."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, Interrupted | KeyboardInterrupt):
        cause = cause.__cause__ or cause.__context__
    return cause


def is_installed(module: str) -> bool:
    """Whether a module can be found; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor the package that it is in
        return False


def require_packages(extra: str, *names: str) -> None:
    """Raise UserError that names the extra where a package of it is not installed."""
    if not all(map(is_installed, names)):
        raise UserError(
            f"this command needs packages that are not installed: pip install 'fracnet[{extra}]'"
        )
