"""Which of several processes this one is, where one run trains on several devices.

The process that the user starts is number 0. Lightning starts the others with the same command,
and they go through the same program: they compute, and leave printing, writing and downloading to
number 0. Imports nothing heavy.
"""

import logging
import os
import signal
import sys
import threading
import time
import warnings

from fracnet.utils.errors import UserError


def rank() -> int:
    """0 in the process that prints and writes: Lightning's LOCAL_RANK, NODE_RANK on other nodes."""
    return int(os.environ.get("LOCAL_RANK") or 0) or int(os.environ.get("NODE_RANK") or 0)


def silence_worker() -> None:
    """Print nothing but errors, leave Ctrl-C to process 0, and end when that process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 until the process ends


def _end_with(parent: int) -> None:
    """Without this, a process would wait half an hour for one that was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def check_start() -> None:
    """Raise UserError under torchrun: its processes would each make a run folder of their own."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise UserError(
            "fracnet starts the processes for several devices itself: use "
            "`python -m fracnet.train trainer.devices=2 ...` without torchrun."
        )
