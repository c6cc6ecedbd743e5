"""Pretrained weights from a local file, whatever wraps them: the whole backbone, or an error.

A file of weights maps names to tensors, often inside other mappings (`model_state_dict`,
`state_dict_ema`, a Lightning checkpoint) and under a prefix (`module.`, `encoder_q.`, `backbone.`).
Wrappers and prefixes are alike: both come before the names that the backbone uses. The part of the
file that has every tensor of the backbone is loaded. Only the head may differ: a classifier of
another width, or an absent one, starts at random.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PosixPath
from types import SimpleNamespace
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from fracnet.utils.errors import UserError
from fracnet.utils.text import counted

State = dict[str, Tensor]

AVERAGED = re.compile(r"(?:^|[._])(?:averaged|ema|shadow|swa|teacher)(?:[._]|$)")
"""Names of parts of a file that hold averaged weights, which are preferred."""
MOMENTUM = {
    "backbone_momentum", "current_model_state", "encoder_k", "encoder_momentum", "key_encoder",
    "momentum_encoder", "target_encoder", "target_model", "target_network",
}  # fmt: skip
"""Parts with the slow copy of a contrastive method, or with weights that `state_dict` holds
averaged, loaded where nothing else fits."""
OTHER_HEADS = {
    "classifier", "fc", "head", "last_linear", "predictor", "projection_head", "projector",
}  # fmt: skip
"""Usual names of a head beside a network whose own has another name."""
# Names that torch.compile, FSDP and activation checkpointing put between others.
WRAPPERS = re.compile(r"\b(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# Densenets of torchvision before 2018, and networks that were made from them.
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
COUNTER = "num_batches_tracked"  # of a batch normalization; files before torch 0.4.1 have none
COMPARED_SIZE = 224  # pixels at which two implementations of a network are compared
LISTED = 4  # names of each kind in an error


@dataclass(frozen=True)
class LoadedWeights:
    """What a file gave a backbone.

    tensors: how many of the backbone's `total` were loaded. part: what stood before their names in
    the file, such as `model_state_dict.module`; "" for nothing. head: whether the classifier is
    among them. unused: tensors in other parts of the file.
    """

    file: str
    tensors: int
    total: int
    part: str
    head: bool
    unused: int

    def describe(self) -> str:
        """One line for the header of a run and its model card."""
        part = f" ({self.part})" if self.part else ""
        head = "classifier included" if self.head else "the classifier starts at random"
        unused = f"; {counted(self.unused, 'other tensor')} in the file not used"
        return (
            f"loaded {self.tensors} of {counted(self.total, 'tensor')} from {self.file}{part}, "
            f"{head}{unused if self.unused else ''}"
        )


@dataclass(frozen=True)
class _Fit:
    """A part of a file compared with a network: the names that keep it from being loaded."""

    part: str
    state: State
    missing: list[str]
    unexpected: list[str]
    reshaped: list[str]
    unusable: list[str]
    matched: int

    @property
    def complete(self) -> bool:
        return not (self.missing or self.unexpected or self.reshaped)

    @property
    def rank(self) -> int:
        """The lowest is preferred."""
        slow = MOMENTUM & set(self.part.split("."))
        return 2 if slow else 0 if AVERAGED.search(self.part) else 1


def load_weights(
    model: nn.Module, content: Any, path: Path, name: str, heads: Sequence[str]
) -> LoadedWeights:
    """Load the content of a file of weights into a timm model, in place.

    content: what `read_content` gave. path: of the file, for messages. name: timm's name of the
    model, for messages and to find its twin in torchvision. heads: the names of the head's layers
    in the model. Raises UserError for a file that does not hold this network, or several different
    ones.
    """
    # Every tensor under its dotted name, e.g. `model_state_dict.module.conv1.weight`.
    stored = {WRAPPERS.sub("", key): value for key, value in _tensors(content, "")}
    own = model.state_dict()
    body = {key: value for key, value in own.items() if not _is_head(key, heads)}
    parts = list(_parts(stored, sum(not key.endswith(COUNTER) for key in body)))
    fits = [_fit(part, state, model, body, name, heads) for part, state in parts]
    complete = sorted((fit for fit in fits if fit.complete), key=lambda fit: fit.rank)
    if not complete:
        fits = fits or [_compare("", stored, body, heads)]
        raise UserError(_mismatch(max(fits, key=lambda fit: fit.matched), path, name, len(body)))
    chosen = complete[0]
    if chosen.unusable:
        raise UserError(_mismatch(chosen, path, name, len(body)))
    rivals = [fit for fit in complete[1:] if fit.rank == chosen.rank and not _equal(fit, chosen)]
    if rivals:
        names = ", ".join(repr(fit.part) for fit in (chosen, *rivals)[:LISTED])
        raise UserError(
            f"model.weights={path} holds several different networks that fit model.name={name} "
            f"({names}); allowed: a file with one of them."
        )
    head = {key: value for key, value in chosen.state.items() if _is_head(key, heads)}
    with_head = _shapes(head) == _shapes({key: own[key] for key in own.keys() - body.keys()})
    with_head = with_head and all(_is_usable(value, own[key]) for key, value in head.items())
    loaded = {
        key: value
        for key, value in chosen.state.items()
        if key in own and (with_head or key not in head)
    }
    model.load_state_dict(own | loaded)
    return LoadedWeights(
        file=str(path),
        tensors=len(loaded),
        total=len(own),
        part=chosen.part,
        head=with_head,
        unused=max(0, len(stored) - sum(key in own for key in chosen.state)),
    )


def read_content(path: Path) -> Any:
    """Tensors and plain values, as a file of weights holds them.

    path: written by torch.save (.pth, .pt, .bin, .ckpt), or a .safetensors file. Raises UserError
    for a file that cannot be read, or with objects that are no plain values.
    """
    scalar = np.float64(0.0).__reduce__()[0]
    # What training scripts save besides the weights: their options, dates and best scores.
    harmless: list[Any] = [argparse.Namespace, SimpleNamespace, PosixPath, datetime]
    # No arrays: a file could call numpy.ndarray with an address of its own.
    harmless += [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype]
    harmless += [type(np.dtype(kind)) for kind in ("?", "u1", "i2", "i4", "i8", "f2", "f4", "f8")]
    try:
        with path.open("rb") as file:
            start = file.read(9)
        if start[8:] == b"{":
            return load_file(path)
        if not start.startswith((b"PK", b"\x80")):
            raise ValueError(f"it begins with {start!r}" if start else "it is empty")
        # As an open file: torch would take a name that ends in .safetensors at its word.
        with torch.serialization.safe_globals(harmless), path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    # Which errors a damaged or foreign file raises depends on torch's version.
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        program = re.search(r"(?:GLOBAL|but got <class) '?([\w.]+)", str(error))
        reason = f"it holds the Python object {program[1]}" if program else lines[0][:200]
        raise UserError(
            f"model.weights={path} could not be read as weights ({reason}); allowed: a "
            "file that torch.save(model.state_dict(), path) wrote, or a .safetensors file."
        ) from error


def _tensors(content: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield name, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))


def _parts(stored: State, at_least: int) -> Iterator[tuple[str, State]]:
    """Each prefix that stands before at least so many names, with the tensors behind it."""
    prefixes = Counter[str]()
    for name in stored:
        pieces = name.split(".")
        prefixes.update(".".join(pieces[:n]) for n in range(len(pieces)))
    for prefix, n in prefixes.items():
        if n >= at_least:
            start = f"{prefix}." if prefix else ""
            names = [name for name in stored if name.startswith(start)]
            yield prefix, {name.removeprefix(start): stored[name] for name in names}


def _fit(
    part: str, state: State, model: nn.Module, body: State, name: str, heads: Sequence[str]
) -> _Fit:
    """The spelling of the part's names that fits the network best; the first complete one."""
    best = _compare(part, state, body, heads)
    for spelling in _spellings(state, model, name):
        if best.complete:
            break
        best = max(best, _compare(part, spelling, body, heads), key=lambda fit: fit.matched)
    return best


def _spellings(state: State, model: nn.Module, name: str) -> Iterator[State]:
    """The same tensors under the names that timm would give them, where others are known."""
    yield {OLD_DENSENET.sub(r"\1\2.", key): value for key, value in state.items()}
    if all(key[0].isdigit() for key in state):  # an nn.Sequential of the network's children
        children = [child for child, _ in model.named_children()]
        pieces = {key: key.split(".", 1) for key in state}
        if all(int(first) < len(children) for first, *_ in pieces.values() if first.isdigit()):
            yield {
                ".".join((children[int(pieces[key][0])], *pieces[key][1:])): value
                for key, value in state.items()
            }
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        # timm expects the original file of that architecture, which this may not be.
        faults = KeyError, IndexError, ValueError, RuntimeError, AttributeError, AssertionError
        with suppress(*faults):
            converted = dict(convert(dict(state), model))
            yield converted
    yield from _from_torchvision(state, name)


def _from_torchvision(state: State, name: str) -> Iterator[State]:
    """The tensors of torchvision's network of the same name, in the order of timm's.

    Order and shapes alone prove nothing: both networks must give the same logits.
    """
    base = name.split(".")[0]
    bias = list(state.values())[-1]
    if base not in torchvision.models.list_models() or bias.ndim != 1:
        return
    with torch.random.fork_rng(devices=[]):
        n_classes = len(bias)
        with torch.device("meta"):
            twin = torchvision.models.get_model(base, weights=None, num_classes=n_classes)
        expected = twin.state_dict()
        counters = {key for key in expected if key.endswith(COUNTER)}
        ordered = {key: state.get(key, torch.tensor(0)) for key in expected}
        if state.keys() | counters != expected.keys() or _shapes(ordered) != _shapes(expected):
            return
        twin.load_state_dict(ordered, assign=True)
        model = timm.create_model(name, pretrained=False, num_classes=n_classes)
        own = model.state_dict()
        if [v.numel() for v in own.values()] != [v.numel() for v in ordered.values()]:
            return
        pairs = zip(own.items(), ordered.values(), strict=True)
        renamed = {key: value.reshape(target.shape) for (key, target), value in pairs}
        model.load_state_dict(renamed)
        images = torch.randn(1, 3, COMPARED_SIZE, COMPARED_SIZE)
        with torch.inference_mode():
            logits, others = model.eval()(images), twin.float().eval()(images)
        if torch.allclose(logits, others, rtol=1e-3, atol=1e-3 * float(others.abs().max())):
            yield renamed


def _compare(part: str, state: State, body: State, heads: Sequence[str]) -> _Fit:
    """Compare the names and shapes of a part of the file with the backbone without its head."""
    same = [key for key in body if key in state and state[key].shape == body[key].shape]
    others = OTHER_HEADS - {key.partition(".")[0] for key in body}
    fit = _Fit(
        part=part,
        state=state,
        missing=[k for k in body if k not in state and not k.endswith(COUNTER)],
        unexpected=[
            key
            for key in state
            if not (key in body or _is_head(key, heads) or key.partition(".")[0] in others)
        ],
        reshaped=[
            f"{key} ({_size(state[key])} in the file, {_size(body[key])} in the model)"
            for key in body
            if key in state and state[key].shape != body[key].shape
        ],
        unusable=[],
        matched=len(same),
    )
    # Only now: it takes a second for a large network, and most names that are tried do not fit.
    if not fit.complete:
        return fit
    return replace(fit, unusable=[key for key in same if not _is_usable(state[key], body[key])])


def _is_usable(stored: Tensor, own: Tensor) -> bool:
    """Whether a tensor holds real numbers for the other: floating-point and finite, or counts."""
    if not own.is_floating_point():
        return not stored.is_complex()
    floats = stored.is_floating_point() and stored.device.type != "meta"
    return floats and bool(stored.to_dense().isfinite().all())


def _is_head(name: str, heads: Sequence[str]) -> bool:
    return any(name.startswith(f"{head}.") for head in heads)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _equal(left: _Fit, right: _Fit) -> bool:
    """Whether two parts of a file hold the same values under the same names."""
    return left.state.keys() == right.state.keys() and all(
        value.shape == right.state[key].shape
        and bool((value.double() == right.state[key].double()).all())
        for key, value in left.state.items()
    )


def _mismatch(fit: _Fit, path: Path, name: str, total: int) -> str:
    lists = {
        "missing in the file": fit.missing,
        "not in the model": fit.unexpected,
        "of another shape": fit.reshaped,
        "not finite floating-point numbers": fit.unusable,
    }
    details = [
        f"{len(names)} {kind}: {', '.join(names[:LISTED])}{', ...' if len(names) > LISTED else ''}"
        for kind, names in lists.items()
        if names
    ]
    under = f" under '{fit.part}'" if fit.part else ""
    return (
        f"model.weights={path} does not hold weights of model.name={name}: {fit.matched} of "
        f"{counted(total, 'tensor')} outside the head match{under}; {'; '.join(details)}. "
        "Allowed: weights of that architecture, whose head alone may differ."
    )
