"""`python -m fracnet.predict`: a finished run's model looks at new images."""

import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from omegaconf import DictConfig, OmegaConf
from pydantic import BeforeValidator, Field

from fracnet import cli
from fracnet.config import validated
from fracnet.errors import UserError
from fracnet.groups import Fixed, Real
from fracnet.words import counted

if TYPE_CHECKING:
    from fracnet.training.predicting import Told
    from fracnet.training.predictor import Predictor

SHOWN = 5  # unreadable files on the screen


def _several(value: Any) -> Any:
    """`input=a.png` is `input=[a.png]`."""
    return value if isinstance(value, list) else [value]


class PredictCommand(Fixed):
    """The keys of the command."""

    run: Annotated[str, Field(min_length=1)]
    input: Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_several)]
    out: Annotated[str, Field(min_length=1)] | None
    overlays: bool
    unsure: Annotated[Real, Field(ge=0.001, le=0.5)]
    device: Literal["auto", "cpu", "gpu"]
    trust: bool


def predict(cfg: DictConfig) -> None:
    """Predict all images that `input` means into a new folder, and print what came out.

    Raises:
        UserError: a fault in the command, or in the run folder.
    """
    for key, example in (("run", "runs/..."), ("input", "folder/with/images")):
        if OmegaConf.is_missing(cfg, key):
            raise UserError(f"{key}= is needed: {key}={example}.")
    plain = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    command = validated(PredictCommand, plain)
    run = Path(command.run).expanduser().resolve()

    from fracnet.training.asked import find  # light: what is missing is told before torch comes

    asked = find(command.input)
    if command.out:
        refuse_what_is_there(Path(command.out).expanduser())

    from fracnet.training.overlays import painter
    from fracnet.training.predicting import predict_into
    from fracnet.training.predictor import Predictor
    from fracnet.training.present import progress

    predictor = Predictor(run, trust=command.trust, error=command.unsure, device=command.device)
    with new_folder(command.out, asked.name) as folder:
        draw = painter(predictor, folder) if command.overlays else None
        told = predict_into(folder, predictor, asked, overlays=draw, show=progress(True))
    present(told, predictor)


def refuse_what_is_there(out: Path) -> None:
    """Raise UserError unless `out` is free, or an empty folder."""
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"out={out} is there and not empty; nothing is overwritten. Name another.")
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out} is a file; allowed: a folder that is new or empty.")


@contextmanager
def new_folder(out: str | None, name: str) -> Iterator[Path]:
    """The folder `out`, or a new one named by the input and the time; gone again if left empty."""
    folder = _made(out, name)
    try:
        yield folder
    finally:
        if not any(folder.iterdir()):
            folder.rmdir()


def _made(out: str | None, name: str) -> Path:
    if out is not None:
        folder = Path(out).expanduser()
        refuse_what_is_there(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"out={out} cannot be made: {error.strerror or error}.") from error
        return folder
    word = re.sub(r"[^\w.-]+", "-", name).strip("-.")[:60] or "images"
    base = f"predictions_{word}_{datetime.now().strftime('%Y-%m-%d_%H-%M-%S')}"
    for attempt in count(1):
        folder = Path(base if attempt == 1 else f"{base}_{attempt}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(
                f"{Path.cwd()} cannot be written to ({error.strerror or error}); name another "
                "place with out=."
            ) from error
        return folder
    raise AssertionError("numbers do not end")


def present(told: "Told", predictor: "Predictor") -> None:
    """Print what came out."""
    from fracnet.training.predictor import CAUTION

    readable = told.n - len(told.lost)
    print(f"{counted(readable, 'image')} predicted by {predictor.folder.path.name}")
    width = max([len("unlike the training images"), *map(len, told.counts)]) + 2
    for name in predictor.classes:
        print(f"  {name:{width}}{told.counts.get(name, 0)}")
    print(f"  {'unsure':{width}}{told.unsure}")
    unlike = "not known: the run has no novelty.npz" if told.unlike is None else told.unlike
    print(f"  {'unlike the training images':{width}}{unlike}")
    if told.lost:
        print(f"  {'unreadable':{width}}{len(told.lost)}")
        for path, reason in told.lost[:SHOWN]:
            print(wrapped(f"{path}: {reason}", "    "))
        if len(told.lost) > SHOWN:
            print(f"    and {len(told.lost) - SHOWN} more, in unreadable.csv")
    if told.studies:
        print(f"  {'studies':{width}}{told.studies}")
    for note in told.notes:
        print(wrapped(note))
    print(f"\n{wrapped(CAUTION)}\n\nFolder: {told.folder}")
    for left in sorted(told.folder.iterdir()):
        print(f"  {left.name}{'/' if left.is_dir() else ''}")


def wrapped(text: str, indent: str = "") -> str:
    """For a screen of 80 columns; no path is broken."""
    further = indent + ("  " if indent else "")
    return textwrap.fill(
        text, 80, initial_indent=indent, subsequent_indent=further, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


if __name__ == "__main__":
    cli.run(predict, "predict", multirun=False, instead="name all images in input=")
