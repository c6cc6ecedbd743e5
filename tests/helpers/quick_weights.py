"""Random weights in a fraction of the time that it takes to draw each of them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

PERIOD = 65_521  # a prime


def repeat_random_numbers(replace: Callable[[Any, str, Any], None]) -> None:
    """Fill large tensors with few random numbers, over and over; `replace` sets an attribute."""
    for name in ("normal_", "uniform_"):
        replace(torch.Tensor, name, _repeating(getattr(torch.Tensor, name)))


def _repeating(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def fill(tensor: Tensor, *args: Any, **options: Any) -> Tensor:
        if tensor.numel() <= PERIOD or not tensor.is_contiguous():
            return draw(tensor, *args, **options)
        numbers = draw(tensor.new_empty(PERIOD), *args, **options)
        whole = tensor.numel() // PERIOD * PERIOD
        flat = tensor.detach().view(-1)
        flat[:whole].view(-1, PERIOD).copy_(numbers)
        flat[whole:].copy_(numbers[: tensor.numel() - whole])
        return tensor

    return fill
