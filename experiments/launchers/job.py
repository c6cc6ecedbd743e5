"""`fracnet.train`, which also counts the images that are decoded, in the file $FRACNET_DECODED."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from fracnet.config import hydra_cli
from fracnet.train import train
from fracnet.training import sweep


def task(cfg: DictConfig) -> Any:
    """Train one model; a byte for each decoded image is appended to the file."""
    from fracnet.data import image_cache  # as late as the training imports it

    read = image_cache.read_grey

    def counted(path: Path) -> np.ndarray:
        with open(os.environ["FRACNET_DECODED"], "ab") as file:
            file.write(b".")
        return read(path)

    if getattr(read, "__name__", "") != "counted":
        image_cache.read_grey = counted
    return train(cfg)


if __name__ == "__main__":
    hydra_cli.run(task, "train", jobs=sweep)
