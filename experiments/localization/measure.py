"""How well heatmaps locate the phantoms' fractures, and whether they depend on the weights.

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
from fracnet.saliency.cam import CAM_METHODS, Settings, heatmaps
from fracnet.saliency.drawing import draw_overlay
from fracnet.saliency.localization import annotated_rows, localize
from fracnet.saliency.sanity_check import run_sanity_check
from fracnet.utils.progress import progress_bar

FOLDER = Path(__file__).parent
PICTURE_IMAGES = 6
FINE_METHODS = ("gradcam", "hirescam")


def methods_and_layers(fine: str) -> list[tuple[str, str | None]]:
    """Every method at the last layer (None), and `FINE_METHODS` at the layer `fine`."""
    return [*((name, None) for name in CAM_METHODS), *((name, fine) for name in FINE_METHODS)]


def measure(
    model: Classifier, data: RadiographData, fine: str, images: int
) -> Iterator[dict[str, Any]]:
    """Both checks for each method, in the format of explain.json.

    fine: a layer with a finer map than the last layer; `FINE_METHODS` are measured there as well.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for method, layer in methods_and_layers(fine):
        settings = Settings(method, layer, device=device, progress=progress_bar)
        result = {
            "localization": localize(model, data, settings),
            "sanity": run_sanity_check(model, data, settings, images=images),
        }
        for check in result.values():
            lines = (check or {}).get("sentences", [])
            print(f"\n{method}, layer {layer}:", *lines, sep="\n  ", flush=True)
        yield result


def picture(model: Classifier, data: RadiographData, fine: str) -> np.ndarray:
    """Annotated test images, evenly spaced over the split: plain, then with each kind of map."""
    rows = annotated_rows(data, "test")
    rows = rows[np.linspace(0, len(rows) - 1, PICTURE_IMAGES).round().astype(int)]
    images, targets = data.cache.images[rows], data.manifest.targets()[rows]
    outlines = [annotation_outlines(data.manifest.table.iloc[row], data.preprocess) for row in rows]
    bands = [np.hstack([draw_overlay(image) for image in images])]
    for method, layer in methods_and_layers(fine):
        maps = np.concatenate(
            list(heatmaps(model, images, targets, Settings(method=method, layer=layer)))
        )
        overlays = [draw_overlay(*parts) for parts in zip(images, maps, outlines, strict=True)]
        bands.append(np.hstack(overlays))
    return np.vstack(bands)


def main() -> None:
    """Write heatmaps.jpg and results.json for a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--root", help="folder of the phantoms (default: that of the run's config)")
    parser.add_argument("--fine", default="blocks.4", help="a layer with a finer map")
    parser.add_argument("--images", type=int, default=60, help="images for the sanity check")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of results.json")
    options = parser.parse_args()
    run = RunFolder(options.run)
    config = read_config(run, trust=False)
    model, data = load_classifier(run, trust=False), data_from(config)
    if options.root:
        data.dataset.root = options.root
    data.prepare_data()
    options.out.mkdir(parents=True, exist_ok=True)
    image = cv2.cvtColor(picture(model, data, options.fine), cv2.COLOR_RGB2BGR)
    small = cv2.resize(image, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(options.out / "heatmaps.jpg"), small, [cv2.IMWRITE_JPEG_QUALITY, 80])
    results = []
    for result in measure(model, data, options.fine, options.images):
        results.append(result)
        (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
