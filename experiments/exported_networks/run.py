"""Whether each shipped network answers in ONNX Runtime as it does in PyTorch.

OMP_NUM_THREADS=1 python -m experiments.exported_networks.run --images FOLDER
"""

import argparse
import gc
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from scipy.special import softmax

from experiments.small_phantoms import compose_config
from fracnet.data.preprocess import squash
from fracnet.inference.inputs import find_images, read_images
from fracnet.models.classifier import Classifier
from fracnet.models.inference import logits_and_features
from fracnet.onnx_export.golden import golden_images
from fracnet.onnx_export.network import network_model, why_no_map
from fracnet.utils.errors import UserError
from fracnet.utils.files import config_dir

OTHERS = ("timm", "hog_logistic")
"""Any network of timm, and a model that is no network."""
CLASSES = ("elbow", "fingers", "forearm", "humerus", "shoulder", "wrist")


def untrained(name: str) -> tuple[Classifier, int]:
    """The network of `model=NAME` with random weights, and its image size.

    Its running means and variances are drawn as well: of an untrained network they are 0 and 1,
    and an exporter that leaves them out would not be noticed.
    """
    plain = compose_config([f"model={name}", "data=upper_limb"])
    node = plain["model"] | ({"pretrained": False} if "pretrained" in plain["model"] else {})
    if node.get("normalize") == "weights":
        node["normalize"] = "imagenet"
    torch.manual_seed(0)
    optim = {"_target_": "torch.optim.SGD", "lr": 0.1}
    model = Classifier(node, CLASSES, optim, image_size=plain["image_size"]).eval()
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d) and part.running_mean is not None:
            assert part.running_var is not None
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    return model, plain["image_size"]


def compare(name: str, images: list[np.ndarray]) -> dict[str, Any]:
    """The largest difference of a probability over the images, and the map of the file."""
    model, side = untrained(name)
    no_map = why_no_map(model, side)
    network = network_model(model, side, with_map=not no_map)
    session = onnxruntime.InferenceSession(
        network.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    look, largest = logits_and_features(model), 0.0
    for image in images:
        pixels = squash(image, side)[None]
        (answer,) = session.run(["network_logits"], {"network_image": pixels[None]})
        expected, _ = look(pixels)
        differences = softmax(answer.astype(np.float64), axis=1) - softmax(expected, axis=1)
        largest = max(largest, float(np.abs(differences).max()))
    return {"model": name, "images": len(images), "difference": largest, "no_map": no_map}


def main() -> None:
    """Compare all, and write results.json beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", help="a folder of radiographs; else drawn images and noise")
    parser.add_argument("--count", type=int, default=20, help="radiographs to take at most")
    parser.add_argument("--models", nargs="+", help="instead of all under conf/model")
    options = parser.parse_args()
    if options.images:
        try:
            files = find_images([options.images]).files[: options.count]
        except UserError as error:
            raise SystemExit(f"error: {error}") from error
        images = [each.image for each in read_images(files, None, 1, 4) if each.image is not None]
    else:
        images = [image for image in golden_images() if image.dtype == np.uint8]
    names = options.models or sorted(
        file.stem for file in (config_dir() / "model").glob("*.yaml") if file.stem not in OTHERS
    )
    results = []
    for name in names:
        results.append(compare(name, images))
        print(json.dumps(results[-1]), flush=True)
        gc.collect()
    text = json.dumps(results, indent=1) + "\n"
    Path(__file__).with_name("results.json").write_text(text)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
