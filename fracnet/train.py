"""`python -m fracnet.train`: train a model, evaluate it and write its run folder."""

import os
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fracnet.config import hydra_cli
from fracnet.config.fields import resolved
from fracnet.training import sweep
from fracnet.utils import deferred


def train(cfg: DictConfig) -> float | list[float]:
    """Train and evaluate one model; the validation metric that `objective` names, or several."""
    hydra = HydraConfig.get()
    overrides = list(hydra.overrides.task)
    if cfg.resume:
        sweep.check_resumable(Path(str(cfg.resume)).expanduser())
    elif requeued(hydra_cli.output_dir()):
        cfg.resume, overrides = str(hydra_cli.output_dir()), []

    with deferred.without_collection():
        from fracnet.training.preflight import Order, preflight  # not needed for --help

    order = Order(
        folder=hydra_cli.output_dir(),
        overrides=overrides,
        command=hydra_cli.typed_command("train"),
        in_sweep=sweep.running(),
        fixed_folder=any(o.startswith("hydra.run.dir=") for o in hydra.overrides.hydra),
    )
    plan = preflight(resolved(cfg), order)

    with deferred.without_collection():
        from fracnet.training.run import run  # seconds, which a mistake does not wait for

    return run(plan)


def requeued(folder: Path) -> bool:
    """Whether Slurm has requeued this command, which left a checkpoint the first time."""
    again = int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0
    return again and (folder / "checkpoints/last.ckpt").is_file()


if __name__ == "__main__":
    hydra_cli.run(train, "train", jobs=sweep)
