"""A network split into its frozen body and its head: features of images, computed once.

The features are the input of the head. They replace the body where that never changes: training the
head, classical fits, the nearest neighbors of the OOD check.
"""

import copy
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import albumentations
import numpy as np
import torch
import xxhash
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from fracnet.config.schema import Config
from fracnet.data.datamodule import RadiographData
from fracnet.data.feature_cache import Features, HeadFeatures, cached_features
from fracnet.data.samplers import Draw
from fracnet.models.classifier import Classifier
from fracnet.models.feature_maps import eval_mode
from fracnet.models.heads import find_heads
from fracnet.models.inference import logits_and_features
from fracnet.utils.shared import shared

TRIED = 4
"""Images on which a network is compared with its parts."""
CPU_BATCH = 4
"""Images at once on a CPU. glibc returns blocks of over 32 MB, which the first layers of 32 images
need, to the system at once, and mapping them again may take as long as the network: 69 ms of
processor time per image of EfficientNet-Lite0 instead of 33 (two virtual cores)."""


def why_whole(model: Classifier, size: int) -> str:
    """A clause on why the network is no constant body and a head; "" where it is.

    Draws no random number from torch's global generator.
    """
    heads = find_heads(model.backbone, "model.freeze")
    if len(heads) != 1:
        return f"it has {len(heads)} heads"
    inside = {id(module) for module in heads[0].modules()}
    body = [(k, m) for k, m in model.backbone.named_modules() if id(m) not in inside]
    for name, module in body:
        rate = module.p if isinstance(module, _DropoutNd) else 0.0
        rate = module.drop_prob if isinstance(module, DropPath) else rate
        if rate:
            return f"its layer {name} drops units at random in training"
    trained = {id(weight) for weight in heads[0].parameters()}
    if any(id(w) in trained for _, m in body for w in m.parameters(recurse=False)):
        return "its head shares weights with the rest"
    pixels = np.random.default_rng(0).integers(0, 256, (TRIED, 1, size, size), np.uint8)
    images = torch.from_numpy(pixels).to(model.device)
    twin = copy.deepcopy(model.backbone)  # a pass in training mode may change statistics
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        pixels = model.input(images)
        features, output, logits = _pass(twin.eval(), pixels)
        # Not only close: a layer behind it may change logits little before it is trained.
        if features.ndim != 2 or not torch.equal(output, logits):
            return "its output is not that of its last layer for one vector per image"
        if not torch.allclose(find_heads(twin, "")[0](features), logits, rtol=1e-4, atol=1e-5):
            return "its last layer alone gives another output"
        twin.train()
        for layer in twin.modules():
            if isinstance(layer, _NormBase):
                layer.eval()
        if not torch.equal(_pass(twin, pixels)[0], features):
            return "its frozen part behaves differently in training"
        before = model.backbone.state_dict()
        if not all(torch.equal(before[name], now) for name, now in twin.state_dict().items()):
            return "its frozen part changes in training"
    return ""


def _pass(backbone: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The head's input and output, and the network's, for normalized images [n, 3, S, S]."""
    seen: list[Tensor] = []
    (head,) = find_heads(backbone, "model.freeze")
    hook = head.register_forward_hook(lambda _, args, output: seen.extend((args[0], output)))
    try:
        logits: Tensor = backbone(pixels)
    finally:
        hook.remove()
    return seen[0], seen[1], logits


@dataclass(eq=False)
class NetworkFeatures:
    """Features of the images of `data`, which is set up, in the body of a network."""

    model: Classifier
    config: Config
    data: RadiographData
    device: str
    progress: bool

    @cached_property
    def _body(self) -> str:
        return _body_hash(self.model, self.config)

    def _compute(self, pixels: np.ndarray) -> np.ndarray:
        n = CPU_BATCH if self.device == "cpu" else len(pixels) or 1
        parts = []
        with eval_mode(self.model):
            compute = logits_and_features(self.model, self.device)
            for start in range(0, len(pixels) or 1, n):
                features = compute(pixels[start : start + n])[1]
                assert features is not None, "`why_whole` found one head"
                parts.append(features)
        return np.concatenate(parts)

    def of_images(self) -> Features:
        """Float32 [N, F] of the rows of the manifest."""
        return self._cached(np.arange(len(self.data.manifest.table)), None)

    def for_training(self) -> HeadFeatures:
        """All that a head trains on, by the config's `model.freeze` and `augment.views`.

        A view has the train rows, augmented as in the epoch of its number.
        """
        freeze, train = self.config.model.freeze, self.data.rows("train")
        places = np.full(len(self.data.manifest.table), -1, np.int64)
        places[train] = np.arange(len(train))
        views = [self._cached(train, view) for view in range(self.config.augment.views)]
        epochs = None if freeze == "backbone" else int(freeze)
        return HeadFeatures(self.of_images(), views, places, epochs)

    def _cached(self, rows: np.ndarray, view: int | None) -> Features:
        data, config = self.data, self.config
        depends_on: dict[str, Any] = {"body": self._body, "images": data.cache.path.name}
        what = f"{data.manifest.name}, features of {config.model.target.rpartition('.')[2]}"
        if view is not None:
            targets = data.manifest.targets()[rows]
            what += f", augmented view {view + 1}"
            depends_on |= {
                "view": view,
                "seed": config.seed,
                "augment": config.augment.transforms,
                "imbalance": config.imbalance.model_dump(),
                "version": albumentations.__version__,
                # Which class a row has decides how augment_minority augments it.
                "rows": hashlib.sha256(rows.tobytes() + targets.tobytes()).hexdigest(),
            }

        def batches() -> Iterator[np.ndarray]:
            for batch in data.row_loader(rows, view):
                yield batch["image"][:, 0].numpy()

        def some(places: Sequence[int]) -> np.ndarray:
            draws = [Draw(view or 0, int(rows[place])) for place in places]
            pixels: np.ndarray = (
                data.images_of(view is not None).__getitems__(draws)["image"][:, 0].numpy()
            )
            return pixels

        def cached() -> Features:
            size = len(rows), config.image_size
            return cached_features(
                depends_on, size, batches, some, self._compute, name=what, progress=self.progress
            )

        return shared(f"features {view}", json.dumps(depends_on), cached)


def _body_hash(model: Classifier, config: Config) -> str:
    """Identifies the input layer, the architecture and the weights of all but the head."""
    head = find_heads(model.backbone, "model.freeze")[0]
    inside = {id(module) for module in head.modules()}
    layers = [
        f"{name} {type(module).__qualname__}({module.extra_repr()})"
        for name, module in model.backbone.named_modules()
        if id(module) not in inside
    ]
    own = {id(tensor) for tensor in [*head.parameters(), *head.buffers()]}
    node = config.model.plain()
    digest = xxhash.xxh3_128(json.dumps([node["_target_"], torch.__version__]).encode())
    digest.update("\n".join(layers).encode())
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in own or not name.startswith(("backbone.", "input.")):
            continue
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
