"""Do heatmaps depend on the weights? A network loses its weights, and its maps should go too.

    lose_weights(model, data, *, method="gradcam", layer=None, batch_size=16, device="cpu",
                 images=60, draws=5, most_stages=6, seed=0, progress=no_progress) -> dict | None

`data` is set up. None where fewer than two test images of different patients have a map. Otherwise
plain values for explain.json:

    method, layer        as given (layer may be None)
    images, units, unit  test images, how many patients (studies, images) these are, and the word
    empty                further images that were left out, as they have no map to lose
    asked, held          how many images were asked for at most; how many the test split has
    draws                networks with weights of their own; the images are dealt out among them
    stages               [{"name", "weights": share lost so far, "correlation", "low", "high",
                         "empty": maps that went out}], the head first, all weights last; the
                         correlation is of the other maps, and None where all went out
    null                 {"correlation": mean, "low", "high": middle 95 %, "pairs"}: between maps of
                         different images
    verdict              "lost", "partly", "survives" or "unclear"
    model_dependent      true where lost or partly, false where it survives, None where unclear
    sentences            what this means, the verdict first

A correlation is Spearman's, over places, between an image's map before and after; the maps are
those of the class that the intact network named. Its interval is of t over the draws, so it knows
of both the images and the weights being a sample. After the loss of all weights the verdict is
"survives" where the correlation is not below the null's high. Where all of its interval is below,
the verdict is "partly" if its low is above the null's mean, and "lost" if its high is at most
`MARGIN` above that mean: a wide interval shows nothing. Otherwise, without an interval, or where
more than half of the maps went out, it is "unclear". Adebayo et al. 2018 (arXiv:1810.03292); the
null and the margin are fracnet's own.

A network loses its weights, block by block from the head down (Adebayo et al. 2018).

arXiv:1810.03292, cascading randomization. What is new is drawn so that signals keep their size on
the way through: a network of vanishing or exploding signals would make maps of nothing, and those
differ from any map for a reason that says nothing.

What the loss of weights did to the heatmaps, in sentences.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from fracnet.data.datamodule import RadiographData
from fracnet.evaluation.predictions import clusters_of
from fracnet.metrics.clusters import Clusters
from fracnet.metrics.intervals import LEVEL
from fracnet.models.classifier import Classifier
from fracnet.models.inference import evaluating, predict_logits
from fracnet.saliency.cam import heatmaps
from fracnet.saliency.localization import METHOD_NAMES
from fracnet.utils.progress import Progress, no_progress
from fracnet.utils.text import are, counted, limits

# Containers such as layer4, blocks and features are taken apart into what they hold.
DEPTH = 2
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Stage:
    """Blocks that lose their weights together. name: of the one nearest to the image.

    modules: those that hold the weights themselves.
    """

    name: str
    modules: tuple[nn.Module, ...]


def stages_of(backbone: nn.Module, images: Tensor, most: int = 6) -> list[Stage]:
    """All weights of a backbone in `most` stages at most, in the order in which they are lost.

    The head alone is first; the blocks below it are shared out evenly. Blocks are ordered by when
    they were reached with `images` float [N, 3, S, S], so the order in which a class lists its
    layers does not matter; what was not reached is in the last stage.
    """
    order = _reached(backbone, images)
    blocks: dict[str, list[nn.Module]] = {}
    for name, module in sorted(_holders(backbone), key=lambda pair: -order.get(pair[1], -1)):
        blocks.setdefault(".".join(name.split(".")[:DEPTH]), []).append(module)
    names = list(blocks)
    below = names[1:]
    parts = min(most - 1, len(below))
    cuts = [round(k * len(below) / parts) for k in range(parts + 1)] if parts else []
    groups = [names[:1], *(below[a:b] for a, b in pairwise(cuts))]
    return [
        Stage(group[-1] or "input", tuple(module for name in group for module in blocks[name]))
        for group in groups
    ]


def randomize(stage: Stage, generator: torch.Generator) -> None:
    """Draws new weights in place.

    Matrices and kernels: normal, mean 0, variance 2 / fan-in (He et al. 2015, arXiv:1502.01852).
    Scales of normalizations 1, all biases 0. Other weights, such as embeddings of places: normal
    with the mean and deviation that they had.
    """
    with torch.no_grad():
        for module in stage.modules:
            for name, weight in module.named_parameters(recurse=False):
                if name == "bias":
                    weight.zero_()
                elif isinstance(module, LINEAR) and name == "weight":
                    deviation = math.sqrt(2 / weight[0].numel())
                    weight.copy_(_normal(weight, generator) * deviation)
                elif "Norm" in type(module).__name__ and name == "weight":
                    weight.fill_(1.0)
                else:
                    spread, middle = weight.std(correction=0), weight.mean()
                    weight.copy_(_normal(weight, generator) * spread + middle)


def renormalize(model: Classifier, lost: Sequence[Stage], images: Sequence[Tensor]) -> None:
    """Batch normalization in lost stages takes its statistics anew, from batches [b, 1, S, S].

    Means and variances of lost weights would not fit the new ones; what is nearer to the image than
    any lost weight keeps its own. No label is looked at.
    """
    modules = [module for stage in lost for module in stage.modules]
    norms = [module for module in modules if isinstance(module, BATCH_NORMS)]
    norms = [norm for norm in norms if norm.running_mean is not None]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    with evaluating(model), torch.no_grad():
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
def weights_kept(model: nn.Module) -> Iterator[None]:
    """Whatever is done to weights and buffers within is undone at the end."""
    kept = {name: value.detach().clone() for name, value in model.state_dict().items()}
    try:
        yield
    finally:
        model.load_state_dict(kept)


def _normal(weight: Tensor, generator: torch.Generator) -> Tensor:
    # Drawn on the CPU: the same on every device.
    return torch.randn(weight.shape, generator=generator).to(weight)


def _holders(backbone: nn.Module) -> list[tuple[str, nn.Module]]:
    """Modules with weights of their own, by name."""
    return [
        (name, module)
        for name, module in backbone.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    ]


def _reached(backbone: nn.Module, images: Tensor) -> dict[nn.Module, int]:
    """When each module with weights was first called, counted from 0."""
    order: dict[nn.Module, int] = {}

    def note(module: nn.Module, _: object) -> None:
        order.setdefault(module, len(order))

    hooks = [module.register_forward_pre_hook(note) for _, module in _holders(backbone)]
    try:
        with evaluating(backbone), torch.no_grad():
            backbone(images)
    finally:
        for hook in hooks:
            hook.remove()
    return order


# A correlation from which on the maps count as the same.
SAME = 0.99

# Images from which on the result is not called one of few.
USUAL = 50


def went_out(stage: Mapping[str, Any], images: int) -> bool:
    """Whether more than half of the maps are blank after a stage: too few are left to judge by."""
    return bool(2 * stage["empty"] > images)


def sentences(told: Mapping[str, Any]) -> list[str]:
    """The verdict, the figures behind it, and what one must know to read them."""
    stages, null = told["stages"], told["null"]
    maps, last = f"The heatmaps ({METHOD_NAMES[told['method']]})", _number(stages[-1])
    others = (
        f"{null['correlation']:.2f} on average, the middle 95 % from {null['low']:.2f} to "
        f"{null['high']:.2f}"
    )
    verdict = {
        "survives": f"{maps} survive the loss of all weights: they show the image more than what "
        "was learned, and must not be taken for the network's reasons.",
        "partly": f"{maps} depend on the weights, but not only: without any trained weight a part "
        "of their order remains, which the image and the architecture give.",
        "lost": f"{maps} depend on the weights: without any trained one they resemble themselves "
        "hardly more than they resemble the map of another image.",
        "unclear": f"With {METHOD_NAMES[told['method']]} it is not shown whether the heatmaps "
        f"depend on the weights. {_why_unclear(told)}",
    }[told["verdict"]]
    if told["images"] < USUAL:
        verdict += f" That is of {counted(told['images'], 'image')} only."
    said = [
        verdict,
        f"Rank correlation with the trained network's maps: {last} once all weights were drawn "
        f"anew, {_number(stages[0])} when only the head ({stages[0]['name']}) was; maps of "
        f"different images: {others}.",
        f"From {counted(told['images'], 'test image')}{_whose(told)} and "
        f"{counted(told['draws'], 'draw')} of new weights; the interval knows of both.",
    ]
    if (stages[0]["correlation"] or 0) >= SAME and len(stages) > 1:
        said.append("The loss of the head alone left the maps as they were: they know no class.")
    if n := told["empty"]:
        said.append(f"{counted(n, 'further image')} without a map {are(n)} left out.")
    if n := stages[-1]["empty"]:
        said.append(
            f"Without any trained weight {counted(n, 'map')} of {told['images']} went out "
            f"altogether, and {are(n)} left out of that correlation."
        )
    if told["images"] < USUAL:
        said.append(f"{_why_few(told)}; {USUAL} or more are usual.")
    return said


def _why_unclear(told: Mapping[str, Any]) -> str:
    last = told["stages"][-1]
    if went_out(last, told["images"]):
        return "Most maps went out with the weights, and a blank map resembles nothing."
    if last["high"] is None:
        return "A single draw of new weights gives no interval."
    return "Without any trained weight their correlation may still be that of maps that survive."


def _why_few(told: Mapping[str, Any]) -> str:
    tried = told["images"] + told["empty"]
    if tried >= USUAL:
        return f"Only {told['images']} of {tried} test images had a map"
    if tried < told["held"]:
        return f"{told['asked']} of the {told['held']} test images were asked for"
    return f"The test split has {counted(told['held'], 'image')}"


def _whose(told: Mapping[str, Any]) -> str:
    if told["units"] == told["images"]:
        return f" of as many {told['unit']}s" if told["unit"] in ("patient", "study") else ""
    return f" ({told['unit']}s: {told['units']})"


def _number(stage: Mapping[str, Any]) -> str:
    if stage["correlation"] is None:
        return "not known, as all maps went out,"
    if stage["low"] is None:
        return f"{stage['correlation']:.2f}"
    return f"{stage['correlation']:.2f} ({limits(stage['low'], stage['high'], 2)})"


IMAGES, DRAWS, STAGES = 60, 5, 6

# Above the mean correlation of different images' maps: as far as that of lost maps may reach.
MARGIN = 0.3

# Side of the maps that are compared: finer than any network's own, and quickly ranked.
SIDE = 56

# Images that batch normalization takes its statistics from.
TO_NORMALIZE = 16
DEPENDENT = {"lost": True, "partly": True, "survives": False, "unclear": None}


def lose_weights(
    model: Classifier,
    data: RadiographData,
    *,
    method: str = "gradcam",
    layer: str | None = None,
    batch_size: int = 16,
    device: str = "cpu",
    images: int = IMAGES,
    draws: int = DRAWS,
    most_stages: int = STAGES,
    seed: int = 0,
    progress: Progress[Any] = no_progress,
) -> dict[str, Any] | None:
    """Correlations of maps before and after a loss of weights; see the top of this file.

    The model is as it was when this returns, also where it raises.
    """
    rows, clusters = _chosen(data, images, seed)
    pixels = data.cache.images[rows]
    before = next(model.parameters()).device
    try:
        with evaluating(model):
            every = np.arange(len(rows))
            logits = predict_logits(model, pixels, every, batch_size=batch_size, device=device)
            classes = logits.argmax(axis=1)

            def ranked(where: np.ndarray) -> np.ndarray:
                made = heatmaps(
                    model,
                    pixels[where],
                    classes[where],
                    method=method,
                    layer=layer,
                    batch_size=batch_size,
                    device=device,
                )
                return ranks(np.concatenate(list(made)))

            intact = ranked(every)
            used = np.flatnonzero(intact.any(axis=1))
            against = null(intact[used], clusters.ids[used])
            if against is None:
                return None
            draws = min(draws, len(used))
            shares = [used[draw::draws] for draw in range(draws)]
            sample = torch.from_numpy(pixels[used[:TO_NORMALIZE]])[:, None].to(device)
            stages = _cascade(model, intact, ranked, shares, sample, most_stages, seed, progress)
    finally:
        model.to(before)
    told: dict[str, Any] = {
        "method": method,
        "layer": layer,
        "images": len(used),
        "units": len(np.unique(clusters.ids[used])),
        "unit": clusters.unit,
        "empty": len(rows) - len(used),
        "asked": images,
        "held": len(data.rows("test")),
        "draws": draws,
        "stages": stages,
        "null": against,
        "verdict": verdict(stages[-1], against, len(used)),
    }
    told["model_dependent"] = DEPENDENT[told["verdict"]]
    told["sentences"] = sentences(told)
    return told


def _cascade(
    model: Classifier,
    intact: np.ndarray,
    ranked: Callable[[np.ndarray], np.ndarray],
    shares: list[np.ndarray],
    sample: torch.Tensor,
    most_stages: int,
    seed: int,
    progress: Progress[Any],
) -> list[dict[str, Any]]:
    """What each stage leaves: every draw loses all stages in turn, and shows its share of images.

    intact: ranks of the maps before. ranked: from places of images to ranks of the model's maps.
    sample: images for the batch normalization.
    """
    with torch.no_grad():
        stages = stages_of(model.backbone, model.input(sample[:1]), most_stages)
    left: list[list[np.ndarray]] = [[] for _ in stages]
    empty = np.zeros(len(stages), dtype=int)
    for draw in progress(range(len(shares)), len(shares), "losing weights"):
        share, generator = shares[draw], torch.Generator().manual_seed(seed + draw)
        with weights_kept(model):
            for number, stage in enumerate(stages):
                randomize(stage, generator)
                renormalize(model, stages[: number + 1], [sample])
                now = ranked(share)
                # A map that went out has no order to compare: it speaks neither for nor against.
                lit = now.any(axis=1)
                left[number].append((intact[share] * now).sum(axis=1)[lit])
                empty[number] += int((~lit).sum())
    lost = np.cumsum([_weights(stage.modules) for stage in stages])
    return [
        {"name": stage.name, "weights": float(lost[number] / lost[-1])}
        | over_draws([float(of.mean()) for of in left[number] if len(of)])
        | {"empty": int(empty[number])}
        for number, stage in enumerate(stages)
    ]


def ranks(maps: np.ndarray) -> np.ndarray:
    """Ranks of the values of maps float32 [n, S, S], float64 [n, SIDE * SIDE], each of unit length.

    The product of two is Spearman's correlation. A map that is the same everywhere has no ranking:
    0 everywhere, and so a correlation of 0 with any other.
    """
    small = [cv2.resize(one, (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel() for one in maps]
    ranked = stats.rankdata(np.stack(small), axis=1)
    centered = ranked - ranked.mean(axis=1, keepdims=True)
    length = np.sqrt((centered**2).sum(axis=1, keepdims=True))
    return np.asarray(np.divide(centered, length, out=np.zeros_like(centered), where=length > 0))


def null(ranked: np.ndarray, ids: np.ndarray) -> dict[str, Any] | None:
    """Correlations between maps of images of different clusters, `ids` int64 [n]; None if none."""
    one, two = np.triu_indices(len(ids), k=1)
    apart = ids[one] != ids[two]
    if not apart.any():
        return None
    found = (ranked @ ranked.T)[one[apart], two[apart]]
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {
        "correlation": float(found.mean()),
        "low": float(low),
        "high": float(high),
        "pairs": int(apart.sum()),
    }


def over_draws(values: list[float]) -> dict[str, float | None]:
    """Mean correlation of the draws, with an interval of t; None for a single draw, or for none."""
    if not values:
        return {"correlation": None, "low": None, "high": None}
    mean = float(np.mean(values))
    if len(values) < 2:
        return {"correlation": mean, "low": None, "high": None}
    reach = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * stats.sem(values))
    return {
        "correlation": mean,
        "low": max(-1.0, mean - reach),
        "high": min(1.0, mean + reach),
    }


def verdict(last: dict[str, Any], against: dict[str, Any], images: int) -> str:
    """survives, partly, lost or unclear: the correlation without trained weights against the null.

    images: how many there are, of which last["empty"] have no map left.
    """
    if went_out(last, images):
        return "unclear"
    if last["correlation"] >= against["high"]:
        return "survives"
    if last["high"] is None or last["high"] >= against["high"]:
        return "unclear"
    if last["low"] > against["correlation"]:
        return "partly"
    return "lost" if last["high"] <= against["correlation"] + MARGIN else "unclear"


def _chosen(data: RadiographData, images: int, seed: int) -> tuple[np.ndarray, Clusters]:
    """Rows of the test split, so many at most: one of each patient before any second one."""
    rows = np.random.default_rng(seed).permutation(data.rows("test"))
    ids = clusters_of(data.manifest.table.iloc[rows]).ids
    seen: dict[int, int] = {}
    turn = []
    for one in ids:
        turn.append(seen.get(int(one), 0))
        seen[int(one)] = turn[-1] + 1
    chosen = rows[np.argsort(turn, kind="stable")[:images]]
    return chosen, clusters_of(data.manifest.table.iloc[chosen])


def _weights(modules: tuple[torch.nn.Module, ...]) -> int:
    return sum(one.numel() for module in modules for one in module.parameters(recurse=False))
