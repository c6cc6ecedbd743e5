"""Where a backbone ends and its head begins, and other heads in the place of its own.

A head maps features to logits. All heads are parts of the network, so checkpoints, heatmaps and
export need not know them. `linear` and `mlp` are trained by gradient; `logistic` and `knn` are
fitted to the features of a frozen network.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fracnet.utils.errors import UserError

FITTED = ("logistic", "knn")
"""Heads that are fitted to features in one go; the others train by gradient."""
TEMPERATURE = 0.07
"""Of the similarities of neighbors, as in Z. Wu et al. 2018, Unsupervised feature learning via
non-parametric instance discrimination, CVPR."""
SMOOTHING = 1e-3  # share of the votes that all classes have in common, so that none gets 0


def find_heads(model: nn.Module, key: str) -> list[nn.Module]:
    """The layers that map features to logits: nearly always one linear layer.

    One that `set_head` has put there; else a timm model names them (`get_classifier`), and in any
    other class it is the last `nn.Linear` in the order of creation.
    Raises UserError, which names the config key that needs it, where there is none.
    """
    for layer in model.modules():
        if isinstance(layer, MlpHead | KnnHead):
            return [layer]
    get_classifier = getattr(model, "get_classifier", None)
    if callable(get_classifier):
        classifier = get_classifier()
        # Distilled transformers have two.
        heads = list(classifier) if isinstance(classifier, tuple | list) else [classifier]
    else:
        heads = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1:]
    if not any(True for head in heads for _ in head.parameters()):
        raise UserError(
            f"{key} needs the model's head, but {type(model).__name__} has no nn.Linear and no "
            "get_classifier(); leave that key at its default for this model."
        )
    return heads


class DropoutLinear(nn.Linear):
    """A linear layer with dropout before it; its weights keep their names in a checkpoint."""

    def __init__(self, linear: nn.Linear, dropout: float) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None)
        self.weight, self.bias = linear.weight, linear.bias
        self.dropout = dropout

    def forward(self, features: Tensor) -> Tensor:
        """Logits [N, C] of features [N, F]."""
        return super().forward(functional.dropout(features, self.dropout, self.training))

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        return f"{super().extra_repr()}, dropout={self.dropout}"


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child is old:
                setattr(parent, name, new)


class MlpHead(nn.Sequential):
    """Maps features [N, F] to logits [N, C] through one hidden layer."""

    def __init__(self, linear: nn.Linear, hidden: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(linear.in_features, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, linear.out_features),
        )


class KnnHead(nn.Module):
    """Logits [N, C] of features [N, F]: logs of the votes of the most similar training images.

    The K neighbors by cosine similarity s vote with weights exp(s / `TEMPERATURE`).
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        n, classes = 1, linear.out_features
        self.register_buffer("features", torch.zeros(n, linear.in_features))
        self.register_buffer("votes", torch.full((n, classes), 1 / classes))
        self.register_buffer("neighbors", torch.ones((), dtype=torch.int64))
        self.features: Tensor
        self.votes: Tensor
        self.neighbors: Tensor

    def forward(self, features: Tensor) -> Tensor:
        """Logits float32 [N, C]."""
        similar = functional.normalize(features.float(), dim=1) @ self.features.T
        nearest = similar.topk(int(self.neighbors), dim=1)
        # Relative to the nearest one: exponentials of the similarities themselves overflow.
        weights = ((nearest.values - nearest.values[:, :1]) / TEMPERATURE).exp()[..., None]
        votes = (weights * self.votes[nearest.indices]).sum(dim=1)
        share = votes / votes.sum(dim=1, keepdim=True)
        return ((1 - SMOOTHING) * share + SMOOTHING / share.shape[1]).log()

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        """A checkpoint has as many training images as it was fitted to."""
        for name in ("features", "votes"):
            stored = state_dict.get(f"{prefix}{name}")
            if isinstance(stored, Tensor):
                setattr(self, name, torch.zeros_like(stored))
        super()._load_from_state_dict(state_dict, prefix, *args)


def set_head(model: nn.Module, node: Mapping[str, Any], num_classes: int) -> None:
    """Give a backbone the pooling and the head of a config's model node, in place.

    Raises UserError where the backbone has no such pooling, or another head than a linear layer.
    """
    if node.get("pool", "default") != "default":
        _pool_by_average_and_maximum(model, num_classes)
    kind, dropout = node.get("head", "linear"), float(node.get("head_dropout", 0.0))
    if kind == "linear" and not dropout:
        return
    key = f"model.head_dropout={dropout}" if kind == "linear" else f"model.head={kind}"
    heads = find_heads(model, key)
    other = next((head for head in heads if type(head) is not nn.Linear), None)
    if other is not None or (len(heads) > 1 and kind != "linear"):
        raise UserError(
            f"{key} needs one linear layer as the head of {type(model).__name__}, which has "
            f"{len(heads) if other is None else f'a {type(other).__name__}'}; allowed: "
            "model.head=linear model.head_dropout=0."
        )
    for head in heads:
        assert isinstance(head, nn.Linear)
        if kind == "mlp":
            _replace(model, head, MlpHead(head, int(node.get("head_hidden", 256)), dropout))
        elif kind == "knn":
            _replace(model, head, KnnHead(head))
        elif kind == "linear":
            _replace(model, head, DropoutLinear(head, dropout))


def _pool_by_average_and_maximum(model: nn.Module, num_classes: int) -> None:
    reset: Any = getattr(model, "reset_classifier", None)
    refusal = UserError(
        f"model.pool=avgmax: {type(model).__name__} has no such pooling; allowed with it: "
        "model.pool=default. Most convolutional timm networks have it."
    )
    if reset is None:
        raise refusal
    try:
        reset(num_classes, "catavgmax")
    # Each architecture rejects a pooling in its own way.
    except Exception as error:
        raise refusal from error
    for head in find_heads(model, "model.pool"):
        if type(head) is nn.Linear:  # timm scales an EfficientNet's by its number of classes
            head.reset_parameters()
