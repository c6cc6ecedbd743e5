"""Every shipped config composes, instantiates and survives one batch."""

import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from helpers.fracture_files import write_folders, write_fracatlas, write_grazped
from helpers.mura_files import write_mura
from helpers.upper_limb_files import write_yolo
from hydra import compose, initialize_config_dir
from lightning.pytorch import Trainer
from omegaconf import OmegaConf

from fracnet.config.checks import check
from fracnet.config.schema import Config
from fracnet.data.datamodule import RadiographData
from fracnet.models.classifier import Classifier
from fracnet.runs.build import classifier_from, data_from
from fracnet.runs.run_folder import RunFolder
from fracnet.training import classical
from fracnet.utils.files import config_dir

CHOICES = [
    f"{path.parent.name}={path.stem}"
    for path in sorted(config_dir().glob("*/*.yaml"))
    if path.parent.name != "hydra"
]

# A step of the optimizer with its states would take 2 GB.
LARGE = ("model=vgg16",)

SMALL = ("image_size=32", "data.batch_size=8", "data.num_workers=0")
AFTER_THE_BATCH = {"cited", "evaluation", "explain", "logger", "pruning", "sweep"}
AFTER_THE_BATCH |= {"launcher", "sweeper", "search"}
"""Parts of a config of which data, model and fit know nothing."""
OWN_FILES = {
    "data=fracatlas": write_fracatlas,
    "data=grazped": write_grazped,
    "data=folder": lambda root: write_folders(root, "normal", "fractured", n=12),
}


def compose_config(overrides: list[str]) -> Config:
    """Without pretrained weights, which would have to be downloaded."""
    with initialize_config_dir(str(config_dir())):
        node = compose("train", overrides)
    if "pretrained" in node.model:
        node.model.pretrained = False
    return check(cast(dict[str, Any], OmegaConf.to_container(node, resolve=True)))


@pytest.fixture(scope="module")
def default(phantom_overrides: list[str]) -> Config:
    return compose_config([*phantom_overrides, *SMALL])


def check_classical_fit(config: Config, data: RadiographData, folder: Path) -> None:
    model = classical.build_classical(config, data)
    table, _ = classical.fit_and_predict(model, config, data, RunFolder(folder))
    assert len(table) == len(data.rows("val")) + len(data.rows("test"))
    assert (folder / "checkpoints/best.npz").exists()


@pytest.mark.usefixtures("quick_weights")
@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_instantiates_and_processes_a_batch(
    choice: str, phantom_overrides: list[str], default: Config, tmp_path: Path
) -> None:
    overrides = [*phantom_overrides, *SMALL]
    if choice == "data=upper_limb":
        overrides = [choice, f"data.root={write_yolo(tmp_path)}", *SMALL]
    elif choice in ("data=mura", "data=mura_150"):
        overrides = [choice, f"data.root={write_mura(tmp_path)}", *SMALL]
    elif choice == "data=mura_phantom":
        patients = "data.patients={train: 14, valid: 4}"
        overrides = [choice, f"data.root={tmp_path}", patients, *SMALL]
    elif choice in OWN_FILES:
        overrides = [choice, f"data.root={OWN_FILES[choice](tmp_path / 'set')}", *SMALL]
    elif choice != "data=upper_limb_phantom":
        overrides.append(choice)
    if choice.startswith("experiment="):
        overrides.append("trainer.image_sizes=null")  # those of the recipe are larger than 32
    config = compose_config(overrides)
    if choice != "data=upper_limb_phantom" and not choice.startswith("model="):
        changed = {key for key, value in config if value != getattr(default, key)}
        if changed <= AFTER_THE_BATCH:
            return  # the batch would be that of upper_limb_phantom
    data = data_from(config)
    data.prepare_data()
    if config.model.fit == "classical":
        check_classical_fit(config, data, tmp_path)
        return
    model = classifier_from(config, data)
    if choice in LARGE:
        logits = model(torch.from_numpy(data.cache.images[:2, None].copy()))
        logits.square().sum().backward()
        assert all(weight.grad is not None for weight in model.parameters())
        return
    trainer = Trainer(
        accelerator="cpu",
        fast_dev_run=True,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(model, datamodule=data)
    assert trainer.global_step == 1
    assert math.isfinite(trainer.callback_metrics["train/loss"])
    if choice.startswith("model="):
        loads_as_weights_only(model, trainer, tmp_path / "model.ckpt")


def loads_as_weights_only(model: Classifier, trainer: Trainer, path: Path) -> None:
    trainer.save_checkpoint(path, weights_only=True)
    loaded = Classifier.load_from_checkpoint(path, weights_only=True).state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(loaded[name], value), name


def test_all_groups_are_covered() -> None:
    groups = {choice.split("=")[0] for choice in CHOICES}
    with initialize_config_dir(str(config_dir())):
        used = compose("train", return_hydra_config=True).hydra.runtime.choices
    assert {name for name in used if not name.startswith("hydra")} == groups


def test_custom_cnn_sets_the_published_weight_decay_by_default() -> None:
    assert compose_config(["model=custom_cnn"]).optim.weight_decay == 0.01
    assert compose_config(["model=custom_cnn", "optim.weight_decay=0.1"]).optim.weight_decay == 0.1
    assert compose_config([]).optim.weight_decay == 0.05


def test_upper_limb_phantom_differs_only_in_the_source_of_the_files() -> None:
    real, phantom = compose_config([]), compose_config(["data=upper_limb_phantom"])
    assert real.model_dump(exclude={"data"}) == phantom.model_dump(exclude={"data"})
    files = ("_target_", "root", "download")
    reading = {key: value for key, value in real.data.plain().items() if key not in files}
    assert reading.items() <= phantom.data.plain().items()
