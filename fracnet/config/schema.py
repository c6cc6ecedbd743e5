"""What the config of a training run may hold, checked before anything heavy is imported.

The YAML files under conf/ give the defaults; the classes here give types, ranges and choices.
Groups with a `_target_` may have further keys: the arguments of that class, which
`fracnet.config.targets` checks. What keys of different groups allow together is in `checks`.
"""

import os
import sys
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from fracnet.config.fields import (
    Count,
    Fixed,
    Labels,
    Metric,
    Open,
    Real,
    Size,
    Target,
    Whole,
    as_items,
    as_list,
    matching,
    word_or_number,
)
from fracnet.utils.text import as_typed, near_miss


def _number_or_list_of_devices(value: Any) -> Any:
    listed = isinstance(value, list) and bool(value) and len(set(value)) == len(value)
    if (type(value) is int and value >= 1) or (listed and all(type(n) is int for n in value)):
        return value
    raise ValueError("an integer of 1 or more, or a list of device numbers such as [0,1]")


Freeze = Annotated[
    Literal["none", "backbone"] | int,
    word_or_number(("none", "backbone"), "none, backbone or a number of epochs, 1 or more"),
]
Penalty = Annotated[Real, Field(gt=0)]


class Data(Target):
    """A dataset: where the files lie and what to do with faulty ones."""

    ours: ClassVar = {
        "batch_size", "num_workers", "folds", "fold", "split", "fraction", "test_on", "test_root",
        "class_map",
    }  # fmt: skip
    root: str = Field(min_length=1)
    on_bad_file: Literal["error", "skip"]
    batch_size: Count
    num_workers: Annotated[
        Literal["auto"] | int,
        word_or_number(("auto",), "auto or a number of processes, 0 to 256", 0, 256),
    ]
    folds: Annotated[Whole, Field(ge=2, le=100)] | None = None
    fold: Annotated[Whole, Field(ge=0)] = 0
    split: Literal["official", "deduplicated"] = "official"
    fraction: Annotated[Real, Field(gt=0, le=1)] = 1.0
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


class Model(Target):
    """A backbone and how grey values reach it."""

    ours: ClassVar = {"fit"}
    normalize: Literal["weights", "imagenet", "half"] = "weights"
    freeze: Freeze = "none"
    pool: Literal["default", "avgmax"] = "default"
    head: Literal["linear", "mlp", "logistic", "knn"] = "linear"
    head_hidden: Count = 256
    head_C: Annotated[list[Penalty], BeforeValidator(as_items), Field(min_length=1)] = Field(
        default_factory=lambda: [1e-3]
    )
    head_k: Annotated[list[Count], BeforeValidator(as_items), Field(min_length=1)] = Field(
        default_factory=lambda: [10]
    )
    head_dropout: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    fit: Literal["gradient", "classical"] = "gradient"  # by epochs of a network, or in one go

    @property
    def by_epochs(self) -> bool:
        """Whether it is trained by gradient; else it, or its head, is fitted in one go."""
        return self.fit == "gradient" and self.head in ("linear", "mlp")


class Optim(Target):
    """Arguments of a torch optimizer."""

    lr: Annotated[Real, Field(gt=0)]
    weight_decay: Annotated[Real, Field(ge=0)] = 0.0
    backbone_lr_factor: Annotated[Real, Field(gt=0)] = 1.0
    layer_decay: Annotated[Real, Field(gt=0, le=1)] = 1.0
    l1: Annotated[Real, Field(ge=0)] = 0.0


class Loss(Target):
    """Arguments of a loss on logits, and what is added to it.

    localization: weight of the loss of an auxiliary head that is trained to find the annotations;
        `auto` becomes a number before the training, see `fracnet.training.run.settled`.
    """

    localization: Annotated[
        Literal["auto"] | float,
        word_or_number(
            ("auto",), "auto or a number, 0 or more", 0, sys.float_info.max, (int, float)
        ),
    ] = 0.0
    label_smoothing: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    gamma: Annotated[Real, Field(ge=0)] = 2.0


class Scheduler(Target):
    """Arguments of a learning-rate scheduler, and how Lightning steps it.

    total_steps: `auto` is the number of optimizer steps of the whole run.
    """

    interval: Literal["epoch", "step"] = "epoch"
    frequency: Count = 1
    monitor: Metric = "loss"  # read by ReduceLROnPlateau alone
    total_steps: Annotated[
        Literal["auto"] | int | None,
        word_or_number((None, "auto"), "auto or a number of optimizer steps, 1 or more"),
    ] = None
    T_max: Count | None = None
    T_0: Count | None = None
    T_mult: Count | None = None
    patience: Annotated[Whole, Field(ge=0)] | None = None
    factor: Annotated[Real, Field(gt=0, lt=1)] | None = None
    eta_min: Annotated[Real, Field(ge=0)] | None = None


class Preprocess(Fixed):
    """Deterministic steps before the cache, in order."""

    steps: list[dict[str, Any]]


class Augment(Fixed):
    """Random transforms after the cache, in order; then images of a batch are mixed.

    views: how many fixed augmented copies of each training image a frozen network turns into
    features; 0: none, but the image itself.
    mixup, cutmix: alpha of the distribution of their weights, 0 for none; of both, one by chance.
    """

    transforms: list[dict[str, Any]]
    views: Annotated[Whole, Field(ge=0, le=1000)] = 0
    mixup: Annotated[Real, Field(ge=0)] = 0.0
    cutmix: Annotated[Real, Field(ge=0)] = 0.0


class Imbalance(Fixed):
    """What is done about classes of unequal size, in training alone."""

    transforms: list[dict[str, Any]] | None = None
    method: Literal["none", "class_weights", "oversample", "undersample", "augment_minority"]

    @field_validator("method")
    @classmethod
    def _with_its_transforms(cls, method: str, info: ValidationInfo) -> str:
        if (method == "augment_minority") != bool(info.data.get("transforms")):
            raise ValueError(
                "imbalance.transforms work only with augment_minority; "
                f"choose the whole group, imbalance={method}"
            )
        return method


class Selection(Fixed):
    """Which validation metric selects the checkpoint."""

    metric: Metric


class EarlyStopping(Open):
    """Stop after `patience` epochs without a better validation metric.

    Other keys, such as `min_delta`, are arguments of Lightning's EarlyStopping.
    """

    metric: Metric
    patience: Count


def _decay_alone(value: Any) -> Any:
    """`callbacks.ema=0.999` is `callbacks.ema={decay: 0.999}`."""
    return value if value is None or isinstance(value, Mapping) else {"decay": value}


class Averaging(Fixed):
    """An exponential moving average of the weights takes their place."""

    decay: Annotated[Real, Field(gt=0, lt=1)]


class Last(Fixed):
    """When last.ckpt is written besides the end of each epoch."""

    every_n_steps: Count | None = None


class Callbacks(Open):
    """What watches a fit; any further key holds a Lightning callback by its `_target_`."""

    best: Selection
    early_stopping: EarlyStopping | None
    ema: Annotated[Averaging | None, BeforeValidator(_decay_alone)] = None
    last: Last = Field(default_factory=Last)

    @model_validator(mode="before")
    @classmethod
    def _others_name_a_class(cls, node: Any) -> Any:
        _check_targets(node, ("best", "early_stopping", "ema", "last"), "a callback")
        return node


class CustomMetric(Target):
    """A torchmetrics metric of probabilities [N, C] and targets [N], logged as `val/<name>`."""

    ours: ClassVar = {"mode"}
    mode: Literal["min", "max"] = "max"


class Pruning(Target):
    """An Optuna pruner, which stops jobs of a sweep that can no longer win."""


class Trainer(Open):
    """How Lightning runs the fit; any further key is an argument of `lightning.Trainer`.

    image_sizes: of the training images, each for an equal share of the epochs; epochs with a
        frozen backbone come before these, at full size.
    """

    max_epochs: Count
    image_sizes: list[Size] | None = None
    devices: Annotated[Any, BeforeValidator(_number_or_list_of_devices)] = 1
    num_nodes: Count = 1
    accelerator: Literal["auto", "cpu", "gpu"]
    precision: Literal[
        "auto", "32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true",
        "transformer-engine", "transformer-engine-float16",
    ]  # fmt: skip
    gradient_clip_val: Annotated[Real, Field(gt=0)] | None
    channels_last: bool
    compile: bool = False
    progress_bar: bool

    @property
    def processes(self) -> int:
        """How many processes train the run, one for each device of each node."""
        per_node = len(self.devices) if isinstance(self.devices, list) else int(self.devices)
        return per_node * self.num_nodes

    @property
    def passed_on(self) -> dict[str, Any]:
        """The arguments that only `lightning.Trainer` knows."""
        return dict(self.model_extra or {})


class Cited(Fixed):
    """A published metric: `n` counts what it rests on, None where it is not stated."""

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


class Evaluation(Fixed):
    """How predictions become metrics; chosen before the test split is evaluated."""

    views: Literal["mean", "max"] = "mean"
    operating_point: Annotated[Rule, BeforeValidator(_rule)] = Field(
        default_factory=lambda: {"youden": True}
    )
    calibrate: bool = True
    by: Annotated[list[str], BeforeValidator(as_list)] = Field(default_factory=lambda: ["region"])
    resamples: Annotated[Count, Field(ge=100, le=100_000)] = 2000
    figures: bool = True  # changes no number, so it is not one of `numeric_options`

    def numeric_options(self) -> dict[str, Any]:
        """The options on which the numbers depend, in plain containers."""
        return self.model_dump(exclude={"figures"})


class Report(Fixed):
    """What a report shows. images: pixels, and names of files and patients.

    None: yes, but no where W&B receives the run online; for a finished run, as before.
    """

    images: bool | None = None


Method = Literal["gradcam", "hirescam", "gradcam++", "eigencam", "localization", "auto"]
Cases = Annotated[Whole, Field(ge=0, le=100)]
Images = Annotated[Whole, Field(ge=0, le=10_000)]


class Explain(Fixed):
    """How heatmaps are computed and checked.

    method: `auto` is Grad-CAM, or the localization head where validation shows that it is better.
    """

    method: Method = "auto"
    layer: str | None = None
    cases: Cases = 3
    sanity: Images = 60


def _mode_or_environment(mode: Any) -> Any:
    """The environment decides where the config does not; a W&B agent needs an online run."""
    if mode is not None:
        return mode
    default = "online" if os.environ.get("WANDB_SWEEP_ID") else "offline"
    word = os.environ.get("WANDB_MODE", "").strip().lower() or default
    word = {"dryrun": "offline", "run": "online"}.get(word, word)  # W&B's older names
    if word not in ("offline", "online", "disabled"):
        raise ValueError(
            f"the environment has WANDB_MODE={word}; allowed there: offline, online, disabled"
        )
    return word


Name = Annotated[
    str,
    Field(min_length=1, max_length=128),
    matching(r"[^/\\#?%:]+", r"characters other than / \ # ? % :"),
]


class Wandb(Open):
    """Weights & Biases; further keys are arguments of `wandb.init`.

    `mode` is never None once it is checked. log_model: upload the selected checkpoint as an
    artifact. timeout: seconds that W&B may cost the run in all.
    """

    mode: Annotated[
        Literal["offline", "online", "disabled"],
        BeforeValidator(_mode_or_environment),
        Field(validate_default=True),
    ] = None  # type: ignore[assignment]
    project: Name | None = None
    entity: Name | None = None
    group: Name | None = None
    name: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    tags: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(default_factory=list)
    images: bool | None = None
    log_model: bool = False
    timeout: Annotated[Real, Field(gt=0, le=3600)] = 30.0


class Logger(Open):
    """Where a run is tracked besides metrics.csv: W&B, and Lightning loggers by `_target_`."""

    wandb: Wandb | None = None

    @model_validator(mode="before")
    @classmethod
    def _others_name_a_class(cls, node: Any) -> Any:
        for key in node if isinstance(node, Mapping) else ():
            if key in Wandb.model_fields:
                raise ValueError(f"logger.{key} is now logger.wandb.{key}")
        _check_targets(node, ("wandb",), "a logger")
        return node

    @property
    def online(self) -> bool:
        """Whether the run is sent to W&B as it trains."""
        return self.wandb is not None and self.wandb.mode == "online"


def _check_targets(node: Any, own: tuple[str, ...], kind: str) -> None:
    """Raise ValueError for a key other than `own` that does not hold a `_target_`, or null."""
    for key, value in node.items() if isinstance(node, Mapping) else ():
        named = value is None or (isinstance(value, Mapping) and "_target_" in value)
        if key in own or named:
            continue
        hint = near_miss(str(key), own)
        raise ValueError(
            f"{key}={as_typed(value)} is neither {', '.join(own)} nor {kind} named by its "
            f"_target_, e.g. {key}={{_target_: package.module.Class}}{hint and f'.{hint}'}"
        )


class Config(Fixed):
    """A whole training run."""

    seed: Annotated[Whole, Field(ge=0, lt=2**32)]
    image_size: Size
    objective: Metric  # the first of `objectives`
    objectives: list[Metric] = Field(default_factory=list, exclude=True)
    show_test: Literal["best", "all"] = "best"
    sweep: str | None = None
    cited: list[Cited] = Field(default_factory=list)
    resume: str | None = None
    launcher: dict[str, Any] = Field(default_factory=dict, exclude=True)  # of a sweep's jobs
    sweeper: dict[str, Any] = Field(default_factory=dict, exclude=True)  # what chooses the jobs
    search: dict[str, Any] | None = Field(default=None, exclude=True)  # the values it chooses from
    pruning: Pruning | None = None
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
    metrics: dict[str, CustomMetric] = Field(default_factory=dict)
    logger: Logger = Field(default_factory=Logger)
    trainer: Trainer
    trust: bool = False
    evaluation: Evaluation = Field(default_factory=Evaluation)  # runs of before it had the node
    explain: Explain | None = None  # likewise
    report: Report = Field(default_factory=Report)  # likewise

    @model_validator(mode="before")
    @classmethod
    def _one_objective_or_several(cls, plain: Any) -> Any:
        names = objectives_of(plain.get("objective"))
        if not names or len(set(map(str, names))) < len(names):
            raise ValueError("objective is one metric, or a list that names each metric once")
        return {**plain, "objective": names[0], "objectives": names}


def objectives_of(objective: Any) -> list[Any]:
    """The metrics that a config's `objective` names: one, or a list."""
    return list(objective) if isinstance(objective, list | tuple) else [objective]
