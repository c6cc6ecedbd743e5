"""What the explanation of a run may be told: the node `explain`, and the keys of the command.

The YAML files under conf/ give the defaults; this page gives what is allowed.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fracnet.groups import Fixed, no_fraction
from fracnet.options import Report

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
