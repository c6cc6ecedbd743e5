"""A training in a process of its own, to be watched: `python -m experiments.benchmark.training_process WORD...`.

Trains on data whose cache is there, without validation, and prints one line of JSON: at how many
seconds since this module began each stage was reached.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def train(words: Sequence[str], folder: Path) -> dict[str, Any]:
    """Train; stages and the seconds at which they were reached."""
    start = time.perf_counter()
    reached: dict[str, Any] = {}

    def reach(stage: str) -> None:
        reached.setdefault(stage, round(time.perf_counter() - start, 4))

    from lightning.pytorch import Callback, seed_everything

    from experiments.benchmark.epochs import plain_trainer
    from experiments.benchmark.setting import composed, ready
    from fracnet.runs.build import classifier_from
    from fracnet.training.run_header import quiet_libraries

    class Watch(Callback):
        def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
            reach("first batch")

    quiet_libraries()
    config = composed(words)
    reach("imports")
    data = ready(words)
    reach("data")
    seed_everything(config.seed, verbose=False)
    model = classifier_from(config, data)
    trainer = plain_trainer(config, config.trainer.max_epochs, [Watch()], folder)
    trainer.fit(model, data.train_dataloader(), data.val_dataloader())
    reach("end")
    return reached | {"steps": trainer.global_step, "workers": data.num_workers}


if __name__ == "__main__":
    print(json.dumps(train(sys.argv[2:], Path(sys.argv[1]))), flush=True)
