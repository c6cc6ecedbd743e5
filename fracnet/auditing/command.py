"""What `python -m fracnet.audit` may be told; conf/audit.yaml gives the defaults."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fracnet.groups import Fixed, Target, no_fraction


class Data(Target):
    """A source of images; further keys are its own arguments."""

    root: str = Field(min_length=1)
    on_bad_file: Literal["error", "skip"]


class AuditCommand(Fixed):
    """The keys of the command."""

    data: Data
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
