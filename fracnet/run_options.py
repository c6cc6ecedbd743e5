"""What `python -m fracnet.compare` and `python -m fracnet.ensemble` may be told.

conf/compare.yaml and conf/ensemble.yaml give the defaults; this page gives what is allowed.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fracnet.groups import Count, Fixed, Real


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
