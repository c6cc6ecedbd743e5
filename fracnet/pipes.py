"""Output that nobody reads any more, as after `python -m fracnet.train --help | head -1`."""

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


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
