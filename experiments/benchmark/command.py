"""The keys of `python -m experiments.benchmark.run`; conf/benchmark.yaml has the defaults."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fracnet.config.fields import Count, Fixed, not_boolean

Part = Literal["pipeline", "training", "loop", "cache", "memory"]
PARTS: tuple[Part, ...] = ("pipeline", "training", "loop", "cache", "memory")

# Disk space that a part needs, in GB; the cache of 40,000 images takes 4.1.
ROOM = {"pipeline": 0.2, "training": 0.2, "loop": 0.1, "cache": 1.5, "memory": 6.5}


def _parts(value: Any) -> Any:
    """`part=loop` is `part=[loop]`, and `part=all` all of them."""
    if value == "all":
        return list(PARTS)
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, list) or not parts or not all(part in PARTS for part in parts):
        raise ValueError(f"allowed: {', '.join(PARTS)}, all, or several in brackets")
    return list(dict.fromkeys(parts))


def _auto_or_number(value: Any) -> Any:
    if value == "auto" or (type(value) is int and 0 <= value <= 256):
        return value
    raise ValueError("auto or a number of processes, 0 to 256")


class BenchmarkCommand(Fixed):
    """The keys of `python -m experiments.benchmark.run`."""

    part: Annotated[list[Part], BeforeValidator(_parts)]
    quick: bool
    out: str | None
    scratch: str | None
    network: Annotated[str, Field(min_length=1)]
    image_size: Annotated[int, BeforeValidator(not_boolean), Field(ge=16, le=2048)]
    batch_size: Annotated[Count, Field(ge=2)]
    accelerator: Literal["auto", "cpu", "gpu"]
    num_workers: Annotated[Literal["auto"] | int, BeforeValidator(_auto_or_number)]
    compile: bool
