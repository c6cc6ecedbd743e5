"""The device that a run uses, and its memory."""

import ctypes
import sys

import torch

from fracnet.utils.errors import UserError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def accelerator(requested: str) -> str:
    """Resolve `trainer.accelerator` (auto, cpu or gpu) to "gpu" or "cpu".

    Raises UserError if the requested device is not available.
    """
    available = [*(["gpu"] if torch.cuda.is_available() else []), "cpu"]
    if requested == "auto":
        return available[0]
    if requested not in available:
        raise UserError(
            f"trainer.accelerator={requested}: this machine has none; "
            f"allowed: {', '.join(['auto', *available])}."
        )
    return requested


def reuse_memory() -> None:
    """Let the process keep freed memory for the tensors to come, where its allocator is glibc's.

    By default glibc returns each block of more than 32 MiB at once, and the kernel has to clear the
    pages of the next one: a fifth to two fifths of the time of a training step of
    EfficientNet-Lite0 on a CPU. Peak memory rises by a tenth. Other allocators are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    # Older versions refuse so high a threshold; to set the other alone would make them slower.
    if mallopt is not None and mallopt(_M_MMAP_THRESHOLD, 1 << 30):
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
