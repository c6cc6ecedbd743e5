"""A sweep without training, started as a command; each job in a separate process on request.

The job with optim.lr=2 dies silently, the one with optim.lr=3 fails for a reason and that with
optim.lr=5 waits for a signal unless QUICK is set, that with optim.lr=6 waits for two signals, that
with optim.lr=7 waits the first time. Overrides are those of `fracnet.train`;
hydra.launcher._target_=hydra_plugins.forks.Forks gives each a process.
"""

import json
import os
import time
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fracnet.config import hydra_cli
from fracnet.training import sweep
from fracnet.utils.errors import UserError


def task(cfg: DictConfig) -> float:
    value = float(cfg.optim.lr)
    if value == 2:
        os._exit(9)
    if value == 3 and not os.environ.get("QUICK"):
        raise UserError("optim.lr=3 is\nnot liked")
    folder = Path(HydraConfig.get().runtime.output_dir)
    seen = (folder.parent / "seen").exists()
    if value >= 5 and not (os.environ.get("QUICK") or (value == 7 and seen)):
        (folder / "waiting").touch()
        (folder.parent / "seen").touch()
        try:
            time.sleep(100)
        finally:
            time.sleep(100 * (value == 6))
    from fracnet.runs.run_folder import FORMAT, FORMAT_KEY  # a second, for jobs that finish alone

    metrics = {
        FORMAT_KEY: FORMAT,
        "objective": {"name": "loss", "value": value},
        "selected": {"epoch": 1},
        "val": {"n": 0, "metrics": {}},
        "test": {"n": 0, "metrics": {}},
        "baselines_on_test": {},
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return value


if __name__ == "__main__":
    hydra_cli.run(task, "train", jobs=sweep)
