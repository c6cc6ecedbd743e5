"""`python -m fracnet.predict`: predict new images with a finished run."""

import sys
from pathlib import Path

from omegaconf import DictConfig

import fracnet
from fracnet.config import hydra_cli
from fracnet.config.commands import PredictCommand
from fracnet.config.fields import validated
from fracnet.config.overrides import model_as_run
from fracnet.utils.progress import progress_bar


def predict(cfg: DictConfig) -> None:
    """Predict all images that `input` selects into a new folder, and print a summary.

    Raises UserError for an error in the command, or in the run folder.
    """
    command = validated(PredictCommand, cfg)

    # Light: wrong paths are reported at once.
    from fracnet.inference.inputs import find_images
    from fracnet.runs.run_folder import RunFolder

    images = find_images(command.input)
    path = Path(command.run).expanduser().resolve()
    if path.suffix.lower() != ".onnx":
        RunFolder.open(path)

    from fracnet.inference import batch_predict, overlays

    if command.out:
        batch_predict.check_output_free(Path(command.out).expanduser())
    model = fracnet.load(
        path, trust=command.trust, error=command.confident_errors, device=command.device
    )
    with batch_predict.output_folder(command.out, images.name) as folder:
        painter = overlays.overlay_painter(model, folder) if command.overlays else None
        summary = batch_predict.predict_into(
            folder, model, images, overlays=painter, progress=progress_bar
        )
    batch_predict.print_summary(summary, model)


if __name__ == "__main__":
    sys.argv[1:] = model_as_run(sys.argv[1:])
    hydra_cli.run(predict, "predict", instead="name all images in input=")
