"""Where a backbone ends and its head begins."""

from torch import Tensor, nn
from torch.nn import functional

from fracnet.errors import UserError


def find_heads(model: nn.Module, key: str) -> list[nn.Module]:
    """The layers that make logits of features: nearly always one linear layer.

    A timm model is asked (`get_classifier`); of any other class it is the last `nn.Linear` in
    the order in which its layers were made.

    Args:
        model: maps images to logits.
        key: the config key that needs to know, for the message.

    Raises:
        UserError: there is no such layer.
    """
    ask = getattr(model, "get_classifier", None)
    if callable(ask):
        found = ask()
        # Distilled transformers have two.
        heads = list(found) if isinstance(found, tuple | list) else [found]
    else:
        heads = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1:]
    if not any(True for head in heads for _ in head.parameters()):
        raise UserError(
            f"{key} needs to know the head, but {type(model).__name__} has no nn.Linear and no "
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
        """What `print(model)` adds."""
        return f"{super().extra_repr()}, dropout={self.dropout}"


def add_head_dropout(model: nn.Module, dropout: float) -> None:
    """Put dropout before the head, in place, besides what the model has of its own.

    Raises:
        UserError: the head is not a linear layer.
    """
    key = f"model.head_dropout={dropout}"
    for head in find_heads(model, key):
        if type(head) is not nn.Linear:
            raise UserError(
                f"{key}: the head of {type(model).__name__} is a {type(head).__name__}; "
                "allowed: a model whose head is an nn.Linear."
            )
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if child is head:
                    setattr(parent, name, DropoutLinear(head, dropout))
