"""Ctrl-C, and a request to terminate, while the jobs of a sweep run one after the other.

The first Ctrl-C ends the running job alone. A second one before the next job has started ends the
sweep, for which the next job waits a few seconds. SIGTERM ends all. Imports nothing heavy.
"""

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

from fracnet.errors import Interrupted

PAUSE = 3.0  # seconds from a Ctrl-C to the start of another job, at least

ONCE = f"this job ends, the next one follows; Ctrl-C within {PAUSE:g} s ends the sweep."
LOADING = "libraries were just being loaded, which cannot be done twice: the sweep ends."


class Stops:
    """Listens in the process that runs the jobs, from the first of them to the table.

    ended: the signal that has ended the sweep, or None.
    """

    def __init__(self) -> None:
        self.ended: signal.Signals | None = None
        self._pressed: float | None = None  # when Ctrl-C was heard, until another job starts
        self._running = False
        self._process = 0
        self._before: dict[signal.Signals, Any] = {}

    def start(self) -> bool:
        """A job wants to start: whether it may, after a pause where the last was interrupted."""
        self._process = os.getpid()
        self._listen()
        while not self.ended and time.monotonic() < (self._pressed or -PAUSE) + PAUSE:
            time.sleep(0.05)
        if self.ended:
            return False
        self._pressed, self._running = None, True
        return True

    def rest(self) -> None:
        """The job is over."""
        self._running = False

    def turn_away(self) -> None:
        """Leave signals to whoever had them before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _listen(self) -> None:
        """Anew for each job, as libraries set handlers of their own and forget to take them back.

        Signals that are ignored stay so (nohup, a shell's background job). A thread cannot set
        handlers: then it is for whoever has started it to hear.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            now = signal.getsignal(number)
            if number not in self._before and now is not signal.SIG_IGN:
                self._before[number] = now
            if number in self._before:
                signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        heard = signal.Signals(number)
        if os.getpid() != self._process:  # forked from the job, such as a data loader's
            if heard == signal.SIGTERM:  # but Ctrl-C reaches all of them, and the job ends its own
                signal.signal(heard, signal.SIG_DFL)
                os.kill(os.getpid(), heard)
            return
        first = self._pressed is None and self._running
        loading = first and _importing(frame)
        if heard == signal.SIGTERM or loading or not first:
            again = self.ended is not None
            self.ended = self.ended or heard
            if not again:
                _say(LOADING if loading else f"{heard.name}: the sweep ends.")
            if first or again:  # otherwise the job is ending already, and may do so in peace
                self._pressed = self._pressed or time.monotonic()
                raise Interrupted(f"by {heard.name}")
            return
        self._pressed = time.monotonic()
        _say(ONCE)
        # No KeyboardInterrupt: Lightning's answer to that is to ignore all further ones.
        raise Interrupted("by Ctrl-C")


def _importing(frame: FrameType | None) -> bool:
    """Whether a module is half imported: another attempt in the same process may fail."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _say(sentence: str) -> None:
    """Not by print: the signal may have come in the middle of one."""
    os.write(2, f"\nfracnet: {sentence}\n".encode())
