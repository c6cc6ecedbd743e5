"""Ctrl-C, SIGTERM and a terminal that closes while a sweep runs."""

import os
import signal
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from fracnet.training import sweep_plan
from fracnet.utils import processes
from fracnet.utils.errors import Interrupted

STOPPING = "stopping the sweep; once more ends the running jobs at once."


class StopSignals:
    """Handles Ctrl-C and SIGTERM while jobs run.

    ended: the signal that stopped the sweep, or None.
    """

    def __init__(self) -> None:
        self.ended: signal.Signals | None = None
        self.sweep: Path | None = None  # where to ask jobs in other processes to stop
        self._running = False  # a job in this process
        self._process = 0
        self._times = 0
        self._before: dict[signal.Signals, Any] = {}

    def start_job(self) -> bool:
        """Whether the next job may start in this process."""
        self.listen()
        self._running = self.ended is None
        return self._running

    def end_job(self) -> None:
        """The job has ended."""
        self._running = False

    def restore(self) -> None:
        """Put the handlers of before back."""
        processes.preemption.end()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def listen(self) -> None:
        """For each job again, because libraries set handlers and do not restore them.

        Ignored signals stay ignored (nohup, a shell's background job). A thread cannot set
        handlers; then its starter handles signals.
        """
        self._process = os.getpid()
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, *processes.PREEMPTION):
            now = signal.getsignal(number)
            if number not in self._before and now is not signal.SIG_IGN:
                self._before[number] = now
            if number in self._before:
                signal.signal(number, self._handle)
        if heard := [number for number in processes.PREEMPTION if number in self._before]:
            processes.preemption.listen(self._handle, heard)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        received = signal.Signals(number)
        if os.getpid() != self._process:  # a fork of the job, such as a loader's worker
            if received != signal.SIGINT:  # Ctrl-C reaches them all, and the job ends its own
                signal.signal(received, signal.SIG_DFL)
                os.kill(os.getpid(), received)
            return
        # A terminal that closes may send SIGHUP twice, and a logout sends it after SIGTERM.
        again = received == signal.SIGHUP and self.ended is not None
        self._times += not again
        if self.ended is None:
            self.ended = received
            _write(f"{received.name}: {STOPPING}")
        if self.sweep is not None and not again:
            sweep_plan.ask_to_stop(self.sweep, min(self._times, 2))
            if self._times > 2:
                raise Interrupted(f"by {received.name}")  # the launcher waits for a lost worker
        if self._running and received != signal.SIGINT:
            processes.preemption.request(number)
        elif self._running:
            # Not KeyboardInterrupt: Lightning then ignores all further ones.
            raise Interrupted("by Ctrl-C")


def _write(sentence: str) -> None:
    """Write to stderr without print, which the signal may have interrupted."""
    with suppress(OSError):  # on a full disk, or the terminal has closed
        os.write(2, f"\nfracnet: {sentence}\n".encode())
