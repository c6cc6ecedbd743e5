"""What memory format, precision, optimizer and torch.compile gain on this machine.

    python -m experiments.device_options.run [--models resnet18 ...] [--image-size 224] [--compile]

Times training steps of the real models (forward, backward, step of Adam) on one fixed batch. The
options take turns, step by step, so that other load on the machine hits all of them alike.
"""

import argparse
import json
import platform
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import timm
import torch
from torch import nn

from fracnet.models.cnn import CustomCNN

MODELS = ("resnet18", "efficientnet_lite0", "densenet121", "custom_cnn")


@dataclass(frozen=True)
class Options:
    """One way to run the same training step."""

    channels_last: bool = False
    bf16: bool = False
    fused: bool = False
    compile: bool = False

    def __str__(self) -> str:
        return "+".join(name for name, value in vars(self).items() if value) or "plain"


class Training:
    """A model and its optimizer, as the options have them."""

    def __init__(self, name: str, options: Options, images: torch.Tensor) -> None:
        torch.manual_seed(0)
        device = images.device
        model = CustomCNN(6) if name == "custom_cnn" else timm.create_model(name, num_classes=6)
        self.model: Any = model.to(device)
        self.options = options
        if options.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-4, fused=options.fused)
        if options.compile:
            self.model.compile()
        self.images = images
        self.target = torch.arange(len(images), device=device) % 6
        self.first = self.step()
        self.step()

    def step(self) -> float:
        """Seconds of one step."""
        start = time.perf_counter()
        bf16 = torch.autocast(self.images.device.type, torch.bfloat16)
        with bf16 if self.options.bf16 else nullcontext():
            loss = nn.functional.cross_entropy(self.model(self.images), self.target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.images.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start


def measure(name: str, options: list[Options], size: int, batch: int, steps: int) -> list[Any]:
    """Median and quartiles of the seconds of a step, and their ratio to the plain step."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = torch.randn(batch, 3, size, size, device=device)
    trainings = [Training(name, each, images) for each in options]
    times = np.array([[training.step() for training in trainings] for _ in range(steps)])
    ratios = times[:, :1] / times
    return [
        {
            "model": name,
            "options": str(each),
            "seconds": np.quantile(times[:, i], (0.5, 0.25, 0.75)).round(4).tolist(),
            "faster_than_plain": np.quantile(ratios[:, i], (0.5, 0.25, 0.75)).round(3).tolist(),
            "first_step": round(trainings[i].first, 2),
        }
        for i, each in enumerate(options)
    ]


def main() -> None:
    """Measure and print a row an option; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--compile", action="store_true", help="needs a C++ compiler on a CPU")
    arguments = parser.parse_args()
    options = [
        Options(),
        Options(channels_last=True),
        Options(channels_last=True, fused=True),
        Options(channels_last=True, fused=True, bf16=True),
    ]
    if arguments.compile:
        options.append(Options(channels_last=True, fused=True, compile=True))
    rows = []
    for name in arguments.models:
        for row in measure(
            name, options, arguments.image_size, arguments.batch_size, arguments.steps
        ):
            rows.append(row)
            median, low, high = row["faster_than_plain"]
            print(
                f"{name:20} {row['options']:28} {row['seconds'][0]:.3f} s a step, "
                f"{median:.2f} ({low:.2f}-{high:.2f}) times as fast; first {row['first_step']} s",
                flush=True,
            )
    print(
        json.dumps(
            {"machine": platform.platform(), "threads": torch.get_num_threads(), "rows": rows}
        )
    )


if __name__ == "__main__":
    main()
