"""What a training config may hold as a whole, checked before anything heavy is imported.

The YAML files under conf/ give the defaults; this page and `fracnet.groups` give what is allowed.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from fracnet.errors import UserError
from fracnet.explain_options import Explain
from fracnet.groups import (
    Augment,
    Callbacks,
    Cited,
    Data,
    Enhance,
    Fixed,
    Imbalance,
    Loss,
    Metric,
    Model,
    Optim,
    Scheduler,
    Trainer,
    no_fraction,
)
from fracnet.logger_options import Logger
from fracnet.options import Evaluation, Report

Checked = TypeVar("Checked", bound=BaseModel)


class Config(Fixed):
    """A whole training run."""

    seed: Annotated[int, BeforeValidator(no_fraction), Field(ge=0, lt=2**32)]
    image_size: Annotated[int, BeforeValidator(no_fraction), Field(ge=16, le=2048)]
    objective: Metric
    show_test: Literal["best", "all"] = "best"
    sweep: str | None = None
    cited: list[Cited] = Field(default_factory=list)
    resume: str | None = None
    data_dir: str
    data: Data
    model: Model
    enhance: Enhance
    augment: Augment
    imbalance: Imbalance
    optim: Optim
    loss: Loss
    scheduler: Scheduler | None
    callbacks: Callbacks
    logger: Logger
    trainer: Trainer
    evaluation: Evaluation = Field(default_factory=Evaluation)  # runs of before it had the node
    explain: Explain | None = None  # likewise
    report: Report = Field(default_factory=Report)  # likewise


def reason(kind: str, message: str) -> str:
    """pydantic's message as the rest of a sentence."""
    if kind == "extra_forbidden":
        return "there is no such key"
    if kind in ("literal_error", "enum"):
        listed = message.removeprefix("Input should be ").replace(" or ", ", ")
        return f"allowed: {listed}".replace("'", "")
    message = message.removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def refusal(what: str, kind: str, message: str) -> str:
    """The sentence that refuses `what`, a key with its value, for pydantic's reason."""
    why = reason(kind, message)
    return f"{what} is not allowed{';' if why.startswith('allowed:') else ':'} {why}."


def check(plain: Mapping[str, Any]) -> Config:
    """Turn a resolved config into a typed one.

    Raises:
        UserError: one sentence for each fault, with key, value and what is allowed.
    """
    config = validated(Config, plain)
    _check_freeze(config)
    _check_imbalance(config)
    return config


def validated(model: type[Checked], plain: Mapping[str, Any], under: str = "") -> Checked:
    """Turn a resolved mapping into `model`; `under` is where it stands in the config.

    Raises:
        UserError: one sentence for each fault, with key, value and what is allowed.
    """
    try:
        return model.model_validate(plain)
    except ValidationError as error:
        faults = []
        for fault in error.errors(include_url=False):
            key = ".".join(str(part) for part in (under, *fault["loc"]) if part != "")
            value = "" if fault["type"] == "missing" else f"={fault['input']}"
            faults.append(refusal(f"{key}{value}", fault["type"], fault["msg"]))
        raise UserError(" ".join(faults)) from error


def _check_imbalance(config: Config) -> None:
    method = config.imbalance.method
    if config.model.fit == "classical" and method not in ("none", "class_weights"):
        raise UserError(
            f"imbalance.method={method} chooses or changes the images of epochs, which a model "
            "with fit=classical does not have; allowed with it: none, class_weights."
        )


def _check_freeze(config: Config) -> None:
    freeze, trainer = config.model.freeze, config.trainer
    if isinstance(freeze, str):
        return
    if freeze >= trainer.max_epochs:
        raise UserError(
            f"model.freeze={freeze} leaves none of trainer.max_epochs={trainer.max_epochs} to "
            "train the backbone; allowed: fewer epochs, or backbone to freeze it for good."
        )
    # Data-parallel training fixes at its start which gradients are summed over devices.
    if trainer.devices > 1:
        raise UserError(
            f"model.freeze={freeze} works on one device, not on trainer.devices="
            f"{trainer.devices}; allowed there: none, backbone."
        )
