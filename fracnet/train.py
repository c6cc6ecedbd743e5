"""`python -m fracnet.train`: from a config to a trained, measured model and its run folder."""

import sys
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from fracnet import cli, sweep


def train(cfg: DictConfig) -> float:
    """Train one model and measure it: see `fracnet.running.run`."""
    from hydra.core.hydra_config import HydraConfig

    from fracnet.running import Order, run

    hydra = HydraConfig.get()
    order = Order(
        folder=Path(hydra.runtime.output_dir),
        words=list(hydra.overrides.task),
        command=[Path(sys.executable).name, "-m", "fracnet.train", *sys.argv[1:]],
        in_sweep=sweep.running(),
    )
    return run(cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True)), order)


if __name__ == "__main__":
    cli.run(train, "train")
