"""Pictures of predicted images: the whole image with its heatmap, a color bar and a caption.

Pictures keep the aspect of the file and are at most `MAX_SIDE` pixels a side. They are named after
the file, and their captions name the prediction: pictures get passed on without their folder.
"""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from fracnet.evaluation.conformal import short_reason
from fracnet.evaluation.predictions import PROB
from fracnet.inference.image_predictor import Batch, ImagePredictor
from fracnet.inference.inputs import Original
from fracnet.saliency.drawing import draw_overlay, enlarge, write_png
from fracnet.utils.errors import UserError
from fracnet.utils.files import path_from_text

Overlays = Callable[[Batch], list[str]]
"""Draws a batch; returns the path of each readable image's picture, relative to the folder."""
FOLDER, PLAIN = "overlays", "plain"
CAPTION = "Research use only. Not a medical device, no diagnosis."
EMPTY = "The heatmap is empty: nothing raised the score."
MARGIN, TEXT_SIZE, LINE_HEIGHT, BAR_HEIGHT = 8, 13, 19, 12
NAME_BYTES = 120
"""File systems allow 255; a number and a suffix follow."""


def overlay_painter(predictor: ImagePredictor, folder: Path) -> Overlays:
    """Draws heatmaps of the decided class into `folder`/overlays, and plain images next to them.

    Raises UserError for a model without heatmaps.
    """
    if predictor.why_no_heatmaps:
        raise UserError(f"overlays=true: {predictor.why_no_heatmaps}; allowed: overlays=false.")
    names: set[str] = set()

    def paint(batch: Batch) -> list[str]:
        (folder / FOLDER / PLAIN).mkdir(parents=True, exist_ok=True)
        rows = batch.table[batch.table["error"] == ""]
        heats = predictor.heatmaps(batch)
        paths = []
        for i, (original, heat) in enumerate(zip(batch.originals, heats, strict=True)):
            row = rows.iloc[i]
            name = unique_name(str(row["path"]), names)
            image, warm, _ = enlarge(original.pixels, heat_on_original(heat, original), [])
            lines = caption_lines(row, bool(heat.any()))
            # The same caption below both, so that a viewer can switch between them.
            for path, shown in ((FOLDER, warm), (f"{FOLDER}/{PLAIN}", None)):
                file = path_from_text(folder, f"{path}/{name}")
                write_png(with_caption(draw_overlay(image, shown), lines), file)
            paths.append(f"{FOLDER}/{name}")
        return paths

    return paint


def plain_picture(overlay: str) -> str:
    """The path of the image without its heatmap, from that of its overlay."""
    return f"{FOLDER}/{PLAIN}/{Path(overlay).name}"


def unique_name(path: str, names: set[str]) -> str:
    """A name for the picture of a file: its own, safe for any file system, and added to `names`."""
    stem = re.sub(r"[^\w.-]+", "_", Path(path).stem).strip("._-")
    stem = stem.encode()[:NAME_BYTES].decode(errors="ignore") or "image"
    name, number = stem, 1
    while name.casefold() in names:  # some file systems do not distinguish upper and lower case
        number += 1
        name = f"{stem}-{number}"
    names.add(name.casefold())
    return f"{name}.png"


def heat_on_original(heat: np.ndarray, original: Original) -> np.ndarray:
    """A heatmap float32 [S, S] of the preprocessed image, as float32 [h, w] of the original."""
    left, top, width, height = original.frame
    rows, columns = original.pixels.shape
    across, down = width / columns, height / rows
    # Pixel centers are at half numbers, which OpenCV counts as whole ones.
    source = np.array(
        [[across, 0, left + across / 2 - 0.5], [0, down, top + down / 2 - 0.5]], dtype=np.float64
    )
    mapped = cv2.warpAffine(
        heat.astype(np.float32),
        source,
        (columns, rows),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(mapped, dtype=np.float32)


def caption_lines(row: pd.Series, colored: bool) -> list[str]:
    """File, class, probability and flags of a row. colored: whether the heatmap shows anything."""
    decision = row["decision"]
    flag = f"uncertain: {short_reason(row['reason'])}" if row["uncertain"] else "confident"
    lines = [
        Path(str(row["path"])).name,
        f"predicted: {decision}, calibrated probability {row[f'{PROB}{decision}']:.3f}, {flag}",
    ]
    if pd.notna(row["ood_score"]):
        relation = "above" if row["ood"] else "not above"
        lines.append(f"out-of-distribution score {row['ood_score']:.2f}, {relation} the limit of 1")
    return [*lines, *([] if colored else [EMPTY]), CAPTION]


def with_caption(picture: np.ndarray, lines: list[str]) -> np.ndarray:
    """uint8 RGB [H, W, 3] with a white strip below: the color bar, then the wrapped lines."""
    font = text_font(TEXT_SIZE)
    width = picture.shape[1]
    rows = [part for line in lines for part in wrapped(line, font, width - 2 * MARGIN)]
    top = 2 * MARGIN + BAR_HEIGHT + LINE_HEIGHT
    strip = Image.new("RGB", (width, top + LINE_HEIGHT * len(rows) + MARGIN), "white")
    pen = ImageDraw.Draw(strip)
    bar = color_bar(max(width - 2 * MARGIN, 1), BAR_HEIGHT)
    strip.paste(Image.fromarray(bar), (MARGIN, MARGIN))
    for text, x, anchor in (("0", MARGIN, "la"), ("1", MARGIN + bar.shape[1], "ra")):
        pen.text((x, MARGIN + BAR_HEIGHT), text, "black", font, anchor=anchor)
    middle = (MARGIN + bar.shape[1] / 2, MARGIN + BAR_HEIGHT)
    pen.text(middle, "heatmap, share of its maximum", "black", font, anchor="ma")
    for i, line in enumerate(rows):
        pen.text((MARGIN, top + LINE_HEIGHT * i), line, "black", font)
    return np.concatenate([picture, np.asarray(strip)])


@cache
def text_font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings: Pillow's own font has no umlauts or accents."""
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


def color_bar(width: int, height: int) -> np.ndarray:
    """uint8 RGB [height, width, 3]: the heatmap's colors from 0 to 1 over a grey image."""
    heat = np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))
    return draw_overlay(np.full((height, width), 119, np.uint8), heat)


def wrapped(text: str, font: Any, width: int) -> list[str]:
    """The text in lines of at most `width` pixels, broken at spaces, or anywhere in long words."""
    lines = [""]
    for word in re.findall(r"\S+\s*", text):
        if lines[-1] and font.getlength((lines[-1] + word).rstrip()) > width:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width and letter != " ":
                lines.append("")
            lines[-1] += letter
    return [line.rstrip() for line in lines]
