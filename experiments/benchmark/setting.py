"""What all parts of the benchmark share: sizes, and data and networks as a training makes them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from fracnet.config.instantiate import near_miss
from fracnet.config.schema import Config, check
from fracnet.data.datamodule import RadiographData
from fracnet.utils.errors import UserError
from fracnet.utils.files import config_dir

T = TypeVar("T")

# A network that costs next to nothing.
SMALL = ["model=mura_cnn", "model._target_=experiments.benchmark.small_net.SmallNet"]


@dataclass(frozen=True)
class Setting:
    """What is asked for. `quick`: sizes that show that it works, not how fast it is."""

    quick: bool
    network: str
    image_size: int
    batch_size: int
    accelerator: str
    workers: int | str
    compiled: bool

    def pick(self, full: T, quick: T) -> T:
        """The one or the other."""
        return quick if self.quick else full

    def words(self, root: Path) -> list[str]:
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

    def network_words(self) -> list[str]:
        """Overrides that choose the network, from a random start where it could be another.

        Raises UserError for one that is not trained step by step.
        """
        with hydra_ready():
            choices = GlobalHydra.instance().config_loader().get_group_options("model")
        if self.network not in choices:
            raise UserError(
                f"network={self.network} is not one of the models; allowed: {', '.join(choices)}."
                f"{near_miss(self.network, choices)}"
            )
        model = composed([f"model={self.network}"]).model
        if model.fit == "classical":
            raise UserError(
                f"network={self.network} is fitted in one go and has no steps to be timed; "
                "allowed: any other model."
            )
        fresh = ["model.pretrained=false"] if "pretrained" in model.plain() else []
        return [f"model={self.network}", *fresh]


@contextmanager
def hydra_ready() -> Iterator[None]:
    """Hydra, initialized here where no entry point has done so."""
    if GlobalHydra.instance().is_initialized():
        yield
    else:
        with initialize_config_dir(str(config_dir())):
            yield


def composed(words: Sequence[str]) -> Config:
    """The config of a training with these overrides."""
    with hydra_ready():
        node = compose("train", list(words))
    return check(cast(dict[str, Any], OmegaConf.to_container(node, resolve=True)))


def ready(words: Sequence[str]) -> RadiographData:
    """The data of such a training, decoded and cached."""
    from fracnet.runs.build import data_from

    data = data_from(composed(words))
    data.progress = False
    data.prepare_data()
    data.setup()
    return data
