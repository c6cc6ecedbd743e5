"""The configs of jobs are those that Hydra composes."""

from collections.abc import Callable, Iterator

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fracnet.config import hydra_cli  # noqa: F401  registers the resolvers
from fracnet.training.job_configs import JobConfigs
from fracnet.utils.files import config_dir

JOBS = [
    ["experiment=probe", "model=efficientnet_lite0", "optim.lr=0.1", "seed=3"],
    ["+optim.eps=0.1", "optim.lr='0.2'", "optim.lr=${seed}", "model.head_C=[1,2]"],
    ["~callbacks.early_stopping", "metrics={}", "data.root=null", "data.root=a\\,b"],
    ["callbacks.early_stopping=null", "callbacks.early_stopping.patience=3"],
    ["optim.lr=0.1", "++optim.lr=0.2"],
    ["trainer.image_sizes=[1,2]", "++trainer.image_sizes=null"],
    ["optim.lrr=1"],
    ["model=nope"],
]


@pytest.fixture(scope="module", autouse=True)
def hydra_is_ready() -> Iterator[None]:
    with initialize_config_dir(str(config_dir()), job_name="train"):
        yield


@pytest.mark.parametrize("overrides", JOBS, ids=" ".join)
def test_a_config_equals_hydras(overrides: list[str]) -> None:
    loader = GlobalHydra.instance().config_loader()
    master = loader.load_configuration("train", [], RunMode.MULTIRUN)
    configs = JobConfigs()

    def outcome(load: Callable[..., DictConfig]) -> object:
        try:
            return OmegaConf.to_container(load(master, overrides))
        except HydraException as error:
            return type(error), str(error)

    expected = outcome(loader.load_sweep_config)
    assert outcome(configs.load_sweep_config) == expected
    assert outcome(configs.load_sweep_config) == expected, "from the base of the first time"
