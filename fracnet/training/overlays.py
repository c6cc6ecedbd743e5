"""A picture of each predicted image with what spoke for the decision."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from fracnet.errors import UserError
from fracnet.explaining.maps import heatmaps
from fracnet.explaining.overlay import draw, enlarged
from fracnet.training.predictor import Batch, Predictor

CAPTION = "Research use only. Not a medical device, no diagnosis."
FONT = cv2.FONT_HERSHEY_SIMPLEX
SIDE = 8  # white columns between the plain image and the one with the heatmap


def captioned(picture: np.ndarray) -> np.ndarray:
    """uint8 RGB [H, W, 3] with a line under it: pictures are passed on without the rest."""
    width = picture.shape[1]
    scale = width / 1100
    (_, height), below = cv2.getTextSize(CAPTION, FONT, scale, 1)
    line = np.full((2 * height + below, width, 3), 255, np.uint8)
    place = (height // 2, height + height // 2)
    cv2.putText(line, CAPTION, place, FONT, scale, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([picture, line])


def painter(predictor: Predictor, folder: Path) -> Callable[[Batch, int], list[str]]:
    """Draws Grad-CAM of the decided class into `folder`/overlays, beside the plain image.

    Raises UserError for a model that has no maps.
    """
    if predictor.classical:
        raise UserError(
            "overlays=true: this run's model is no network, and has no layer to make a heatmap of; "
            "allowed: overlays=false."
        )
    out = folder / "overlays"

    def paint(batch: Batch, first: int) -> list[str]:
        out.mkdir(exist_ok=True)
        rows = np.flatnonzero((batch.table["error"] == "").to_numpy())
        names = [f"overlays/{first + row + 1:06d}.png" for row in rows]
        maps = heatmaps(predictor.model, batch.images, batch.choices, device=predictor.device)
        heats = (heat for part in maps for heat in part)
        for name, image, heat in zip(names, batch.images, heats, strict=True):
            plain, warm, _ = enlarged(image, heat, [])
            gap = np.full((len(plain), SIDE, 3), 255, np.uint8)
            picture = captioned(np.concatenate([draw(plain), gap, draw(plain, warm)], axis=1))
            packed = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
            (folder / name).write_bytes(packed.tobytes())
        return names

    return paint
