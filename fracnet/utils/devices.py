"""The device that a run uses."""

import torch

from fracnet.utils.errors import UserError


def accelerator(asked: str) -> str:
    """The device to use. Raises `UserError` where one was asked for that is not there."""
    there = {
        "gpu": torch.cuda.is_available(),
        "cpu": True,
    }
    if asked == "auto":
        return next(name for name, found in there.items() if found)
    if not there[asked]:
        found = ", ".join(["auto", *(name for name, here in there.items() if here)])
        raise UserError(f"trainer.accelerator={asked}: this machine has none; allowed: {found}.")
    return asked
