"""The device that a run uses."""

import torch

from fracnet.utils.errors import UserError


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
