"""Where a run is tracked: the group `logger` of a config."""

import os
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fracnet.groups import Fixed, Real


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
