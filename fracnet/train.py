"""`python -m fracnet.train`: train a model, evaluate it and write its run folder."""

import sys
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fracnet.config import hydra_cli
from fracnet.training import sweep


def train(cfg: DictConfig) -> float:
    """Train and evaluate one model; the validation metric that `objective` names."""
    hydra = HydraConfig.get()
    if cfg.resume:
        sweep.check_resumable(Path(str(cfg.resume)).expanduser())

    from fracnet.training.preflight import Order, preflight  # not needed for --help

    order = Order(
        folder=hydra_cli.output_dir(),
        overrides=list(hydra.overrides.task),
        command=[Path(sys.executable).name, "-m", "fracnet.train", *sys.argv[1:]],
        in_sweep=sweep.running(),
    )
    plain = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    plain.pop("launcher", None)  # where a job runs is not part of what it is
    plan = preflight(plain, order)

    from fracnet.training.run import run  # seconds of imports, which a mistake does not wait for

    return run(plan)


if __name__ == "__main__":
    hydra_cli.run(train, "train", jobs=sweep)
