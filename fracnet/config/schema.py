"""What a training config may hold as a whole, checked before anything heavy is imported.

The YAML files under conf/ give the defaults; this page gives what is allowed.

The nodes of a config: what each group of conf/ may hold, with types and ranges.

Groups that carry a `_target_` may have further keys: the arguments of that class, which are
checked where it is built.

What an evaluation may be told: the node `evaluation` of a run, and the keys of the command.

The YAML files under conf/ give the defaults; this page gives what is allowed.

What the explanation of a run may be told: the node `explain`, and the keys of the command.

The YAML files under conf/ give the defaults; this page gives what is allowed.

Where a run is tracked: the group `logger` of a config.

What `python -m fracnet.audit` may be told; conf/audit.yaml gives the defaults.

What `python -m fracnet.compare` and `python -m fracnet.ensemble` may be told.

conf/compare.yaml and conf/ensemble.yaml give the defaults; this page gives what is allowed.
"""

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from fracnet.utils.errors import UserError

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
        """The node as a plain dict, ready for `fracnet.config.instantiate.build`."""
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

    normalize: Literal["weights", "imagenet", "half"] = "weights"
    freeze: Freeze = "none"
    head_dropout: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    fit: Literal["gradient", "classical"] = "gradient"  # by epochs of a network, or in one go

    def plain(self) -> dict[str, Any]:
        """What the model itself takes, and `normalize`."""
        return {k: v for k, v in super().plain().items() if k != "fit"}


class Optim(Target):
    """Arguments of a torch optimizer."""

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


class Preprocess(Fixed):
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


RULES = ("sensitivity", "specificity", "cost_ratio")
ALLOWED = "youden, {sensitivity: 0.9}, {specificity: 0.9} or {cost_ratio: 5}"

Rule = dict[str, Any]
"""How an operating point is chosen: {"youden": True}, or one of `RULES` with its number."""


def _rule(value: Any) -> Rule:
    if value == "youden" or value == {"youden": True}:
        return {"youden": True}
    if not isinstance(value, Mapping) or len(value) != 1:
        raise ValueError(f"allowed: {ALLOWED}")
    ((name, wanted),) = value.items()
    number = isinstance(wanted, int | float) and not isinstance(wanted, bool)
    if name not in RULES or not number:
        raise ValueError(f"allowed: {ALLOWED}")
    if name != "cost_ratio" and not 0 < wanted <= 1:
        raise ValueError(f"{name} is a share: more than 0, at most 1")
    if name == "cost_ratio" and not 0 < wanted < float("inf"):
        raise ValueError("cost_ratio is what a miss costs in false alarms: more than 0, finite")
    return {str(name): float(wanted)}


def _several(value: Any) -> Any:
    """`by=region` is `by=[region]`."""
    return [value] if isinstance(value, str) else value


class Evaluation(Fixed):
    """How predictions become figures; chosen before the test is looked at."""

    views: Literal["mean", "max"] = "mean"
    operating_point: Annotated[Rule, BeforeValidator(_rule)] = Field(
        default_factory=lambda: {"youden": True}
    )
    calibrate: bool = True
    by: Annotated[list[str], BeforeValidator(_several)] = Field(default_factory=lambda: ["region"])
    resamples: Annotated[Count, Field(ge=100, le=100_000)] = 2000
    figures: bool = True  # changes no number, and so is no part of `said`

    def said(self) -> dict[str, Any]:
        """What the numbers depend on, in plain containers."""
        return self.model_dump(exclude={"figures"})


class Report(Fixed):
    """How much a report shows. images: pixels, and names of files and patients.

    None: yes, but no where W&B gets the run at once; of a finished run, as it has it.
    """

    images: bool | None = None


class EvaluateCommand(Fixed):
    """The keys of `python -m fracnet.evaluate`; what is None is as the run has it."""

    run: str | None
    table: str | None
    columns: dict[str, str | int] | None
    labels: dict[str | int | bool | float, str] | None
    out: str | None
    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^/\\.][^/\\]*$")] | None
    cited: str | None
    views: Any
    operating_point: Any
    calibrate: Any
    by: Any
    resamples: Any
    figures: bool | None
    report: Report
    data: dict[str, Any]
    data_dir: str
    class_map: Labels | None
    tta: Annotated[list[str], BeforeValidator(_several)]
    trust: bool

    @property
    def elsewhere(self) -> bool:
        """Whether another data set was chosen."""
        return "_target_" in self.data

    @property
    def again(self) -> bool:
        """Whether the model has to look at images."""
        return self.elsewhere or bool(self.tta)

    def changes(self) -> dict[str, Any]:
        """What the command says of the evaluation itself."""
        asked = {key: getattr(self, key) for key in Evaluation.model_fields if key != "figures"}
        return {key: value for key, value in asked.items() if value is not None}


Method = Literal["gradcam", "hirescam", "gradcam++", "eigencam"]
Cases = Annotated[int, BeforeValidator(no_fraction), Field(ge=0, le=100)]
Images = Annotated[int, BeforeValidator(no_fraction), Field(ge=0, le=10_000)]


def _which(value: Any) -> Any:
    if value is None or value == "":
        raise ValueError("say which run, e.g. run=runs/2026-01-31_12-00-00_ab12")
    return value


class Explain(Fixed):
    """How heatmaps are made, and what is done with them."""

    method: Method = "gradcam"
    layer: str | None = None
    cases: Cases = 3
    sanity: Images = 60


class ExplainCommand(Fixed):
    """The keys of `python -m fracnet.explain`; what is None is as the run has it."""

    run: Annotated[str, BeforeValidator(_which)]
    method: Method | None
    layer: str | None
    cases: Cases | None
    sanity: Images | None
    report: Report
    trust: bool

    def changed(self, own: Explain | None) -> Explain:
        """The run's own options, or the defaults where it has none, with those of the command."""
        asked: dict[str, Any] = {key: getattr(self, key) for key in Explain.model_fields}
        given = {key: value for key, value in asked.items() if value is not None}
        return (own or Explain()).model_copy(update=given)


def _or_environment(mode: Any) -> Any:
    """The environment decides where the config does not."""
    if mode is not None:
        return mode
    word = os.environ.get("WANDB_MODE", "").strip().lower() or "offline"
    word = {"dryrun": "offline", "run": "online"}.get(word, word)  # older words of wandb's
    if word not in ("offline", "online", "disabled"):
        raise ValueError(
            f"the environment has WANDB_MODE={word}; it may hold offline, online or disabled"
        )
    return word


Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^/\\#?%:]+$")]


class Logger(Fixed):
    """Weights & Biases beside the CSV; `mode` is never None once it is checked."""

    mode: Annotated[Literal["offline", "online", "disabled"], BeforeValidator(_or_environment)]
    project: Name = "fracnet"
    entity: Name | None = None
    group: Name | None = None
    name: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    tags: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(default_factory=list)
    images: bool | None = None
    timeout: Annotated[Real, Field(gt=0, le=3600)] = 30.0


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
    preprocess: Preprocess
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


class AuditData(Target):
    """A source of images; further keys are its own arguments."""

    root: str = Field(min_length=1)
    on_bad_file: Literal["error", "skip"]


class AuditCommand(Fixed):
    """The keys of the command."""

    data: AuditData
    data_dir: str
    out: str | None
    fail_on: Literal["hint", "warning", "leak", "error"] | None
    pictures: Annotated[int, BeforeValidator(no_fraction), Field(ge=0, le=1000)]
    workers: Annotated[int, BeforeValidator(no_fraction), Field(ge=1, le=256)] | None
    progress_bar: bool


# What some choices of data= set besides: how a model sees the images.
OF_TRAINING = ("image_size", "model")


def without_training(plain: dict[str, Any]) -> dict[str, Any]:
    """The config without what is training's alone."""
    return {key: value for key, value in plain.items() if key not in OF_TRAINING}


def _patterns(value: Any) -> Any:
    """`runs=runs/*` is `runs=[runs/*]`."""
    if value is None or value == []:
        raise ValueError("say which runs, e.g. runs='runs/*' or runs=[runs/a,runs/b]")
    return [value] if isinstance(value, str) else value


Patterns = Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_patterns)]


class CompareCommand(Fixed):
    """The keys of `python -m fracnet.compare`."""

    runs: Patterns
    metric: str
    of: str | None
    level: Literal["image", "study", "patient"]
    decisions: Literal["raw", "frozen"]
    reference: str | None
    pairs: Literal["reference", "all"]
    seeds: Literal["grouped", "apart"]
    margin: Annotated[Real, Field(gt=0)] | None
    resamples: Annotated[Count, Field(ge=100, le=100_000)]
    out: str | None


class EnsembleCommand(Fixed):
    """The keys of `python -m fracnet.ensemble`."""

    runs: Patterns
    out: str | None
