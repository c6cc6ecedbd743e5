"""Do heatmaps depend on the weights? The parameter randomization test of saliency maps.

Cascading randomization (Adebayo et al. 2018, arXiv:1810.03292): a network's weights are replaced by
random ones, block by block from the head down, and its maps should change with them. New weights
keep signals at their size: vanishing or exploding signals would make empty maps, which differ from
any map for a reason that shows nothing.

`run_sanity_check` returns plain values for explain.json:

    method, layer        as given (layer may be None)
    images, units, unit  test images, number of patients (studies, images), and the word for them
    empty                further images that were left out because their map is empty
    requested, available the most images requested; images of the test split
    draws                networks with random weights of their own, which share the images
    stages               [{"name", "weights": share randomized so far, "correlation", "low", "high",
                         "empty": maps that became empty}], the head first, all weights last; the
                         correlation leaves empty maps out, and is None if all are empty
    null                 {"correlation": mean, "low", "high": middle 95 %, "pairs"}: between maps of
                         different images
    verdict              "passed", "partial", "failed" or "inconclusive"
    model_dependent      true if passed or partial, false if failed, None if inconclusive
    sentences            what this means, the verdict first

A correlation is Spearman's, over pixels, between an image's map before and after; the maps are
those of the class that the trained network predicted. Its t interval is over the draws, so it
accounts for images and weights both being a sample. The correlation after randomizing all weights
decides:

    failed        it reaches the null's high or `UNCHANGED`, and the null leaves room
    partial       its interval lies above the null's mean, below its high and below `KEPT_PARTLY`
    passed        otherwise, if its high is at most `KEPT` and `MARGIN` above the null's mean: a
                  wide interval shows nothing
    inconclusive  otherwise; without an interval; if more than half of the maps became empty

The null leaves no room if its mean is within `MARGIN` of 1, as with maps of a fixed spot: then maps
that survive and maps that merely look like all others have the same correlation. The null and the
limits are fracnet's own. Even "passed" shows only that the maps depend on the weights, which is
true of an untrained network as well.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pandas as pd
import scipy
import torch
from torch import Tensor, nn

from fracnet.data.datamodule import RadiographData
from fracnet.evaluation.predictions import clusters_of
from fracnet.metrics.clusters import Clusters
from fracnet.metrics.intervals import LEVEL
from fracnet.models.classifier import Classifier
from fracnet.models.feature_maps import eval_mode
from fracnet.models.inference import predict_logits
from fracnet.saliency.cam import DEFAULTS, Settings, heatmaps
from fracnet.saliency.methods import METHOD_NAMES
from fracnet.utils.progress import Progress, no_progress
from fracnet.utils.text import are, counted, limits

IMAGES, DRAWS, STAGES = 60, 5, 6
MARGIN = 0.3
"""How far the maps of random weights may exceed the mean correlation of different images' maps."""
KEPT, KEPT_PARTLY = 0.5, 0.7
"""The most that maps may keep of themselves: a quarter or half of the variance of their ranks."""
UNCHANGED = 0.99
"""A correlation from which on maps count as the same."""
USUAL_IMAGES = 50
"""With fewer images, the result says so."""
LEVELS = 64
"""Steps of a map from 0 to its maximum: a fainter difference cannot be seen and has no rank."""
SIDE = 56
"""Side of the compared maps: finer than any network's own, and quickly ranked."""
NORM_IMAGES = 16
"""Images from which batch normalization takes its statistics."""
DEPTH = 2
"""Containers such as layer4, blocks and features are split into their parts."""
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
MODEL_DEPENDENT = {"passed": True, "partial": True, "failed": False, "inconclusive": None}


def run_sanity_check(
    model: Classifier,
    data: RadiographData,
    settings: Settings = DEFAULTS,
    *,
    images: int = IMAGES,
    draws: int = DRAWS,
    most_stages: int = STAGES,
    seed: int = 0,
) -> dict[str, Any] | None:
    """Correlations of maps before and after randomizing weights; see the top of this file.

    None if fewer than two test images of different patients have a map. The model is restored, also
    after an exception. data: set up.
    """
    rows, clusters = _choose_rows(data, images, seed)
    pixels = data.cache.images[rows]
    original_device = next(model.parameters()).device
    progress, batch_size, device = settings.progress, settings.batch_size, settings.device
    settings = replace(settings, progress=no_progress)  # shown by stages, not by batches
    try:
        with eval_mode(model):
            every = np.arange(len(rows))
            logits = predict_logits(model, pixels, every, batch_size=batch_size, device=device)
            classes = logits.argmax(axis=1)

            def ranked(places: np.ndarray) -> np.ndarray:
                batches = heatmaps(model, pixels[places], classes[places], settings)
                return rank_maps(np.concatenate(list(batches)))

            before = ranked(every)
            used = np.flatnonzero(before.any(axis=1))
            null = null_distribution(before[used], clusters.ids[used])
            if null is None:
                return None
            draws = min(draws, len(used))
            shares = [used[draw::draws] for draw in range(draws)]
            sample = torch.from_numpy(pixels[used[:NORM_IMAGES]])[:, None].to(device)
            stages = _cascade(model, before, ranked, shares, sample, most_stages, seed, progress)
    finally:
        model.to(original_device)
    verdict = sanity_verdict(stages[-1], null, len(used))
    result: dict[str, Any] = {
        "method": settings.method,
        "layer": settings.layer,
        "images": len(used),
        "units": len(np.unique(clusters.ids[used])),
        "unit": clusters.unit,
        "empty": len(rows) - len(used),
        "requested": images,
        "available": len(data.rows("test")),
        "draws": draws,
        "stages": stages,
        "null": null,
        "verdict": verdict,
        "model_dependent": MODEL_DEPENDENT[verdict],
    }
    return result | {"sentences": sanity_sentences(result)}


def _choose_rows(data: RadiographData, images: int, seed: int) -> tuple[np.ndarray, Clusters]:
    """At most `images` rows of the test split: one of each patient before any second one."""
    rows = np.random.default_rng(seed).permutation(data.rows("test"))
    ids = pd.Series(clusters_of(data.table.iloc[rows]).ids)
    turns = ids.groupby(ids).cumcount()
    chosen = rows[np.argsort(turns, kind="stable")[:images]]
    return chosen, clusters_of(data.table.iloc[chosen])


def _cascade(
    model: Classifier,
    before: np.ndarray,
    ranked: Callable[[np.ndarray], np.ndarray],
    shares: Sequence[np.ndarray],
    sample: Tensor,
    most_stages: int,
    seed: int,
    progress: Progress[Any],
) -> list[dict[str, Any]]:
    """The result of each stage: every draw randomizes all stages in turn, for its share of images.

    before: ranks of the original maps. ranked: from places of images to ranks of the model's maps.
    sample: images for batch normalization.
    """
    with torch.no_grad():
        stages = randomization_stages(model.backbone, model.input(sample[:1]), most_stages)
    correlations: list[list[np.ndarray]] = [[] for _ in stages]
    empty = np.zeros(len(stages), dtype=int)
    for draw in progress(range(len(shares)), len(shares), "randomizing weights"):
        share, generator = shares[draw], torch.Generator().manual_seed(seed + draw)
        with weights_restored(model):
            for number, stage in enumerate(stages):
                randomize(stage, generator)
                renormalize(model, stages[: number + 1], [sample])
                after = ranked(share)
                # An empty map has no order to compare: it is evidence for neither side.
                present = after.any(axis=1)
                correlations[number].append((before[share] * after).sum(axis=1)[present])
                empty[number] += int((~present).sum())
    sizes = [
        sum(w.numel() for module in stage.modules for w in module.parameters(recurse=False))
        for stage in stages
    ]
    randomized = np.cumsum(sizes)
    return [
        {"name": stage.name, "weights": float(randomized[number] / randomized[-1])}
        | draws_estimate([float(part.mean()) for part in correlations[number] if len(part)])
        | {"empty": int(empty[number])}
        for number, stage in enumerate(stages)
    ]


@dataclass(frozen=True)
class Stage:
    """Blocks that are randomized together. name: of the one nearest to the image.

    modules: those that hold the weights themselves.
    """

    name: str
    modules: tuple[nn.Module, ...]


def randomization_stages(backbone: nn.Module, images: Tensor, most: int = STAGES) -> list[Stage]:
    """All weights of a backbone in at most `most` stages, in the order of randomization.

    The head alone is first; the blocks below it are split evenly. Blocks are ordered by when
    `images`, float [N, 3, S, S], reach them, so the order in which a class lists its layers does
    not matter; what is never reached is in the last stage.
    """
    modules = backbone.named_modules()
    holders = [(name, m) for name, m in modules if list(m.parameters(recurse=False))]
    order = _call_order(backbone, [module for _, module in holders], images)
    blocks: dict[str, list[nn.Module]] = {}
    for name, module in sorted(holders, key=lambda pair: -order.get(pair[1], -1)):
        blocks.setdefault(".".join(name.split(".")[:DEPTH]), []).append(module)
    names = list(blocks)
    below = names[1:]
    parts = min(most - 1, len(below))
    ends = [round(k * len(below) / parts) for k in range(parts + 1)] if parts else []
    groups = [names[:1], *(below[start:end] for start, end in pairwise(ends))]
    return [
        Stage(group[-1] or "input", tuple(module for name in group for module in blocks[name]))
        for group in groups
    ]


def _call_order(
    backbone: nn.Module, modules: Sequence[nn.Module], images: Tensor
) -> dict[nn.Module, int]:
    """When each module was first called, counted from 0."""
    order: dict[nn.Module, int] = {}

    def note(module: nn.Module, _: object) -> None:
        order.setdefault(module, len(order))

    hooks = [module.register_forward_pre_hook(note) for module in modules]
    try:
        with eval_mode(backbone), torch.no_grad():
            backbone(images)
    finally:
        for hook in hooks:
            hook.remove()
    return order


def randomize(stage: Stage, generator: torch.Generator) -> None:
    """Replace the weights of a stage in place.

    Matrices and kernels: normal, mean 0, variance 2 / fan-in (He et al. 2015, arXiv:1502.01852).
    Scales of normalization layers 1, all biases 0. Other weights, such as position embeddings:
    normal with the mean and standard deviation that they had.
    """

    def normal(weight: Tensor) -> Tensor:
        # Drawn on the CPU: the same on every device.
        return torch.randn(weight.shape, generator=generator).to(weight)

    with torch.no_grad():
        for module in stage.modules:
            for name, weight in module.named_parameters(recurse=False):
                if name == "bias":
                    weight.zero_()
                elif isinstance(module, LINEAR) and name == "weight":
                    weight.copy_(normal(weight) * math.sqrt(2 / weight[0].numel()))
                elif "Norm" in type(module).__name__ and name == "weight":
                    weight.fill_(1.0)
                else:
                    deviation, mean = weight.std(correction=0), weight.mean()
                    weight.copy_(normal(weight) * deviation + mean)


def renormalize(model: Classifier, stages: Sequence[Stage], images: Sequence[Tensor]) -> None:
    """Recompute the statistics of batch normalization in randomized stages, from batches.

    The old means and variances would not fit the new weights; layers closer to the image than any
    randomized weight keep theirs. No label is used. images: [b, 1, S, S] each.
    """
    modules = [module for stage in stages for module in stage.modules]
    norms = [module for module in modules if isinstance(module, BATCH_NORMS)]
    norms = [norm for norm in norms if norm.running_mean is not None]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    with eval_mode(model), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over the batches
            norm.train()
        try:
            for batch in images:
                model(batch)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum


@contextmanager
def weights_restored(model: nn.Module) -> Iterator[None]:
    """Undo all changes of weights and buffers at the end of the block."""
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    try:
        yield
    finally:
        model.load_state_dict(state)


def rank_maps(maps: np.ndarray) -> np.ndarray:
    """Ranks of the values of maps float32 [n, S, S], float64 [n, SIDE * SIDE], each of unit length.

    The product of two is Spearman's correlation, with ties below a step of `LEVELS`. A uniform map
    has no ranking: it becomes 0 everywhere, and so has a correlation of 0 with any other.
    """
    small = np.stack(
        [cv2.resize(m, (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel() for m in maps]
    )
    most = small.max(axis=1, keepdims=True)
    steps = np.rint(np.divide(LEVELS * small, most, out=np.zeros_like(small), where=most > 0))
    ranked = scipy.stats.rankdata(steps, axis=1)
    centered = ranked - ranked.mean(axis=1, keepdims=True)
    length = np.sqrt((centered**2).sum(axis=1, keepdims=True))
    return np.asarray(np.divide(centered, length, out=np.zeros_like(centered), where=length > 0))


def null_distribution(ranked: np.ndarray, ids: np.ndarray) -> dict[str, Any] | None:
    """Correlations between maps of images of different clusters, `ids` int64 [n]; None if none."""
    left, right = np.triu_indices(len(ids), k=1)
    different = ids[left] != ids[right]
    if not different.any():
        return None
    correlations = (ranked @ ranked.T)[left[different], right[different]]
    low, high = np.quantile(correlations, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {
        "correlation": float(correlations.mean()),
        "low": float(low),
        "high": float(high),
        "pairs": int(different.sum()),
    }


def draws_estimate(values: Sequence[float]) -> dict[str, float | None]:
    """Mean correlation of the draws with a t interval; None for a single draw, or for none."""
    if not values:
        return {"correlation": None, "low": None, "high": None}
    mean = float(np.mean(values))
    if len(values) < 2:
        return {"correlation": mean, "low": None, "high": None}
    reach = float(scipy.stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * scipy.stats.sem(values))
    return {"correlation": mean, "low": max(-1.0, mean - reach), "high": min(1.0, mean + reach)}


def sanity_verdict(last: Mapping[str, Any], null: Mapping[str, Any], images: int) -> str:
    """passed, partial, failed or inconclusive: the last stage against the null.

    images: how many there are, of which last["empty"] have no map left.
    """
    if _mostly_empty(last, images):
        return "inconclusive"
    if last["correlation"] >= min(null["high"], UNCHANGED):
        return "failed" if _has_room(null) else "inconclusive"
    if last["high"] is None or last["high"] >= min(null["high"], KEPT_PARTLY):
        return "inconclusive"
    if last["low"] > null["correlation"]:
        return "partial"
    passed = last["high"] <= min(null["correlation"] + MARGIN, KEPT)
    return "passed" if passed else "inconclusive"


def _has_room(null: Mapping[str, Any]) -> bool:
    """Whether maps of different images differ enough to recognize maps that survive."""
    return bool(null["correlation"] + MARGIN < 1)


def _mostly_empty(stage: Mapping[str, Any], images: int) -> bool:
    """Whether more than half of the maps became empty, which leaves too few for a verdict."""
    return bool(2 * stage["empty"] > images)


def sanity_sentences(result: Mapping[str, Any]) -> list[str]:
    """The verdict, the numbers behind it, and what a reader must know to interpret them."""
    first, last, null = result["stages"][0], result["stages"][-1], result["null"]
    method, images = METHOD_NAMES[result["method"]], result["images"]
    verdict = {
        "failed": f"Sanity check failed: the heatmaps ({method}) survive the randomization of all "
        "weights. They reflect the image rather than what the network learned, so they do not "
        "explain its predictions.",
        "partial": f"Sanity check partly passed: the heatmaps ({method}) depend on the weights, "
        "but not only on them. Without any trained weight, part of their order remains, which "
        "comes from the image and the architecture.",
        "passed": f"Sanity check passed: randomizing the weights destroys the heatmaps ({method}), "
        "so they depend on the weights. With random weights, a map resembles the original hardly "
        "more than the map of another image does. This does not show that training shaped "
        "them: maps of an untrained network depend on its weights too.",
        "inconclusive": f"Sanity check inconclusive: with {method}, it is unclear whether the "
        f"heatmaps depend on the weights. {_why_inconclusive(result)}",
    }[result["verdict"]]
    if images < USUAL_IMAGES:
        verdict += f" This rests on only {counted(images, 'image')}."
    sentences = [
        verdict,
        f"Rank correlation with the trained network's maps: {_correlation(last)} after randomizing "
        f"all weights, {_correlation(first)} after randomizing only the head ({first['name']}); "
        f"between maps of different images: {null['correlation']:.2f} on average, the middle 95 % "
        f"from {null['low']:.2f} to {null['high']:.2f}.",
        f"Measured on {counted(images, 'test image')}{_units(result)} with "
        f"{counted(result['draws'], 'draw')} of new weights; the interval accounts for both.",
    ]
    if (first["correlation"] or 0) >= UNCHANGED and len(result["stages"]) > 1:
        sentences.append(
            "Randomizing the head alone left the maps unchanged: they do not depend on the class."
        )
    if n := result["empty"]:
        sentences.append(f"{counted(n, 'further image')} without a map {are(n)} left out.")
    if n := last["empty"]:
        verb = "was" if n == 1 else "were"
        sentences.append(
            f"Without any trained weight, {counted(n, 'map')} of {images} {verb} empty and "
            f"{are(n)} left out of that correlation."
        )
    if images < USUAL_IMAGES:
        sentences.append(f"{_why_few(result)}; {USUAL_IMAGES} or more are usual.")
    return sentences


def _why_inconclusive(result: Mapping[str, Any]) -> str:
    last = result["stages"][-1]
    if _mostly_empty(last, result["images"]):
        return "Most maps became empty with random weights, and an empty map resembles nothing."
    if last["high"] is None:
        return "A single draw of new weights gives no interval."
    if not _has_room(result["null"]):
        return (
            "Maps of different images already resemble each other so closely that maps that "
            "survive random weights would look the same."
        )
    return "Without any trained weight, their correlation may still be that of maps that survive."


def _why_few(result: Mapping[str, Any]) -> str:
    tried = result["images"] + result["empty"]
    if tried >= USUAL_IMAGES:
        return f"Only {result['images']} of {tried} test images had a map"
    if tried < result["available"]:
        requested, available = result["requested"], result["available"]
        return f"Only {requested} of the {available} test images were requested"
    return f"The test split has {counted(result['available'], 'image')}"


def _units(result: Mapping[str, Any]) -> str:
    unit = result["unit"]
    if result["units"] < result["images"]:
        return f" ({counted(result['units'], unit)})"
    plural = {"patient": "patients", "study": "studies"}.get(unit)
    return f" of as many {plural}" if plural else ""


def _correlation(stage: Mapping[str, Any]) -> str:
    if stage["correlation"] is None:
        return "unknown, because all maps were empty,"
    if stage["low"] is None:
        return f"{stage['correlation']:.2f}"
    return f"{stage['correlation']:.2f} ({limits(stage['low'], stage['high'], 2)})"
