"""A hint is a command that works: each is composed and checked as if a user typed it."""

import shlex
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from fracnet.config.checks import check
from fracnet.config.hints import phantom_command
from fracnet.config.overrides import add_open_keys
from fracnet.data.datasets.mura import Mura
from fracnet.utils.errors import UserError
from fracnet.utils.files import config_dir


def hint(command: str, phantom: str, overrides: list[str]) -> str:
    """What a command started with these overrides says about its missing data."""
    with initialize_config_dir(str(config_dir())):
        config = compose(command, add_open_keys(overrides), return_hydra_config=True)
    with open_dict(config):
        config.hydra.job.name = command
    hydra = HydraConfig.instance()
    before = hydra.cfg
    try:
        hydra.set_config(config)
        return phantom_command(phantom)
    finally:
        hydra.cfg = before


def composed(words: list[str]) -> Any:
    command = words[2].removeprefix("fracnet.")
    with initialize_config_dir(str(config_dir())):
        return compose(command, add_open_keys(words[3:]))


@pytest.mark.parametrize(
    ("phantom", "overrides", "kept"),
    [
        ("upper_limb_phantom", [], []),
        ("upper_limb_phantom", ["experiment=cis583_cnn"], ["experiment=cis583_cnn"]),
        ("upper_limb_phantom", ["experiment=cis583_resnet18"], ["experiment=cis583_resnet18"]),
        ("mura_phantom", ["experiment=mura_cnn_paper", "seed=2"], ["seed=2"]),
        ("upper_limb_phantom", ["model=hog_logistic"], ["model=hog_logistic"]),
        ("mura_phantom", ["data=mura", "data.root='a b'", "data.batch_size=7"], ["batch_size=7"]),
        ("mura_phantom", ["data=folder", "data.csv=x.csv", "optim.lr=0.1"], ["optim.lr=0.1"]),
        ("mura_phantom", ["trainer.accumulate_grad_batches=2"], ["accumulate_grad_batches=2"]),
        ("upper_limb_phantom", ["model.pretrained=true", "model.weights=a.pth"], []),
    ],
)
def test_training_on_phantoms_as_hinted(
    phantom: str, overrides: list[str], kept: list[str]
) -> None:
    words = shlex.split(hint("train", phantom, overrides))
    assert words[:3] == ["python", "-m", "fracnet.train"]
    config = check(OmegaConf.to_container(composed(words), resolve=True))
    assert phantom.replace("_phantom", "").split("_")[0] in config.data.target.lower()
    assert "Phantom" in config.data.target
    assert config.model.plain()["pretrained"] is False
    for part in kept:
        assert any(word.endswith(part) for word in words), words
    assert not any(word.startswith(("data.root", "data.csv", "model.weights")) for word in words)


def test_an_audit_has_no_model() -> None:
    words = shlex.split(hint("audit", "mura_phantom", ["data=mura", "fail_on=leak"]))
    assert words == ["python", "-m", "fracnet.audit", "fail_on=leak", "data=mura_phantom"]
    config = composed(words)
    assert config.data._target_.endswith("MuraPhantom")
    assert config.fail_on == "leak"


def test_without_a_command_the_hint_is_the_overrides(tmp_path) -> None:
    with pytest.raises(UserError) as caught:
        Mura(root=str(tmp_path / "gone")).prepare()
    last = str(caught.value).splitlines()[-1]
    assert last == "Or run on phantoms: data=mura_phantom model.pretrained=false"
