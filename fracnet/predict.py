"""`python -m fracnet.predict`: predict new images with a finished run."""

from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from fracnet.config import hydra_cli
from fracnet.config.commands import PredictCommand
from fracnet.config.schema import validated
from fracnet.utils.progress import progress_bar


def predict(cfg: DictConfig) -> None:
    """Predict all images that `input` selects into a new folder, and print a summary.

    Raises:
        UserError: an error in the command, or in the run folder.
    """
    plain = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    command = validated(PredictCommand, plain)

    # Light: wrong paths are reported at once.
    from fracnet.inference.inputs import find_images
    from fracnet.runs.run_folder import RunFolder

    images = find_images(command.input)
    path = Path(command.run).expanduser().resolve()
    exported = path.suffix.lower() == ".onnx"
    if not exported:
        RunFolder.open(path)

    from fracnet.inference import batch_predict, onnx_model, overlays, predictor

    if command.out:
        batch_predict.check_output_free(Path(command.out).expanduser())
    error = command.confident_errors
    model: predictor.ImagePredictor
    if exported:
        model = onnx_model.OnnxPredictor(path, error=error, device=command.device)
    else:
        model = predictor.Predictor(path, trust=command.trust, error=error, device=command.device)
    with batch_predict.output_folder(command.out, images.name) as folder:
        painter = overlays.overlay_painter(model, folder) if command.overlays else None
        summary = batch_predict.predict_into(
            folder, model, images, overlays=painter, progress=progress_bar
        )
    batch_predict.print_summary(summary, model)


if __name__ == "__main__":
    hydra_cli.run(predict, "predict", instead="name all images in input=")
