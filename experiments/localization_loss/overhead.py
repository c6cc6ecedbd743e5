"""What the auxiliary head costs: time of a training step with it and without, taken in turns.

OMP_NUM_THREADS=1 python -m experiments.localization_loss.overhead
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from experiments.localization_loss.run import OVERRIDES
from experiments.small_phantoms import compose_config
from fracnet.config.checks import check
from fracnet.models.localizer import localization_loss
from fracnet.runs.build import classifier_from, data_from
from fracnet.training.run_header import quiet_libraries


def stepper(weight: float, overrides: list[str]) -> Callable[[], None]:
    """A function that loads a batch in this process and takes a step of the training."""
    node = [*OVERRIDES, "optim=adam", "scheduler=cosine", f"loss.localization={weight}"]
    config = check(compose_config([*node, *overrides]))
    data = data_from(config)
    data.progress = False
    data.prepare_data()
    model = classifier_from(config, data).train()
    optimizer = torch.optim.Adam(model.parameters())
    batches = iter(data.train_dataloader())

    def step() -> None:
        batch = next(batches)
        logits, cells = model.logits_and_cells(batch["image"])
        loss: Tensor = model.loss(logits, batch["target"])
        if cells is not None:
            loss = loss + weight * localization_loss(
                cells, batch["map"], batch["known"], batch["target"]
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def seconds(step: Callable[[], None]) -> float:
    """CPU time of one step, which other processes change little."""
    start = time.process_time()
    step()
    return time.process_time() - start


def main() -> None:
    """Print the ratio of the times, with the quartiles over pairs of steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("data/studies/localization_loss"))
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("overrides", nargs="*", help="further overrides of fracnet.train")
    options = parser.parse_args()
    torch.set_num_threads(1)
    quiet_libraries()
    overrides = [f"data.root={options.folder}/phantoms", *options.overrides]
    without, with_head = (stepper(weight, overrides) for weight in (0, 1))
    for warm_up in (without, with_head):
        warm_up()
    pairs = np.array([[seconds(without), seconds(with_head)] for _ in range(options.pairs)])
    low, ratio, high = np.quantile(pairs[:, 1] / pairs[:, 0], [0.25, 0.5, 0.75])
    print(
        f"{1000 * np.median(pairs[:, 0]):.0f} ms a step, ratio {ratio:.3f} ({low:.3f}-{high:.3f})"
    )


if __name__ == "__main__":
    main()
