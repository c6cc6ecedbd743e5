"""The nodes of a config: what each group of conf/ may hold, with types and ranges.

Groups that carry a `_target_` may have further keys: the arguments of that class, which are
checked where it is built.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

Metric = Literal["loss", "accuracy", "macro_sensitivity", "macro_specificity", "macro_auc"]


def mode(metric: str) -> Literal["min", "max"]:
    """Whether a smaller or a larger figure is the better one."""
    return "min" if metric == "loss" else "max"


def no_fraction(value: Any) -> Any:
    """A boolean is an integer to Python, but not to a person who sets a number."""
    if isinstance(value, bool):
        raise ValueError("a number is needed, not true or false")
    return value


def _none_backbone_or_epochs(value: Any) -> Any:
    if value in ("none", "backbone") or (type(value) is int and value >= 1):
        return value
    raise ValueError("none, backbone or a number of epochs, 1 or more")


def _auto_or_workers(value: Any) -> Any:
    if value == "auto" or (type(value) is int and 0 <= value <= 256):
        return value
    raise ValueError("auto or a number of processes, 0 to 256")


def _quoted(label: Any) -> Any:
    if isinstance(label, bool):
        raise ValueError(
            f"YAML reads a bare yes, no, on, off, true or false as {str(label).lower()}; put the "
            "label into quotes"
        )
    return str(label) if isinstance(label, int) else label


def _labels_as_text(value: Any) -> Any:
    """Labels that are numbers, which YAML does not read as text: {0: normal} is {"0": normal}."""
    if not isinstance(value, Mapping):
        return value
    return {_quoted(key): _quoted(label) for key, label in value.items()}


Labels = Annotated[dict[str, str | None], BeforeValidator(_labels_as_text)]
"""Label of a data set -> class of the model, or None."""

Count = Annotated[int, BeforeValidator(no_fraction), Field(ge=1)]
Real = Annotated[float, BeforeValidator(no_fraction), Field(allow_inf_nan=False)]
Freeze = Annotated[Literal["none", "backbone"] | int, BeforeValidator(_none_backbone_or_epochs)]


class Fixed(BaseModel):
    """A node whose keys are all known."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Target(BaseModel):
    """A node that names a class or function and holds its arguments."""

    model_config = ConfigDict(extra="allow", protected_namespaces=(), populate_by_name=True)
    target: str = Field(alias="_target_", min_length=1)

    def plain(self) -> dict[str, Any]:
        """The node as a plain dict, ready for `fracnet.objects.build`."""
        return self.model_dump(by_alias=True, exclude_unset=True)


class Data(Target):
    """A source of images: where the files lie and what to do with faulty ones."""

    root: str = Field(min_length=1)
    on_bad_file: Literal["error", "skip"]
    batch_size: Count
    num_workers: Annotated[Literal["auto"] | int, BeforeValidator(_auto_or_workers)]
    folds: Annotated[int, BeforeValidator(no_fraction), Field(ge=2, le=100)] | None = None
    fold: Annotated[int, BeforeValidator(no_fraction), Field(ge=0)] = 0
    split: Literal["official", "deduplicated"] = "official"
    test_on: str | dict[str, Any] | None = None  # a name, then the keys of that data set
    test_root: str | None = None
    class_map: Labels | None = None

    @field_validator("fold")
    @classmethod
    def _is_one_of_the_folds(cls, fold: int, info: ValidationInfo) -> int:
        folds = info.data.get("folds")
        if folds is None and fold and "folds" in info.data:
            raise ValueError("there are no folds without data.folds, e.g. data.folds=5")
        if folds is not None and fold >= folds:
            raise ValueError(f"data.folds={folds} are numbered 0 to {folds - 1}")
        return fold

    def source(self) -> dict[str, Any]:
        """What the source itself takes."""
        ours = {"batch_size", "num_workers", "folds", "fold", "split"}
        ours |= {"test_on", "test_root", "class_map"}
        return {k: v for k, v in self.plain().items() if k not in ours}


class Model(Target):
    """A backbone and how grey values reach it."""

    normalise: Literal["weights", "imagenet", "half"] = "weights"
    freeze: Freeze = "none"
    head_dropout: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    fit: Literal["gradient", "classical"] = "gradient"  # by epochs of a network, or in one go

    def plain(self) -> dict[str, Any]:
        """What the model itself takes, and `normalise`."""
        return {k: v for k, v in super().plain().items() if k != "fit"}


class Optim(Target):
    """Arguments of a torch optimiser."""

    lr: Annotated[Real, Field(gt=0)]
    weight_decay: Annotated[Real, Field(ge=0)] = 0.0
    backbone_lr_factor: Annotated[Real, Field(gt=0)] = 1.0
    l1: Annotated[Real, Field(ge=0)] = 0.0


class Loss(Target):
    """Arguments of a loss on logits."""

    label_smoothing: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    gamma: Annotated[Real, Field(ge=0)] = 2.0


class Scheduler(Target):
    """Arguments of a torch learning-rate scheduler, stepped once an epoch."""

    T_max: Count | None = None
    T_0: Count | None = None
    T_mult: Count | None = None
    patience: Annotated[int, BeforeValidator(no_fraction), Field(ge=0)] | None = None
    factor: Annotated[Real, Field(gt=0, lt=1)] | None = None
    eta_min: Annotated[Real, Field(ge=0)] | None = None


class Enhance(Fixed):
    """Deterministic steps before the cache, in order."""

    steps: list[dict[str, Any]]


class Augment(Fixed):
    """Random transforms after the cache, in order."""

    transforms: list[dict[str, Any]]


class Imbalance(Fixed):
    """What is done about classes of unequal size, in training alone."""

    transforms: list[dict[str, Any]] | None = None
    method: Literal["none", "class_weights", "oversample", "undersample", "augment_minority"]

    @field_validator("method")
    @classmethod
    def _with_its_transforms(cls, method: str, info: ValidationInfo) -> str:
        if (method == "augment_minority") != bool(info.data.get("transforms")):
            raise ValueError(
                "imbalance.transforms go with augment_minority and with nothing else; "
                f"choose the whole group, imbalance={method}"
            )
        return method


class Selection(Fixed):
    """Which validation figure chooses the checkpoint."""

    metric: Metric


class EarlyStopping(Fixed):
    """Stop after `patience` epochs without a better validation figure."""

    metric: Metric
    patience: Count


def _decay_alone(value: Any) -> Any:
    """`callbacks.ema=0.999` is `callbacks.ema={decay: 0.999}`."""
    return value if value is None or isinstance(value, Mapping) else {"decay": value}


class Averaging(Fixed):
    """An exponential moving average of the weights takes their place."""

    decay: Annotated[Real, Field(gt=0, lt=1)]


class Callbacks(Fixed):
    """What watches a fit."""

    best: Selection
    early_stopping: EarlyStopping | None
    ema: Annotated[Averaging | None, BeforeValidator(_decay_alone)] = None


class Trainer(Fixed):
    """How Lightning runs the fit."""

    max_epochs: Count
    devices: Count = 1
    accelerator: Literal["auto", "cpu", "gpu"]
    precision: Literal["auto", "32-true", "16-mixed", "bf16-mixed"]
    gradient_clip_val: Annotated[Real, Field(gt=0)] | None
    channels_last: bool
    compile: bool = False  # runs of before it had the key
    progress_bar: bool


class Cited(Fixed):
    """A published figure: `n` counts what it rests on, None where it is not stated."""

    # fmt: off
    metric: Literal[
        "accuracy", "balanced_accuracy", "macro_sensitivity", "macro_specificity",
        "macro_precision", "macro_f1", "macro_auc", "mcc", "kappa",
        "sensitivity", "specificity", "auc",  # of the positive one of two classes
    ]
    # fmt: on
    value: Annotated[Real, Field(ge=0, le=1)]
    n: Count | None
    level: Literal["image", "study"] = "image"
    source: str
    remark: str = ""
