"""What all parts share: sizes, and data and networks built as a training builds them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from fracnet.config.checks import check
from fracnet.config.schema import Config
from fracnet.data.datamodule import RadiographData
from fracnet.utils.errors import UserError
from fracnet.utils.files import config_dir
from fracnet.utils.text import near_miss

T = TypeVar("T")

# A network with almost no cost.
SMALL = ["model=mura_cnn", "model._target_=experiments.benchmark.small_net.SmallNet"]


@dataclass(frozen=True)
class Setting:
    """The options of one benchmark. `quick`: small sizes that only check that it works."""

    quick: bool
    network: str
    image_size: int
    batch_size: int
    accelerator: str
    workers: int | str
    compiled: bool

    def pick(self, full: T, quick: T) -> T:
        """`quick` with quick=true, else `full`."""
        return quick if self.quick else full

    def overrides(self, root: Path) -> list[str]:
        """Overrides of a training on the class folders below `root`."""
        return [
            "data=folder",
            f"data.root='{root}'",
            f"data.batch_size={self.batch_size}",
            f"data.num_workers={self.workers}",
            f"image_size={self.image_size}",
            f"trainer.accelerator={self.accelerator}",
            f"trainer.compile={str(self.compiled).lower()}",
            "trainer.progress_bar=false",
            "logger=none",
        ]

    def network_overrides(self) -> list[str]:
        """Overrides that choose the network, with random weights.

        Raises UserError for one that is not trained step by step.
        """
        with hydra_initialized():
            choices = GlobalHydra.instance().config_loader().get_group_options("model")
        if self.network not in choices:
            raise UserError(
                f"network={self.network} is not one of the models; allowed: {', '.join(choices)}."
                f"{near_miss(self.network, choices)}"
            )
        model = composed([f"model={self.network}"]).model
        if model.fit == "classical":
            raise UserError(
                f"network={self.network} has no training steps to time; allowed: any other model."
            )
        fresh = ["model.pretrained=false"] if "pretrained" in model.plain() else []
        return [f"model={self.network}", *fresh]


@contextmanager
def hydra_initialized() -> Iterator[None]:
    """Hydra, initialized here unless a command has done so."""
    if GlobalHydra.instance().is_initialized():
        yield
    else:
        with initialize_config_dir(str(config_dir())):
            yield


def composed(overrides: Sequence[str]) -> Config:
    """The config of a training with these overrides."""
    with hydra_initialized():
        node = compose("train", list(overrides))
    return check(cast(dict[str, Any], OmegaConf.to_container(node, resolve=True)))


def prepared_data(overrides: Sequence[str]) -> RadiographData:
    """The data of a training with these overrides, decoded and cached."""
    from fracnet.runs.build import data_from

    data = data_from(composed(overrides))
    data.progress = False
    data.prepare_data()
    data.setup()
    return data
