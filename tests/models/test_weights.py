"""Weights from a file: whatever wraps them, the whole backbone is loaded, or nothing."""

import argparse
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from fracnet.models.backbones import timm_backbone
from fracnet.models.weights import LoadedWeights
from fracnet.utils.errors import UserError

NAME = "resnet10t"
State = dict[str, Tensor]


def network(seed: int, num_classes: int = 9) -> nn.Module:
    torch.manual_seed(seed)
    model: nn.Module = timm.create_model(NAME, num_classes=num_classes)
    return model


STATE: State = dict(network(1).state_dict())
OTHER: State = dict(network(2).state_dict())
BODY = [name for name in STATE if not name.startswith("fc.")]


def prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


def optimizer_state() -> dict[str, Any]:
    model = network(1)
    optimizer = torch.optim.Adam(model.parameters())
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    return optimizer.state_dict()


def load(path: Path, num_classes: int = 6, name: str = NAME) -> tuple[State, LoadedWeights]:
    model: Any = timm_backbone(name, num_classes, weights=str(path))
    return dict(model.state_dict()), model.loaded_weights


WRAPPED: dict[str, tuple[Callable[[], Any], str]] = {
    "plain": (lambda: STATE, ""),
    "epoch": (lambda: {"epoch": 3, "model_state_dict": STATE}, "model_state_dict"),
    "state_dict": (lambda: {"state_dict": STATE}, "state_dict"),
    "model": (lambda: {"model": STATE, "optimizer": optimizer_state()}, "model"),
    "net": (lambda: {"net": STATE, "acc": np.float64(0.9)}, "net"),
    "options": (lambda: {"model": STATE, "args": argparse.Namespace(lr=0.1)}, "model"),
    "nested": (lambda: {"checkpoint": {"model": {"state_dict": STATE}}}, "checkpoint.model."),
    "ema": (lambda: {"model": OTHER, "ema": STATE}, "ema"),
    "timm's ema": (lambda: {"state_dict": OTHER, "state_dict_ema": STATE}, "state_dict_ema"),
    "DataParallel": (lambda: {"state_dict": prefixed("module.", STATE)}, "state_dict.module"),
    "Lightning": (
        lambda: {
            "state_dict": prefixed("model.", STATE) | {"loss.weight": torch.ones(9)},
            "pytorch-lightning_version": "2.5.0",
            "hyper_parameters": {"lr": 0.1},
        },
        "state_dict.model",
    ),
    "backbone": (lambda: prefixed("backbone.", STATE), "backbone"),
    "encoder": (lambda: prefixed("encoder.", STATE), "encoder"),
    "compiled": (lambda: prefixed("_orig_mod.", STATE), ""),
    "compiled inside": (lambda: prefixed("net._orig_mod.", STATE), "net"),
    "MoCo": (
        lambda: {
            "state_dict": prefixed("module.encoder_q.", STATE)
            | prefixed("module.encoder_k.", OTHER)
            | {"module.queue": torch.ones(3, 4)}
        },
        "state_dict.module.encoder_q",
    ),
    "DINO": (
        lambda: {
            "student": prefixed("module.backbone.", OTHER),
            "teacher": prefixed("backbone.", STATE),
        },
        "teacher.backbone",
    ),
    "student alone": (lambda: {"student": STATE}, "student"),
    "averaged": (lambda: prefixed("module.", STATE) | {"n_averaged": torch.tensor(4)}, "module"),
    "twice the same": (lambda: {"last": STATE, "best": STATE}, "last"),
    "averaged in a callback": (
        lambda: {
            "state_dict": prefixed("model.", OTHER),
            "callbacks": {"EMA": {"ema_weights": prefixed("model.", STATE)}},
        },
        "callbacks.EMA.ema_weights.model",
    ),
    "averaged by Lightning": (
        lambda: {
            "state_dict": prefixed("model.", STATE),
            "current_model_state": prefixed("model.", OTHER),
        },
        "state_dict.model",
    ),
    "averaged beside the parameters": (
        lambda: {"params": OTHER, "params_ema": STATE},
        "params_ema",
    ),
    "dates, paths and histories": (
        lambda: {
            "state_dict": STATE,
            "when": datetime(2026, 1, 2),
            "folder": Path("runs"),
            "best": (np.int64(3), np.bool_(True), np.float32(0.5)),
            "options": SimpleNamespace(lr=0.1),
        },
        "state_dict",
    ),
    "a head of another name": (
        lambda: {name: STATE[name] for name in BODY} | {"classifier.weight": torch.ones(5, 2)},
        "",
    ),
    "a projection head": (
        lambda: {name: STATE[name] for name in BODY} | {"projector.0.weight": torch.ones(5, 2)},
        "",
    ),
    "double precision": (lambda: {k: v.double() for k, v in STATE.items()}, ""),
    "without the head": (lambda: {name: STATE[name] for name in BODY}, ""),
    "a head of two layers": (
        lambda: (
            {name: STATE[name] for name in BODY}
            | {"fc.0.weight": torch.ones(2, 2), "fc.2.weight": torch.ones(2, 2)}
        ),
        "",
    ),
    "without counters": (
        lambda: {k: v for k, v in STATE.items() if not k.endswith("num_batches_tracked")},
        "",
    ),
}


@pytest.mark.parametrize("wrapping", WRAPPED)
def test_known_wrappers_and_prefixes_are_unwrapped(wrapping: str, tmp_path: Path) -> None:
    make, part = WRAPPED[wrapping]
    path = tmp_path / "u.pth"
    torch.save(make(), path)
    state, loaded = load(path)
    for name in BODY:
        assert torch.equal(state[name], STATE[name]), name
    assert state["fc.weight"].shape[0] == 6
    assert not loaded.head
    assert loaded.part.startswith(part)
    assert bool(loaded.part) == bool(part)
    counters = 14 if wrapping == "without counters" else 0
    assert (loaded.tensors, loaded.total) == (len(BODY) - counters, len(STATE))
    assert f"loaded {loaded.tensors} of {loaded.total} tensors from {path}" in loaded.describe()
    assert "the classifier starts at random" in loaded.describe()


def test_the_children_of_a_network_in_a_sequence(tmp_path: Path) -> None:
    """As `nn.Sequential(*list(resnet.children())[:-1])`, a common way to cut off the head."""
    encoder = nn.Sequential(*list(network(1).children())[:-1])
    torch.save({"state_dict": prefixed("encoder.", dict(encoder.state_dict()))}, tmp_path / "u.pth")
    state, _ = load(tmp_path / "u.pth")
    assert all(torch.equal(state[name], STATE[name]) for name in BODY)


def test_safetensors_with_a_prefix(tmp_path: Path) -> None:
    save_file(prefixed("model.", STATE), tmp_path / "u.safetensors")
    state, loaded = load(tmp_path / "u.safetensors")
    assert all(torch.equal(state[name], STATE[name]) for name in BODY)
    assert loaded.part == "model"


@pytest.mark.parametrize("name", ["u.pth", "u.SAFETENSORS", "u.bin"])
def test_safetensors_are_known_by_their_content(name: str, tmp_path: Path) -> None:
    save_file(STATE, tmp_path / name, metadata={"format": "pt"})
    assert torch.equal(load(tmp_path / name)[0][BODY[0]], STATE[BODY[0]])
    torch.save(STATE, tmp_path / "u.safetensors")
    assert torch.equal(load(tmp_path / "u.safetensors")[0][BODY[0]], STATE[BODY[0]])


def test_a_path_may_start_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(STATE, tmp_path / "u.pth")
    _, loaded = load(Path("~/u.pth"))
    assert loaded.tensors == len(BODY)


def test_a_classifier_of_the_same_width_is_loaded_and_named(tmp_path: Path) -> None:
    torch.save({"model": STATE}, tmp_path / "u.pth")
    state, loaded = load(tmp_path / "u.pth", num_classes=9)
    assert all(torch.equal(state[name], STATE[name]) for name in STATE)
    assert (loaded.tensors, loaded.head) == (len(STATE), True)
    assert "classifier included" in loaded.describe()


def test_other_tensors_of_the_file_are_counted(tmp_path: Path) -> None:
    torch.save({"model": STATE, "queue": torch.ones(2), "ptr": torch.ones(1)}, tmp_path / "u.pth")
    _, loaded = load(tmp_path / "u.pth")
    assert "; 2 other tensors in the file not used" in loaded.describe()


def without(name: str) -> State:
    return {key: value for key, value in STATE.items() if key != name}


FAULTY: dict[str, tuple[Callable[[], Mapping[str, Any]], list[str]]] = {
    "another network": (
        lambda: timm.create_model("resnet18").state_dict(),
        [
            "53 of 84 tensors outside the head match",
            "23 missing in the file: conv1.0.weight, conv1.1.weight",
            "64 not in the model: conv1.weight, layer1.1.conv1.weight",
            "3 of another shape: layer2.0.downsample.1.weight (128 in the file, 128x64x1x1 in",
        ],
    ),
    "a missing tensor": (
        lambda: {"state_dict": without("layer3.0.conv2.weight")},
        ["83 of 84", "under 'state_dict'", "1 missing in the file: layer3.0.conv2.weight"],
    ),
    "an unexpected tensor": (
        lambda: STATE | {"attention.weight": torch.ones(2)},
        ["84 of 84", "1 not in the model: attention.weight"],
    ),
    "one channel": (
        lambda: STATE | {"conv1.0.weight": torch.ones(24, 1, 3, 3)},
        ["1 of another shape: conv1.0.weight (24x1x3x3 in the file, 24x3x3x3 in the model)"],
    ),
    "a prefix on half of them": (
        lambda: {(f"a.{k}" if n % 2 else f"b.{k}"): v for n, (k, v) in enumerate(STATE.items())},
        ["0 of 84 tensors"],
    ),
    "no tensors": (lambda: {"epoch": 3}, ["0 of 84 tensors"]),
    "integers": (
        lambda: {name: (100 * value).to(torch.int8) for name, value in STATE.items()},
        ["70 not finite floating-point numbers: conv1.0.weight, conv1.1.weight"],
    ),
    "complex numbers": (
        lambda: {name: value.to(torch.complex64) for name, value in STATE.items()},
        ["84 not finite floating-point numbers: conv1.0.weight"],
    ),
    "no values": (
        lambda: {name: value.to("meta") for name, value in STATE.items()},
        ["70 not finite floating-point numbers: conv1.0.weight"],
    ),
    "an average of NaN": (
        lambda: {"model": STATE, "ema": {name: value * torch.nan for name, value in STATE.items()}},
        ["under 'ema'", "70 not finite floating-point numbers: conv1.0.weight"],
    ),
    "NaN": (
        lambda: STATE | {"conv1.1.weight": torch.full((24,), float("nan"))},
        ["1 not finite floating-point numbers: conv1.1.weight"],
    ),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_what_stays_unloaded_is_an_error_that_names_it(fault: str, tmp_path: Path) -> None:
    make, parts = FAULTY[fault]
    torch.save(make(), tmp_path / "u.pth")
    with pytest.raises(UserError) as caught:
        load(tmp_path / "u.pth")
    assert f"u.pth does not hold weights of model.name={NAME}" in str(caught.value)
    for part in parts:
        assert part in str(caught.value)
    assert len(str(caught.value)) < 1200


def test_a_head_of_nan_is_not_loaded(tmp_path: Path) -> None:
    head = {name: value * torch.nan for name, value in STATE.items() if name not in BODY}
    torch.save(STATE | head, tmp_path / "u.pth")
    state, loaded = load(tmp_path / "u.pth", num_classes=9)
    assert "the classifier starts at random" in loaded.describe()
    assert all(bool(value.isfinite().all()) for value in state.values())


def test_two_different_networks_in_one_file_are_ambiguous(tmp_path: Path) -> None:
    torch.save({"first": STATE, "second": OTHER}, tmp_path / "u.pth")
    with pytest.raises(UserError, match=r"several different networks.*'first', 'second'"):
        load(tmp_path / "u.pth")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("u.pth", {"model": print}, "it holds the Python object"),
        ("u.pth", {"losses": defaultdict(list, a=[1])}, "the Python object collections.defaultd"),
        # Its constructor takes any address in memory.
        ("u.pth", STATE | {"scores": np.ones(3, np.float32)}, "the Python object numpy"),
        ("u.pth", b"\x80 no weights", ""),
        ("u.pth", b"", "it is empty"),
        ("u.pth", b"version https://git-lfs", "it begins with b'version h'"),
        ("u.safetensors", b"\x80 no weights", ""),
    ],
)
def test_a_file_that_is_not_weights(name: str, content: Any, reason: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=f"{name} could not be read as weights .*{reason}"):
        load(path)


def torchvision_network(name: str) -> nn.Module:
    """With statistics of its batch normalizations, which any trained network has."""
    torch.manual_seed(3)
    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=7)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "densenet121",
        "efficientnet_b0",
        pytest.param("convnext_tiny", marks=pytest.mark.slow),
        pytest.param("vgg11_bn", marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("quick_weights")
def test_weights_of_torchvision_give_the_same_logits(name: str, tmp_path: Path) -> None:
    twin = torchvision_network(name)
    torch.save({"model": twin.state_dict()}, tmp_path / "u.pth")
    model = timm_backbone(name, 7, weights=str(tmp_path / "u.pth")).eval()
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(model(images), twin(images), rtol=1e-3, atol=1e-4)
    loaded = timm_backbone(name, 2, weights=str(tmp_path / "u.pth")).loaded_weights
    assert isinstance(loaded, LoadedWeights)
    assert not loaded.head


def test_the_densenet_of_chexnet_under_its_old_names(tmp_path: Path) -> None:
    state = torchvision_network("densenet121").state_dict()
    old = {
        f"module.densenet121.{key}"
        .replace("norm1.", "norm.1.").replace("norm2.", "norm.2.")
        .replace("conv1.", "conv.1.").replace("conv2.", "conv.2."): value
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }  # fmt: skip
    assert "module.densenet121.features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save({"state_dict": old}, tmp_path / "u.pth")
    loaded, _ = load(tmp_path / "u.pth", name="densenet121")
    for key, value in state.items():
        if not key.startswith("classifier.") and not key.endswith("num_batches_tracked"):
            assert torch.equal(loaded[key], value), key


def test_a_network_that_computes_otherwise_is_refused_though_order_and_shapes_fit(
    tmp_path: Path,
) -> None:
    """timm's `tf_` networks pad on one side: the same tensors give other logits."""
    torch.save(torchvision_network("efficientnet_b0").state_dict(), tmp_path / "u.pth")
    with pytest.raises(UserError, match=r"does not hold weights of model\.name=tf_efficientnet_b0"):
        timm_backbone("tf_efficientnet_b0", 6, weights=str(tmp_path / "u.pth"))


def test_loading_draws_no_random_number_more_than_a_random_start(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "u.pth")
    torch.manual_seed(0)
    timm_backbone(NAME, 6, pretrained=False)
    expected = torch.rand(1)
    torch.manual_seed(0)
    timm_backbone(NAME, 6, weights=str(tmp_path / "u.pth"))
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"cut off", "could not be read as weights"),
        (b"", "could not be read as weights"),
        ({"state_dict": STATE, "hyper_parameters": {"loss": nn.ReLU()}}, "the Python object"),
        ([STATE], "does not hold weights"),
    ],
)
def test_a_checkpoint_of_another_project_that_cannot_be_read(
    content: Any, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "u.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=rf"u\.ckpt .*{reason}"):
        load(path)


@pytest.mark.parametrize(
    "parameters", [None, {}, {"classes": 14}, argparse.Namespace(lr=0.1), {"classes": [0, 1]}, "x"]
)
def test_hyper_parameters_of_another_project_do_not_matter(parameters: Any, tmp_path: Path) -> None:
    content = {"state_dict": prefixed("model.", STATE), "hyper_parameters": parameters}
    torch.save(content, tmp_path / "u.ckpt")
    state, _ = load(tmp_path / "u.ckpt")
    assert all(torch.equal(state[name], STATE[name]) for name in BODY)


def test_a_checkpoint_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have gigabytes, and its classes are checked as well."""
    torch.save(
        {"state_dict": prefixed("model.", STATE), "hyper_parameters": {}}, tmp_path / "u.ckpt"
    )
    reads = []
    read = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: reads.append(a) or read(*a, **k))
    load(tmp_path / "u.ckpt")
    assert len(reads) == 1
