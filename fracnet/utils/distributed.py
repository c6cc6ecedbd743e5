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
    """0 in the process that prints and writes: Lightning's LOCAL_RANK, NODE_RANK on other nodes.

    Under torchrun it is RANK, under srun with several tasks SLURM_PROCID.
    """
    if _torchrun():
        return int(os.environ.get("RANK") or 0)
    local = int(os.environ.get("LOCAL_RANK") or 0) or int(os.environ.get("NODE_RANK") or 0)
    tasks = int(os.environ.get("SLURM_NTASKS") or 1)
    return local or (int(os.environ.get("SLURM_PROCID") or 0) if tasks > 1 else 0)


def _torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


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


def check_start(fixed_folder: bool) -> None:
    """Raise UserError for processes of one run that would each make a run folder of their own.

    fixed_folder: whether the command names the folder.
    """
    started = _torchrun() or int(os.environ.get("NODE_RANK") or 0) > 0
    if started and not fixed_folder:
        raise UserError(
            "With torchrun or several nodes each process starts the whole command: give all of "
            "them one folder with hydra.run.dir=runs/<name>. For several devices of one machine "
            "`python -m fracnet.train trainer.devices=2 ...` needs neither."
        )
