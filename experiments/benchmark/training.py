"""Training from files against training on one batch that is already on the device."""

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import seed_everything

from experiments.benchmark.epochs import (
    AlternatingLoader,
    Stopwatch,
    plain_trainer,
    synthetic_batch,
)
from experiments.benchmark.images import jpegs, write_set
from experiments.benchmark.measurements import Measurement, spread
from experiments.benchmark.pipeline import FracnetPipeline
from experiments.benchmark.setting import Setting, composed, prepared_data
from fracnet.runs.build import classifier_from
from fracnet.training.trainer import device_name
from fracnet.utils.devices import accelerator

AT_LEAST = {"cpu": 0.97, "gpu": 0.90}


def measure(setting: Setting, folder: Path) -> dict[str, Any]:
    """Images per second of both, alternating epochs within one fit of one network."""
    on = accelerator(setting.accelerator)
    steps = {"cpu": setting.pick(12, 2), "gpu": setting.pick(100, 20)}[on]
    pairs = setting.pick({"cpu": 5, "gpu": 9}[on], 1)
    counts = {"train": steps * setting.batch_size, "val": 4, "test": 4}
    root = write_set(folder / "training", jpegs(setting.pick(48, 8), 512), counts)
    overrides = [*setting.overrides(root), *setting.network_overrides()]
    config, data = composed(overrides), prepared_data(overrides)
    seed_everything(0, verbose=False)
    model = classifier_from(config, data)
    if config.trainer.compile:
        model.backbone.compile()
    watch = Stopwatch()
    trainer = plain_trainer(config, 2 + 2 * pairs, [watch], folder)
    loader = AlternatingLoader(
        data.train_dataloader(), lambda: synthetic_batch(config, len(data.classes), model.device)
    )
    assert len(loader) == steps, (len(loader), steps)
    trainer.fit(model, loader, data.val_dataloader())
    # The first epoch of each kind warms up workers, memory and the choice of kernels.
    files, same = watch.seconds[2::2], watch.seconds[3::2]
    n = counts["train"]
    measurements: list[Measurement] = [
        spread("from files", [n / s for s in files], "img/s"),
        spread("one batch on the device", [n / s for s in same], "img/s"),
        spread(
            "from files / one batch",
            [b / a for a, b in zip(files, same, strict=True)],
            at_least=AT_LEAST[on],
        ),
    ]
    own = FracnetPipeline(data)
    start = time.process_time()
    own.fetch(range(min(n, 256)), 1)
    loading = 1000 * (time.process_time() - start) / min(n, 256)
    spent = {"network and loop": 1000 / measurements[1].value, "loading, in a worker": loading}
    return {
        "measurements": measurements,
        "spent_ms": {"from files": spent},
        "device": device_name(config),
        "threads": torch.get_num_threads(),
        "workers": data.num_workers,
        "model": setting.network,
        "images_per_epoch": n,
        "seconds": {"files": files, "one_batch": same},
    }
