"""`python -m fracnet.predict`: a finished run's model looks at new images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from omegaconf import DictConfig, OmegaConf
from pydantic import BeforeValidator, Field

from fracnet.config import hydra_cli
from fracnet.config.schema import Fixed, Real, validated
from fracnet.inference.batch_predict import new_folder, present, refuse_what_is_there
from fracnet.utils.errors import UserError

if TYPE_CHECKING:
    pass


def _several(value: Any) -> Any:
    """`input=a.png` is `input=[a.png]`."""
    return value if isinstance(value, list) else [value]


class PredictCommand(Fixed):
    """The keys of the command."""

    run: Annotated[str, Field(min_length=1)]
    input: Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_several)]
    out: Annotated[str, Field(min_length=1)] | None
    overlays: bool
    uncertain: Annotated[Real, Field(ge=0.001, le=0.5)]
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

    from fracnet.inference.inputs import find  # light: what is missing is told before torch comes

    asked = find(command.input)
    if command.out:
        refuse_what_is_there(Path(command.out).expanduser())

    from fracnet.inference.batch_predict import painter, predict_into
    from fracnet.inference.predictor import Predictor
    from fracnet.runs.evaluate_run import progress_if

    predictor = Predictor(run, trust=command.trust, error=command.uncertain, device=command.device)
    with new_folder(command.out, asked.name) as folder:
        draw = painter(predictor, folder) if command.overlays else None
        told = predict_into(folder, predictor, asked, overlays=draw, progress=progress_if(True))
    present(told, predictor)


if __name__ == "__main__":
    hydra_cli.run(predict, "predict", instead="name all images in input=")
