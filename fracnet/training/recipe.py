"""What is not as by default in how a network is trained, in words."""

from fracnet.config import Config
from fracnet.models.heads import find_heads
from fracnet.models.module import Classifier
from fracnet.words import counted

CROSS_ENTROPY = "fracnet.models.losses.CrossEntropy"
NAMES = {CROSS_ENTROPY: "cross-entropy", "fracnet.models.losses.Focal": "focal"}


def recipe(config: Config, model: Classifier) -> list[str]:
    """What is not as by default in how the model is trained, a line each."""
    lines = []
    freeze, optim, loss = config.model.freeze, config.optim, config.loss
    if freeze != "none":
        head = find_heads(model.backbone, "model.freeze")
        n = sum(weight.numel() for layer in head for weight in layer.parameters())
        when = "" if freeze == "backbone" else f" for {counted(int(freeze), 'epoch')}"
        lines.append(f"backbone frozen{when}: only the head's {n:,} parameters are trained")
    if config.model.head_dropout:
        lines.append(f"dropout of {config.model.head_dropout} before the head")
    if optim.backbone_lr_factor != 1:
        rate = optim.lr * optim.backbone_lr_factor
        lines.append(f"learning rate {optim.lr:g} for the head, {rate:g} for the backbone")
    if optim.l1:
        lines.append(f"L1 penalty of {optim.l1:g} on the weights, part of the training loss")
    arguments = {k: v for k, v in loss.plain().items() if k != "_target_"}
    if loss.target != CROSS_ENTROPY or any(arguments.values()):
        name = NAMES.get(loss.target, loss.target)
        given = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in arguments.items() if v)
        lines.append(f"training loss: {name}{f' ({given})' if given else ''}")
    if config.callbacks.ema is not None:
        lines.append(f"weights averaged over the steps, decay {config.callbacks.ema.decay:g}")
    return lines
