"""What `python -m experiments.benchmark.run` may be told; conf/benchmark.yaml gives the defaults."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fracnet.config.schema import Count, Fixed, not_boolean

Part = Literal["pipeline", "training", "loop", "cache", "memory"]
PARTS: tuple[Part, ...] = ("pipeline", "training", "loop", "cache", "memory")

# Most disk space that a part takes, in GB: the cache of 40,000 images has 4.1.
ROOM = {"pipeline": 0.2, "training": 0.2, "loop": 0.1, "cache": 1.0, "memory": 5.0}


def _parts(value: Any) -> Any:
    """`part=loop` is `part=[loop]`, and `part=all` all of them."""
    if value == "all":
        return list(PARTS)
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not given or not all(part in PARTS for part in given):
        raise ValueError(f"allowed: {', '.join(PARTS)}, all, or several in brackets")
    return list(dict.fromkeys(given))


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
