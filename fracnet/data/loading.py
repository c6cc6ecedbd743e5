"""How many processes load images: from the machine, where the user does not say."""

import os
from typing import Literal

MOST = 12  # on a machine that has cores for more, they would wait
UNCHANGED = 2  # of images that are only copied from the cache


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def loader_workers(asked: int | Literal["auto"], *, on_gpu: bool, processes: int = 1) -> int:
    """Worker processes of one training process; 0 loads in the training process itself.

    asked: a number, which is obeyed, or "auto". on_gpu: whether a GPU trains, so that the cores
    are free to load. processes: training processes that share this machine's cores.

    A GPU gets all cores but two (for the loop, and for handing over batches), at most `MOST`. On a
    CPU the network needs the cores: one worker loads the next batch while this one is trained on,
    and on a single core there is nothing to be had from a worker.
    """
    if asked != "auto":
        return asked
    share = cores() // processes
    if not on_gpu:
        return 1 if share > 1 else 0
    return max(1, min(share - 2, MOST))
