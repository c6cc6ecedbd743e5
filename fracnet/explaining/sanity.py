"""Do heatmaps depend on the weights? A network loses its weights, and its maps should go too.

    lose_weights(model, data, *, method="gradcam", layer=None, batch_size=16, device="cpu",
                 images=60, draws=5, most_stages=6, seed=0, show=unseen) -> dict | None

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
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from scipy import stats

from fracnet.data.datamodule import RadiographData
from fracnet.evaluation.intervals import LEVEL
from fracnet.evaluation.predictions import Clusters, clusters_of
from fracnet.explaining.maps import heatmaps
from fracnet.explaining.randomising import randomise, renormalise, stages_of, weights_kept
from fracnet.explaining.sanity_words import sentences, went_out
from fracnet.models.modes import evaluating
from fracnet.models.module import Classifier
from fracnet.models.prediction import predict_logits
from fracnet.progress import Show, unseen

IMAGES, DRAWS, STAGES = 60, 5, 6
# Above the mean correlation of different images' maps: as far as that of lost maps may reach.
MARGIN = 0.3
# Side of the maps that are compared: finer than any network's own, and quickly ranked.
SIDE = 56
# Images that batch normalisation takes its statistics from.
TO_NORMALISE = 16
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
    show: Show[Any] = unseen,
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
            sample = torch.from_numpy(pixels[used[:TO_NORMALISE]])[:, None].to(device)
            stages = _cascade(model, intact, ranked, shares, sample, most_stages, seed, show)
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
    show: Show[Any],
) -> list[dict[str, Any]]:
    """What each stage leaves: every draw loses all stages in turn, and shows its share of images.

    intact: ranks of the maps before. ranked: from places of images to ranks of the model's maps.
    sample: images for the batch normalisation.
    """
    with torch.no_grad():
        stages = stages_of(model.backbone, model.input(sample[:1]), most_stages)
    left: list[list[np.ndarray]] = [[] for _ in stages]
    empty = np.zeros(len(stages), dtype=int)
    for draw in show(range(len(shares)), len(shares), "losing weights"):
        share, generator = shares[draw], torch.Generator().manual_seed(seed + draw)
        with weights_kept(model):
            for number, stage in enumerate(stages):
                randomise(stage, generator)
                renormalise(model, stages[: number + 1], [sample])
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
    centred = ranked - ranked.mean(axis=1, keepdims=True)
    length = np.sqrt((centred**2).sum(axis=1, keepdims=True))
    return np.asarray(np.divide(centred, length, out=np.zeros_like(centred), where=length > 0))


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
