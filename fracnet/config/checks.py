"""Turns a resolved config into a typed one, and checks which keys go together."""

from collections.abc import Mapping
from typing import Any, Literal

from fracnet.config.fields import (
    OVERALL_METRICS,
    POSITIVE_METRICS,
    mode,
    split_metric,
    validated,
)
from fracnet.config.schema import Config
from fracnet.utils.errors import UserError
from fracnet.utils.text import counted, near_miss


def check(plain: Mapping[str, Any]) -> Config:
    """Turn a resolved config into a typed one.

    Raises UserError with a sentence for each fault: key, value and what is allowed.
    """
    config = validated(Config, plain)
    _check_metrics(config)
    _check_freeze(config)
    _check_sizes(config)
    _check_head(config)
    _check_imbalance(config)
    _check_pruning(config)
    return config


def _check_metrics(config: Config) -> None:
    known = ("loss", *OVERALL_METRICS, *POSITIVE_METRICS)
    for name in config.metrics:
        if name in known or not name.isidentifier():
            raise UserError(
                f"metrics.{name}: allowed is a name of letters, digits and _ that is not one of "
                f"fracnet's own metrics ({', '.join(known)})."
            )
    for key, name in selecting_metrics(config).items():
        level, base = split_metric(name)
        if name in config.metrics or (base in known and (base != "loss" or level == "image")):
            continue
        allowed = [*known, *config.metrics]
        raise UserError(
            f"{key}={name} is not a known metric; allowed: {', '.join(allowed)}, of studies with "
            f"study_ before the name (study_kappa).{near_miss(base, allowed)}"
        )


def selecting_metrics(config: Config) -> dict[str, str]:
    """The validation metrics that choose something, by the key that names them."""
    chosen = {f"objective[{i}]" if i else "objective": m for i, m in enumerate(config.objectives)}
    if config.model.by_epochs:
        chosen["callbacks.best.metric"] = config.callbacks.best.metric
        if config.callbacks.early_stopping is not None:
            chosen["callbacks.early_stopping.metric"] = config.callbacks.early_stopping.metric
        if config.scheduler is not None and config.scheduler.monitor != "loss":
            chosen["scheduler.monitor"] = config.scheduler.monitor
    return chosen


def mode_of(config: Config, metric: str) -> Literal["min", "max"]:
    """Whether a smaller or a larger value of a metric, built in or the user's, is better."""
    return config.metrics[metric].mode if metric in config.metrics else mode(metric)


def _check_imbalance(config: Config) -> None:
    method = config.imbalance.method
    if not config.model.by_epochs and method not in ("none", "class_weights"):
        model = config.model
        which = "fit=classical" if model.fit == "classical" else f"head={model.head}"
        raise UserError(
            f"imbalance.method={method} chooses or changes the images of epochs, which a model "
            f"with {which} does not have; allowed with it: none, class_weights."
        )


def _check_pruning(config: Config) -> None:
    if config.pruning is not None and len(config.objectives) > 1:
        raise UserError(
            f"objective=[{','.join(config.objectives)}] names several metrics, and pruning goes by "
            "one: a job that loses in it may win in another. Allowed: pruning=none, or one "
            "objective."
        )


def _check_freeze(config: Config) -> None:
    freeze, trainer = config.model.freeze, config.trainer
    if config.augment.views and freeze == "none":
        raise UserError(
            f"augment.views={config.augment.views} are the fixed copies of an image that a frozen "
            "network sees, and model.freeze=none; allowed: model.freeze=backbone or a number of "
            "epochs, or augment.views=0."
        )
    of_images = config.imbalance.method == "augment_minority"
    if of_images and freeze != "none" and not config.augment.views:
        raise UserError(
            f"imbalance=augment_minority augments images, and model.freeze={freeze} trains on "
            "images as they are; allowed with it: augment.views=8 or another number of copies."
        )
    if isinstance(freeze, str):
        return
    if freeze >= trainer.max_epochs:
        raise UserError(
            f"model.freeze={freeze} leaves none of trainer.max_epochs={trainer.max_epochs} to "
            "train the backbone; allowed: fewer epochs, or backbone to freeze it for good."
        )
    # Data-parallel training fixes at its start which gradients are summed over devices.
    if trainer.processes > 1:
        raise UserError(
            f"model.freeze={freeze} works on one device, not on trainer.devices="
            f"{trainer.devices}; allowed there: none, backbone."
        )


def _check_sizes(config: Config) -> None:
    sizes, epochs = config.trainer.image_sizes, config.trainer.max_epochs
    if sizes is None:
        return
    listed = ",".join(map(str, sizes))
    if not sizes or max(sizes) > config.image_size:
        raise UserError(
            f"trainer.image_sizes=[{listed}]: allowed are sizes up to image_size="
            f"{config.image_size}, at which the model validates and predicts, or null."
        )
    freeze = config.model.freeze
    trained = 0 if freeze == "backbone" else epochs - (freeze if isinstance(freeze, int) else 0)
    if len(sizes) > trained:
        frozen = "" if freeze == "none" else f" and model.freeze={freeze}"
        raise UserError(
            f"trainer.image_sizes=[{listed}]: trainer.max_epochs={epochs}{frozen} leave "
            f"{counted(trained, 'epoch')} for {counted(len(sizes), 'size')}; allowed: at most one "
            "for each epoch, or null."
        )


def _check_head(config: Config) -> None:
    model = config.model
    if model.fit == "classical" and (model.head != "linear" or model.pool != "default"):
        raise UserError(
            f"model.head={model.head} and model.pool={model.pool} belong to a network, which "
            f"{model.target} is not; allowed: model.head=linear, model.pool=default."
        )
    if model.by_epochs or model.fit == "classical":
        return
    key = f"model.head={model.head}"
    if model.freeze != "backbone":
        raise UserError(
            f"{key} is fitted to the features of a frozen network, and model.freeze="
            f"{model.freeze}; allowed with it: model.freeze=backbone."
        )
    if model.head_dropout:
        raise UserError(
            f"{key} is not trained by gradient, so model.head_dropout={model.head_dropout} has no "
            "effect; allowed: 0, or model.head=mlp."
        )
    if config.pruning is not None:
        raise UserError(f"{key} has no epochs to prune; allowed with it: pruning=none.")
