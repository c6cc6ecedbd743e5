"""How well heatmaps find the phantoms' fractures, and whether they go with the weights.

python experiments/localization/measure.py <folder of a run on mura_phantom>
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from fracnet.data.annotations import annotation_outlines
from fracnet.data.datamodule import RadiographData
from fracnet.models.classifier import Classifier
from fracnet.runs.build import data_from
from fracnet.runs.checkpoint import load_classifier, read_config
from fracnet.runs.run_folder import RunFolder
from fracnet.saliency.cam import CAM_METHODS, heatmaps
from fracnet.saliency.gallery import draw_overlay
from fracnet.saliency.localization import annotated_rows, localize
from fracnet.saliency.sanity_check import run_sanity_check
from fracnet.utils.progress import progress_bar

HERE = Path(__file__).parent
SHOWN = 6  # images of the picture
FINE = ("gradcam", "hirescam")


def measure(
    model: Classifier, data: RadiographData, fine: str, images: int
) -> Iterator[dict[str, Any]]:
    """Both checks by each method, as explain.json holds them.

    fine: a layer with a finer map than the last one's, which is scored by two methods as well.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for method, layer in [
        *((name, None) for name in CAM_METHODS),
        *((name, fine) for name in FINE),
    ]:
        how: dict[str, Any] = {
            "method": method,
            "layer": layer,
            "device": device,
            "progress": progress_bar,
        }
        found = {
            "localization": localize(model, data, **how),
            "sanity": run_sanity_check(model, data, images=images, **how),
        }
        for check in found.values():
            lines = (check or {}).get("sentences", [])
            print(f"\n{method}, layer {layer}:", *lines, sep="\n  ", flush=True)
        yield found


def picture(model: Classifier, data: RadiographData, fine: str) -> np.ndarray:
    """Marked test images, evenly spaced over the split: as they are, and under each kind of map."""
    rows = annotated_rows(data, "test")
    rows = rows[np.linspace(0, len(rows) - 1, SHOWN).round().astype(int)]
    images, targets = data.cache.images[rows], data.manifest.targets()[rows]
    marks = [annotation_outlines(data.manifest.table.iloc[row], data.preprocess) for row in rows]
    bands = [np.hstack([draw_overlay(image) for image in images])]
    for method, layer in [
        *((name, None) for name in CAM_METHODS),
        *((name, fine) for name in FINE),
    ]:
        maps = np.concatenate(list(heatmaps(model, images, targets, method=method, layer=layer)))
        drawn = [draw_overlay(*three) for three in zip(images, maps, marks, strict=True)]
        bands.append(np.hstack(drawn))
    return np.vstack(bands)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--root", help="of the phantoms, where not that of the run's config")
    parser.add_argument("--fine", default="blocks.4", help="a layer of a finer map")
    parser.add_argument("--images", type=int, default=60, help="of the loss of weights")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results.json")
    chosen = parser.parse_args()
    run = RunFolder(chosen.run)
    config = read_config(run, trust=False)
    model, data = load_classifier(run, trust=False), data_from(config)
    if chosen.root:
        data.dataset.root = chosen.root
    data.prepare_data()
    chosen.out.mkdir(parents=True, exist_ok=True)
    drawn = cv2.cvtColor(picture(model, data, chosen.fine), cv2.COLOR_RGB2BGR)
    small = cv2.resize(drawn, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(chosen.out / "heatmaps.jpg"), small, [cv2.IMWRITE_JPEG_QUALITY, 80])
    found = []
    for one in measure(model, data, chosen.fine, chosen.images):
        found.append(one)
        (chosen.out / "results.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
