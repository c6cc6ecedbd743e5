"""The one exception type whose message is written for the person at the keyboard."""


class UserError(ValueError):
    """A fault the user can mend: shown as one paragraph, without a traceback.

    The message names the key or file, the offending value and what is allowed.
    """


class DataFault(UserError):
    """A fault in a data set's own files, which no other command would mend: an audit's finding."""


class Diverged(UserError):
    """Training has run away to figures that are no numbers."""


class Interrupted(BaseException):
    """A job of a sweep is to end, and others may follow. No `KeyboardInterrupt`, which ends all."""
