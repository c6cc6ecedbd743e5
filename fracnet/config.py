"""What a training config may hold: types and ranges, checked before anything heavy is imported.

The YAML files under conf/ give the defaults; this page gives what is allowed. Groups that carry
a `_target_` (data, model, optim, scheduler) may have further keys: they are the arguments of
that class, which checks them itself.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fracnet.errors import UserError

Metric = Literal["loss", "accuracy", "macro_sensitivity", "macro_specificity", "macro_auc"]


def _no_fraction(value: Any) -> Any:
    """A boolean is an integer to Python, but not to a person who sets a number."""
    if isinstance(value, bool):
        raise ValueError("a number is needed, not true or false")
    return value


Count = Annotated[int, BeforeValidator(_no_fraction), Field(ge=1)]
Real = Annotated[float, BeforeValidator(_no_fraction), Field(allow_inf_nan=False)]


class _Fixed(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class _Target(BaseModel):
    model_config = ConfigDict(extra="allow", protected_namespaces=(), populate_by_name=True)
    target: str = Field(alias="_target_", min_length=1)

    def plain(self) -> dict[str, Any]:
        """The node as a plain dict, ready for `fracnet.objects.build`."""
        return self.model_dump(by_alias=True, exclude_unset=True)


class Data(_Target):
    """A source of images: where the files lie and what to do with faulty ones."""

    root: str = Field(min_length=1)
    on_bad_file: Literal["error", "skip"]
    batch_size: Count
    num_workers: Annotated[int, BeforeValidator(_no_fraction), Field(ge=0, le=256)]

    def source(self) -> dict[str, Any]:
        """What the source itself takes."""
        return {k: v for k, v in self.plain().items() if k not in ("batch_size", "num_workers")}


class Model(_Target):
    """A backbone and how grey values reach it."""

    normalise: Literal["weights", "imagenet", "half"] = "weights"


class Optim(_Target):
    """Arguments of a torch optimiser."""

    lr: Annotated[Real, Field(gt=0)]
    weight_decay: Annotated[Real, Field(ge=0)] = 0.0


class Scheduler(_Target):
    """Arguments of a torch learning-rate scheduler, stepped once an epoch."""


class Enhance(_Fixed):
    """Deterministic steps before the cache, in order."""

    steps: list[dict[str, Any]]


class Augment(_Fixed):
    """Random transforms after the cache, in order."""

    transforms: list[dict[str, Any]]


class Selection(_Fixed):
    """Which validation figure chooses the checkpoint."""

    metric: Metric


class EarlyStopping(_Fixed):
    """Stop after `patience` epochs without a better validation figure."""

    metric: Metric
    patience: Count


class Callbacks(_Fixed):
    """What watches a fit."""

    best: Selection
    early_stopping: EarlyStopping | None


class Trainer(_Fixed):
    """How Lightning runs the fit."""

    max_epochs: Count
    accelerator: Literal["auto", "cpu", "gpu", "mps"]
    precision: Literal["auto", "32-true", "16-mixed", "bf16-mixed"]
    gradient_clip_val: Annotated[Real, Field(gt=0)] | None
    channels_last: bool
    progress_bar: bool


class Config(_Fixed):
    """A whole training run."""

    seed: Annotated[int, BeforeValidator(_no_fraction), Field(ge=0, lt=2**32)]
    image_size: Annotated[int, BeforeValidator(_no_fraction), Field(ge=16, le=2048)]
    objective: Metric
    data_dir: str
    data: Data
    model: Model
    enhance: Enhance
    augment: Augment
    optim: Optim
    scheduler: Scheduler | None
    callbacks: Callbacks
    trainer: Trainer


def reason(kind: str, message: str) -> str:
    """pydantic's message as the rest of a sentence."""
    if kind == "extra_forbidden":
        return "there is no such key"
    message = message.removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def check(plain: Mapping[str, Any]) -> Config:
    """Turn a resolved config into a typed one.

    Raises:
        UserError: one sentence for each fault, with key, value and what is allowed.
    """
    try:
        return Config.model_validate(plain)
    except ValidationError as error:
        faults = []
        for fault in error.errors(include_url=False):
            key = ".".join(str(part) for part in fault["loc"])
            value = "" if fault["type"] == "missing" else f"={fault['input']}"
            faults.append(f"{key}{value} is not allowed: {reason(fault['type'], fault['msg'])}.")
        raise UserError(" ".join(faults)) from error
