"""Types of single values and of nodes, from which the configs of all commands are made."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from fracnet.utils.errors import UserError
from fracnet.utils.text import as_typed

OVERALL_METRICS = (
    "accuracy", "balanced_accuracy", "macro_sensitivity", "macro_specificity", "macro_precision",
    "macro_f1", "macro_auc", "macro_average_precision", "kappa", "mcc", "brier", "log_loss",
)  # fmt: skip
POSITIVE_METRICS = (
    "sensitivity", "specificity", "precision", "npv", "f1", "auc", "average_precision",
)  # fmt: skip
"""Metrics of the positive one of two classes."""
GROUP_LEVELS = ("study", "patient")
"""`study_kappa` is the kappa of studies; a name without a level is that of images."""
MISSING = "???"
"""OmegaConf's value of a key that the user must give."""
Text = Annotated[str, Field(min_length=1)]
Metric = Text
"""`loss`, one of the metrics above at any level, or a key of the config's `metrics`."""


def split_metric(name: str) -> tuple[str, str]:
    """Level and metric: `study_kappa` is ("study", "kappa"), `kappa` is ("image", "kappa")."""
    level, _, base = name.partition("_")
    return (level, base) if level in GROUP_LEVELS and base else ("image", name)


def mode(metric: str) -> Literal["min", "max"]:
    """Whether a smaller or a larger value of a built-in metric is better."""
    return "min" if split_metric(metric)[1] in ("loss", "brier", "log_loss") else "max"


def not_boolean(value: Any) -> Any:
    """Reject booleans, which Python counts as integers."""
    if isinstance(value, bool):
        raise ValueError("a number is needed, not true or false")
    return value


def _label_text(label: Any) -> Any:
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
    return {_label_text(key): _label_text(label) for key, label in value.items()}


Labels = Annotated[dict[str, str | None], BeforeValidator(_labels_as_text)]
"""Label of a data set -> class of the model, or None."""

Whole = Annotated[int, BeforeValidator(not_boolean)]
Count = Annotated[Whole, Field(ge=1)]
Real = Annotated[float, BeforeValidator(not_boolean), Field(allow_inf_nan=False)]
Size = Annotated[Whole, Field(ge=16, le=2048)]
"""Pixels per side."""


def word_or_number(
    words: Sequence[Any],
    allowed: str,
    low: float = 1,
    high: float = math.inf,
    kinds: tuple[type, ...] = (int,),
) -> BeforeValidator:
    """Accept one of the words, or a number in the range: a whole one, or one of other `kinds`."""

    def check(value: Any) -> Any:
        if value in words or (type(value) in kinds and low <= value <= high):
            return value
        raise ValueError(allowed)

    return BeforeValidator(check)


def matching(pattern: str, allowed: str) -> AfterValidator:
    """Accept a text that matches the whole pattern. allowed: the rule in words."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"allowed: {allowed}")
        return text

    return AfterValidator(check)


def as_items(value: Any) -> Any:
    """`head_C=0.1` is `head_C=[0.1]`."""
    return value if isinstance(value, list) else [value]


class Fixed(BaseModel):
    """A node whose keys are all known."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Open(BaseModel):
    """A node whose further keys are passed on."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class Target(BaseModel):
    """A node that names a class or function and holds its arguments."""

    model_config = ConfigDict(extra="allow", protected_namespaces=(), populate_by_name=True)
    ours: ClassVar[set[str]] = set()
    """Keys that the class or function does not take."""
    target: str = Field(alias="_target_", min_length=1)

    def plain(self) -> dict[str, Any]:
        """The node as a plain dict, ready for `fracnet.config.instantiate.build`."""
        return self.model_dump(by_alias=True, exclude_unset=True, exclude=self.ours)


def as_list(value: Any) -> Any:
    """`by=region` is `by=[region]`."""
    return [value] if isinstance(value, str) else value


Checked = TypeVar("Checked", bound=BaseModel)


WANTED = {
    "int": "an integer is needed",
    "float": "a number is needed",
    "bool": "true or false is needed",
    "string": "text is needed",
    "list": "a list is needed, as in [a,b]",
    "dict": "a mapping is needed, as in {key: value}",
    "model": "a mapping is needed, as in {key: value}",
}
"""What to give, for pydantic's kinds of errors about the type of a value."""


def reason(kind: str, message: str) -> str:
    """pydantic's message as the rest of a sentence."""
    if kind == "extra_forbidden":
        return "there is no such key"
    if kind in ("literal_error", "enum"):
        listed = message.removeprefix("Input should be ").replace(" or ", ", ")
        return f"allowed: {listed}".replace("'", "")
    wanted, _, fault = kind.partition("_")
    if fault in ("type", "parsing", "from_float", "attributes_type") and wanted in WANTED:
        return WANTED[wanted]
    message = message.removeprefix("Value error, ").replace("Input should be", "it must be")
    message = message.replace("String should have", "it must have")
    return message[0].lower() + message[1:]


def refusal(what: str, kind: str, message: str) -> str:
    """The sentence that refuses `what`, a key with its value, for pydantic's reason."""
    why = reason(kind, message)
    return f"{what} is not allowed{';' if why.startswith('allowed:') else ':'} {why}."


def resolved(config: DictConfig) -> dict[str, Any]:
    """A config as plain containers, with its interpolations resolved."""
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))


def validated(
    model: type[Checked], config: Mapping[str, Any] | DictConfig, under: str = ""
) -> Checked:
    """Turn a config, or a part of one, into `model`; `under` is where it stands in the config.

    Raises UserError with a sentence for each fault: key, value and what is allowed.
    """
    try:
        plain = resolved(config) if isinstance(config, DictConfig) else config
        return model.model_validate(plain)
    except ValidationError as error:
        faults = []
        for fault in error.errors(include_url=False):
            key = ".".join(str(part) for part in (under, *fault["loc"]) if part != "")
            if fault["input"] == MISSING:
                known = fault["type"] == "value_error"
                why = reason(fault["type"], fault["msg"]) if known else "the command needs it"
                faults.append(f"{key}= is missing: {why}.")
                continue
            if len(str(fault["input"])) > 150:  # a whole group
                faults.append(f"{key}: {reason(fault['type'], fault['msg'])}.")
                continue
            value = "" if fault["type"] == "missing" else f"={as_typed(fault['input'])}"
            faults.append(refusal(f"{key}{value}", fault["type"], fault["msg"]))
        raise UserError(" ".join(faults)) from error
