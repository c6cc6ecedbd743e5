"""What an evaluation may be told: the node `evaluation` of a run, and the keys of the command.

The YAML files under conf/ give the defaults; this page gives what is allowed.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fracnet.groups import Count, Fixed, Labels

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
    operating: Annotated[Rule, BeforeValidator(_rule)] = Field(
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
    operating: Any
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
