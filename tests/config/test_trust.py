"""An untrusted run folder may only name classes of fracnet, timm and torch."""

from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from fracnet.config.trust import check_trust
from fracnet.utils.errors import UserError
from fracnet.utils.files import config_dir

HARMLESS = {
    "model": {"_target_": "fracnet.models.backbones.timm_backbone", "name": "resnet18"},
    "optim": {"_target_": "torch.optim.Adam", "lr": 0.001},
    "loss": {"_target_": "fracnet.models.losses.Focal"},
    "data": {"_target_": "fracnet.data.datasets.mura.Mura"},
    "augment": {"transforms": [{"_target_": "albumentations.HorizontalFlip"}]},
}


def test_shipped_targets_are_trusted() -> None:
    check_trust(HARMLESS, False, "config.yaml")


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.run",
        "torch.hub.load",
        "torch.load",
        "torchvision.io.write_file",
        "fracnet.models.backbones.Path",  # what a module of fracnet's imports is not fracnet's
        "fracnet.modelsevil.Net",
        "timm.models.load_checkpoint",  # reads a file, and with older versions runs it
        "timm.models.load_state_dict",
        "torch.nn.utils.parametrize.register_parametrization",
        "torch.nn.init.normal_",
        "somebody.network.Net",
    ],
)
def test_other_targets_are_rejected_by_name(target: str) -> None:
    config = HARMLESS | {"model": {"_target_": target}}
    with pytest.raises(UserError, match="trust=true") as caught:
        check_trust(config, False, "runs/a/config.yaml")
    assert f"model._target_={target}" in str(caught.value)
    assert "runs/a/config.yaml" in str(caught.value)
    check_trust(config, True, "runs/a/config.yaml")


@pytest.mark.parametrize(
    "target",
    ["timm.create_model", "timm.models.resnet18", "torch.nn.Linear", "torchvision.models.resnet18"],
)
def test_networks_of_timm_and_torch_are_trusted(target: str) -> None:
    check_trust(HARMLESS | {"model": {"_target_": target}}, False, "config.yaml")


def test_a_file_that_timm_would_read_is_refused() -> None:
    node = {"_target_": "timm.create_model", "checkpoint_path": "/tmp/weights.pth"}
    with pytest.raises(UserError, match=r"model\.checkpoint_path"):
        check_trust({"model": node}, False, "config.yaml")
    check_trust({"model": {**node, "checkpoint_path": ""}}, False, "config.yaml")


def test_a_nested_target_is_checked() -> None:
    nested = {"_target_": "torch.nn.Sequential", "args": [{"layer": {"_target_": "os.system"}}]}
    with pytest.raises(UserError, match=r"model\.args\[0\]\.layer"):
        check_trust({"model": nested}, False, "config.yaml")


def test_a_refused_module_is_not_even_imported(tmp_path, monkeypatch) -> None:
    (tmp_path / "loud.py").write_text("raise SystemExit('imported')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError):
        check_trust({"model": {"_target_": "loud.Net"}}, False, "config.yaml")


@pytest.mark.parametrize(
    ("part", "target"),
    [
        ("loss", "fracnet.data.datasets.download._install_files"),
        ("loss", "fracnet.models.backbones.timm_backbone"),
        ("loss", "torch.optim.Adam"),
        ("optim", "torch.nn.Linear"),
        ("scheduler", "torch.optim.Adam"),
        ("data", "fracnet.data.datasets.download.fetch_if_absent"),
        ("data", "fracnet.models.cnn.CustomCNN"),
        ("callbacks", "lightning.pytorch.callbacks.LambdaCallback"),
        ("logger", "lightning.pytorch.loggers.CSVLogger"),
        ("explain", "fracnet.models.cnn.CustomCNN"),
        ("model", "fracnet.models.backbones.check_name"),
    ],
)
def test_each_part_trusts_only_the_targets_that_it_needs(part: str, target: str) -> None:
    with pytest.raises(UserError, match=r"_target_=.*trust=true"):
        check_trust(HARMLESS | {part: {"inner": {"_target_": target}}}, False, "config.yaml")
    with pytest.raises(UserError, match=r"_target_=.*trust=true"):
        check_trust(HARMLESS | {part: {"_target_": target}}, False, "config.yaml")


@pytest.mark.parametrize(
    "name", ["hf-hub:somebody/net", "hf_hub:somebody/net", "local-dir:/tmp/net", "https://x/net"]
)
def test_a_network_from_another_package_is_rejected(name: str) -> None:
    for target in ("timm.create_model", "fracnet.models.backbones.timm_backbone"):
        node = {"_target_": target, "name": name, "model_name": name}
        with pytest.raises(UserError, match="trust=true"):
            check_trust({"model": node}, False, "config.yaml")


def test_transforms_are_checked_only_when_training_resumes() -> None:
    config = HARMLESS | {"augment": {"transforms": [{"_target_": "os.system", "command": "x"}]}}
    check_trust(config, False, "config.yaml")
    with pytest.raises(UserError, match=r"augment\.transforms\[0\]\._target_=os\.system"):
        check_trust(config, False, "config.yaml", training=True)
    check_trust(HARMLESS, False, "config.yaml", training=True)
    function = {"transforms": [{"_target_": "albumentations.Lambda"}]}
    with pytest.raises(UserError, match="Lambda"):
        check_trust(HARMLESS | {"augment": function}, False, "config.yaml", training=True)


def test_every_shipped_choice_is_trusted() -> None:
    """All groups, so that a new choice or group cannot forget its rule."""
    groups = [path for path in config_dir().iterdir() if path.is_dir() and path.name != "hydra"]
    assert {"model", "scheduler", "logger", "callbacks"} <= {path.name for path in groups}
    for group in groups:
        for path in sorted(group.glob("*.yaml")):
            content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            if group.name == "logger":  # as a saved config has it
                content = OmegaConf.to_container(OmegaConf.load(path), resolve=True) or {}
            is_global = "@package _global_" in path.read_text(encoding="utf-8")
            config = content if is_global else {group.name: content}
            config.pop("defaults", None)
            check_trust(config, False, str(path), training=True)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("tensorboard", {"save_dir": "/home/somebody"}),
        ("csv", {"name": "../../elsewhere"}),
        ("mlflow", {"tracking_uri": "http://somewhere"}),
        ("wandb", {"dir": "/home/somebody"}),
    ],
)
def test_a_logger_that_writes_somewhere_else_needs_trust(name: str, change: dict[str, str]) -> None:
    path = config_dir() / "logger" / f"{name}.yaml"
    shipped: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    check_trust(HARMLESS | {"logger": shipped}, False, "config.yaml", training=True)
    shipped[name] |= change
    with pytest.raises(UserError, match=rf"logger\.{name}.*trust=true"):
        check_trust(HARMLESS | {"logger": shipped}, False, "config.yaml", training=True)


def test_shipped_loggers_are_trusted_and_changed_ones_are_not() -> None:
    shipped = yaml.safe_load((config_dir() / "logger/csv.yaml").read_text(encoding="utf-8"))
    check_trust(HARMLESS | {"logger": shipped}, False, "config.yaml", training=True)
    changed = {"csv": shipped["csv"] | {"save_dir": "/etc"}}
    with pytest.raises(UserError, match=r"logger\.csv\._target_=.*trust=true"):
        check_trust(HARMLESS | {"logger": changed}, False, "config.yaml", training=True)
    with pytest.raises(UserError, match=r"logger\.wandb\.dir=/etc"):
        check_trust(HARMLESS | {"logger": {"wandb": {"dir": "/etc"}}}, False, "config.yaml")


@pytest.mark.parametrize(
    ("part", "target"),
    [
        ("callbacks", "lightning.pytorch.callbacks.LearningRateMonitor"),
        ("metrics", "torchmetrics.classification.MulticlassFBetaScore"),
        ("augment", "albumentations.OneOf"),
    ],
)
def test_what_trainings_often_use_is_trusted(part: str, target: str) -> None:
    check_trust({part: {"inner": {"_target_": target}}}, False, "config.yaml", training=True)


@pytest.mark.parametrize(
    "target", ["torchmetrics.text.Perplexity", "torchmetrics.utilities.data.dim_zero_cat"]
)
def test_metrics_of_other_tasks_and_functions_are_rejected(target: str) -> None:
    with pytest.raises(UserError, match="a classification metric of torchmetrics"):
        check_trust({"metrics": {"f": {"_target_": target}}}, False, "config.yaml", training=True)
