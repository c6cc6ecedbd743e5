"""A training in a process of its own, for measuring its memory and start-up time.

Trains on cached data without validation and prints one line of JSON: the seconds since this module
started at which each stage was reached.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def train(overrides: Sequence[str], folder: Path) -> dict[str, Any]:
    """Train; the seconds at which each stage was reached."""
    start = time.perf_counter()
    stages: dict[str, Any] = {}

    def mark(stage: str) -> None:
        stages.setdefault(stage, round(time.perf_counter() - start, 4))

    from lightning.pytorch import Callback, seed_everything

    from experiments.benchmark.epochs import plain_trainer
    from experiments.benchmark.setting import composed, prepared_data
    from fracnet.runs.build import classifier_from
    from fracnet.training.run_header import quiet_libraries

    class Watch(Callback):
        def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
            mark("first batch")

    quiet_libraries()
    config = composed(overrides)
    mark("imports")
    data = prepared_data(overrides)
    mark("data")
    seed_everything(config.seed, verbose=False)
    model = classifier_from(config, data)
    trainer = plain_trainer(config, config.trainer.max_epochs, [Watch()], folder)
    trainer.fit(model, data.train_dataloader(), data.val_dataloader())
    mark("end")
    return stages | {"steps": trainer.global_step, "workers": data.num_workers}


if __name__ == "__main__":
    print(json.dumps(train(sys.argv[2:], Path(sys.argv[1]))), flush=True)
