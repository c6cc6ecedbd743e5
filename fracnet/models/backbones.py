"""Backbones from timm: random, from the hub, or from a local file of weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants as hub
from torch import nn

from fracnet import network
from fracnet.errors import UserError
from fracnet.models.heads import find_heads
from fracnet.objects import near_miss
from fracnet.words import counted


def timm_backbone(
    name: str, num_classes: int, pretrained: bool = True, weights: str | None = None
) -> nn.Module:
    """A timm model that maps float32 [N, 3, H, W] to logits [N, num_classes].

    Args:
        name: any timm name, e.g. `resnet18` or `convnext_tiny.fb_in22k`.
        num_classes: width of the new classifier; pretrained weights keep all but theirs.
        pretrained: load the weights that timm names for the model, from the hub.
        weights: a local file (.pth, .safetensors) of that architecture to load instead, or the
            best.ckpt of a run with the same number of classes.

    Raises:
        UserError: unknown name, or weights that cannot be had. There is no silent random start.
    """
    check_name(name)
    if weights is not None:
        return _from_file(name, num_classes, Path(weights))
    if not pretrained:
        return _new_head(timm.create_model(name, pretrained=False, num_classes=num_classes))
    try:
        with _cache_alone_if_cut_off():
            return _new_head(timm.create_model(name, pretrained=True, num_classes=num_classes))
    # What a hub client raises differs with its version and its transport.
    except Exception as error:
        raise UserError(
            f"the ImageNet weights of model.name={name} could not be had from the hub "
            f"({network.clause(error)}). Two ways on: "
            "model.weights=/path/to/weights (.pth or .safetensors) loads a local file, "
            "model.pretrained=false starts at random."
        ) from error


def check_name(name: str) -> None:
    """Raise UserError unless timm has a model of this name, with or without a tag."""
    known = timm.list_models(exclude_filters="")
    if name.split(".")[0] not in known:
        raise UserError(
            f"model.name={name} is not a timm model; allowed: the {len(known)} names that "
            f"timm.list_models() gives.{near_miss(name, known)}"
        )


@contextmanager
def _cache_alone_if_cut_off() -> Iterator[None]:
    """Where the hub does not answer, use what it once cached: its client retries for a minute."""
    if hub.HF_HUB_OFFLINE:
        yield
        return
    try:
        network.probe(hub.ENDPOINT)
    except network.Unreachable:
        hub.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = False


def _from_file(name: str, num_classes: int, path: Path) -> nn.Module:
    if not path.is_file():
        raise UserError(f"model.weights={path}: there is no such file.")
    try:
        if path.suffix == ".ckpt":
            return _from_run(name, num_classes, path)
        model = timm.create_model(
            name,
            pretrained=True,
            num_classes=num_classes,
            pretrained_cfg_overlay={"file": str(path)},
        )
        return _new_head(model)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"model.weights={path} does not hold weights of model.name={name}: {_first_line(error)}"
        ) from error


def _new_head(model: Any) -> nn.Module:
    """Start a classifier that came without weights as torch starts any linear layer.

    timm scales that of an EfficientNet by its number of classes: with six of them the logits
    of a pretrained one begin in the tens, and the first epochs only shrink them.
    """
    for head in find_heads(model, "model.name"):
        came_with_weights = model.num_classes == model.pretrained_cfg.get("num_classes")
        if type(head) is nn.Linear and not came_with_weights:
            head.reset_parameters()
    backbone: nn.Module = model
    return backbone


def _from_run(name: str, num_classes: int, path: Path) -> nn.Module:
    """The backbone of one of fracnet's own checkpoints, its classifier included."""
    stored = torch.load(path, map_location="cpu", weights_only=True)
    classes = stored["hyper_parameters"]["classes"]
    if len(classes) != num_classes:
        raise UserError(
            f"model.weights={path} is a checkpoint of {counted(len(classes), 'class')} "
            f"({', '.join(classes)}), and this task has {num_classes}; allowed: a checkpoint of "
            f"{num_classes} classes, or a file of backbone weights (.pth, .safetensors)."
        )
    own = {
        key.removeprefix("backbone."): value
        for key, value in stored["state_dict"].items()
        if key.startswith("backbone.")
    }
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes)
    model.load_state_dict(own)
    return model


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def input_statistics(backbone: nn.Module) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation that the backbone's weights expect, in 0..1, or None."""
    config = getattr(backbone, "pretrained_cfg", None)
    if not config or "mean" not in config or "std" not in config:
        return None
    return list(config["mean"]), list(config["std"])
