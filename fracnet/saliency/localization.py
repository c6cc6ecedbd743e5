"""Do heatmaps locate the annotations? Scores against polygons and boxes, and against baselines.

Scores: the pointing game (Zhang et al. 2018, IJCV 126:1084), whether the maximum lies inside an
annotation; the same within the tolerance of that paper, 15 pixels; the energy-based pointing game
(Wang et al. 2020, CVPR workshops, Score-CAM), the share of the map inside; and intersection over
union of the annotations with the thresholded map. Baselines: maps that never see the network.

`localize` returns plain values for explain.json:

    method, layer                 as given (layer may be None)
    split                         "test"
    images, annotated             images scored; annotated test images (more, if `most` limits)
    units, unit                   number of patients (studies, images), and the word for them
    annotated_area                mean share of the image that is annotated
    empty                         maps that are 0 everywhere
    thresholds                    {"map", "center", "edges": share of the maximum}, "images":
                                  validation images that chose them; None if none is annotated
    scores                        {SCORE: ESTIMATE} of the heatmaps; iou only with thresholds
    baselines                     {BASELINE: {SCORE: ESTIMATE}}
    differences                   {BASELINE: {SCORE: ESTIMATE}}, heatmaps minus baseline, paired
    hits                          {path: 1 or 0}, the pointing game of each image
    verdict                       "better" (than every baseline, by the pointing game),
                                  "not better", or "too few" annotated test images
    sentences                     what this means, the verdict first

SCORE is one of `SCORE_NAMES`, BASELINE one of `BASELINE_NAMES` (`fracnet.saliency.methods`), and
ESTIMATE {"value", "low", "high", "method", "note"} with a 95 % interval by patient, or None and
the reason.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import scipy

from fracnet.data.annotations import annotation_outlines, outline_mask
from fracnet.data.datamodule import RadiographData
from fracnet.evaluation.predictions import clusters_of
from fracnet.metrics.clusters import Clusters
from fracnet.metrics.intervals import (
    LEVEL,
    ROUNDING,
    Interval,
    bootstrap,
    clustered_error,
    proportion,
)
from fracnet.metrics.intervals import score_bootstrap as score_limits
from fracnet.models.classifier import Classifier
from fracnet.saliency.cam import DEFAULTS, Settings, heatmaps
from fracnet.saliency.methods import (
    BASELINE_NAMES,
    CLASS_AGNOSTIC,
    LOCALIZATION,
    METHOD_NAMES,
    SCORE_NAMES,
)
from fracnet.utils import text
from fracnet.utils.text import counted, join_names

ScoreEstimate = dict[str, Any]
"""value, low, high, method and note (the reason if there is no interval)."""
TOLERANCE = 15 / 224
"""In shares of the image's side."""
THRESHOLDS = np.arange(1, 20) / 20
"""Shares of a map's maximum; validation chooses one of them."""
PRIMARY = "pointing"
"""The score behind the verdict, fixed in advance: of several scores, one wins by luck."""
MIN_IMAGES, MIN_VAL_IMAGES = 20, 5
"""With fewer annotated test images there is no verdict; with fewer to choose a threshold on, the
overlap counts neither way."""
MAX_IMAGES = 500
MAPS = ("map", "center", "edges")
CENTER_SPREAD = 0.25
"""Share of the side: two thirds of the prior lie within the middle half of the image, each way."""
EDGE_SPREAD = 1 / 28
"""Share of the side: about one cell of the 7 by 7 maps that most networks give."""


def localize(
    model: Classifier,
    data: RadiographData,
    settings: Settings = DEFAULTS,
    *,
    most: int = MAX_IMAGES,
    seed: int = 0,
) -> dict[str, Any] | None:
    """Score the true class's maps on annotated test images; see the top of this file.

    None if no test image has a polygon or box of its own class that lies in the preprocessed image.

    Args:
        model: with its input layer.
        data: set up (`RadiographData.setup`).
        most: images of each split at most, drawn by `seed` if there are more.
        seed: of that draw.
    """
    annotated = {split: annotated_rows(data, split) for split in ("val", "test")}
    if not len(annotated["test"]):
        return None
    compute = partial(heatmaps, model, settings=settings)
    rows = {split: _sample(every, most, seed) for split, every in annotated.items()}
    scores = {split: _score_rows(data, chosen, compute) for split, chosen in rows.items()}
    table, hits = data.table.iloc[rows["test"]], scores["test"]["map"].pointing
    result: dict[str, Any] = {
        "method": settings.method,
        "layer": settings.layer,
        "split": "test",
        "images": len(table),
        "annotated": len(annotated["test"]),
        **_summarize(scores["val"], scores["test"], clusters_of(table)),
        "hits": {str(p): int(hit) for p, hit in zip(table["path"], hits, strict=True)},
    }
    result["verdict"] = localization_verdict(result)
    result["sentences"] = localization_sentences(result)
    return result


def better_method(
    model: Classifier, data: RadiographData, settings: Settings = DEFAULTS, *, seed: int = 0
) -> tuple[str, str]:
    """Grad-CAM, or the localization head if it scores higher on validation; a sentence on why.

    By the `PRIMARY` score of annotated validation images, at a tie by energy. Grad-CAM and ""
    without such a head, for a named layer, and where no validation image is annotated. Arguments
    as for `localize`, but the method.
    """
    methods = ("gradcam", LOCALIZATION)
    if model.localizer is None or settings.layer is not None:
        return methods[0], ""
    rows = _sample(annotated_rows(data, "val"), MAX_IMAGES, seed)
    if not len(rows):
        return methods[0], ""
    images, classes = data.cache.images[rows], data.manifest.targets()[rows]
    scores = []
    for method in methods:
        maps = heatmaps(model, images, classes, replace(settings, method=method))
        each = score_maps(maps, _masks(data, rows))
        scores.append((float(each.pointing.mean()), float(each.energy.mean())))
    chosen = methods[int(scores[1] > scores[0])]
    return chosen, (
        f"Grad-CAM and {METHOD_NAMES[LOCALIZATION]} were compared by {SCORE_NAMES[PRIMARY]} on "
        f"{counted(len(rows), 'annotated validation image')}: {scores[0][0]:.3f} and "
        f"{scores[1][0]:.3f}."
    )


def annotated_rows(data: RadiographData, split: str) -> np.ndarray:
    """Rows of a split whose images have annotations of their own class inside, int64 [n]."""
    rows = data.rows(split)
    table = data.manifest.table
    has = [bool(annotation_outlines(table.iloc[row], data.preprocess)) for row in rows]
    return np.asarray(rows[np.array(has, dtype=bool)])


def _sample(rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


@dataclass(frozen=True)
class Scores:
    """Scores of n maps.

    pointing, pointing_tolerance: bool [n]. energy: float64 [n]. overlaps: float64
    [n, len(THRESHOLDS)]. area, tolerance_area: shares of the image that are annotated, or within
    the tolerance of an annotation, float64 [n]. empty: bool [n], maps that are 0 everywhere; all
    their scores are 0.
    """

    pointing: np.ndarray
    pointing_tolerance: np.ndarray
    energy: np.ndarray
    overlaps: np.ndarray
    area: np.ndarray
    tolerance_area: np.ndarray
    empty: np.ndarray


def _score_rows(
    data: RadiographData,
    rows: np.ndarray,
    compute: Callable[[np.ndarray, np.ndarray], Iterator[np.ndarray]],
) -> dict[str, Scores]:
    """Scores of each of `MAPS`; `compute` gives the heatmaps of images and classes."""
    images = data.cache.images[rows]
    prior = center_prior(data.preprocess.image_size)[None]
    maps = {
        "map": compute(images, data.manifest.targets()[rows]),
        "center": (prior for _ in rows),
        "edges": (edge_map(image)[None] for image in images),
    }
    return {name: score_maps(batches, _masks(data, rows)) for name, batches in maps.items()}


def _masks(data: RadiographData, rows: np.ndarray) -> Iterator[np.ndarray]:
    """What is annotated in each image, bool [S, S]."""
    for row in rows:
        outlines = annotation_outlines(data.manifest.table.iloc[row], data.preprocess)
        yield outline_mask(outlines, data.preprocess.image_size)


def score_maps(maps: Iterable[np.ndarray], masks: Iterable[np.ndarray]) -> Scores:
    """Scores of maps, batches float [b, S, S] from 0 to 1, by masks, bool [S, S] each.

    There are as many masks as maps; a map's maximum is 1, or the map is empty. Both are streamed.
    """
    singles = (heat for batch in maps for heat in batch)
    rows = [_score_map(heat, mask) for heat, mask in zip(singles, masks, strict=True)]

    def column(place: int, dtype: type) -> np.ndarray:
        return np.array([row[place] for row in rows], dtype=dtype)

    return Scores(
        pointing=column(0, bool),
        pointing_tolerance=column(1, bool),
        energy=column(2, np.float64),
        overlaps=column(3, np.float64).reshape(-1, len(THRESHOLDS)),
        area=column(4, np.float64),
        tolerance_area=column(5, np.float64),
        empty=column(6, bool),
    )


def _score_map(
    heat: np.ndarray, mask: np.ndarray
) -> tuple[bool, bool, float, np.ndarray, float, float, bool]:
    """The fields of `Scores` for one map, in their order."""
    assert heat.shape == mask.shape, (heat.shape, mask.shape)
    maximum, wide = float(heat.max()), dilate(mask)
    area, tolerance_area = float(mask.mean()), float(wide.mean())
    if maximum == 0:
        return False, False, 0.0, np.zeros(len(THRESHOLDS)), area, tolerance_area, True
    # Equal maxima, as of a plateau, count together: at least half of them inside is a hit.
    top = heat == maximum
    hit, near_hit = bool(mask[top].mean() >= 0.5), bool(wide[top].mean() >= 0.5)
    total = heat.sum(dtype=np.float64)
    energy = float(heat[mask].sum(dtype=np.float64) / total)
    # The number of thresholds that each pixel reaches: those at threshold k reach k or more.
    reached = np.searchsorted(THRESHOLDS.astype(heat.dtype), heat.ravel(), side="right")
    above, inside = _at_least(reached), _at_least(reached[mask.ravel()])
    overlaps = inside / (above + int(mask.sum()) - inside)
    return hit, near_hit, energy, overlaps, area, tolerance_area, False


def _at_least(reached: np.ndarray) -> np.ndarray:
    """How many pixels reach each threshold, float64 [len(THRESHOLDS)]."""
    counts = np.bincount(reached, minlength=len(THRESHOLDS) + 1)
    return counts[::-1].cumsum()[::-1][1:].astype(np.float64)


def dilate(mask: np.ndarray) -> np.ndarray:
    """Pixels of bool [S, S] and those within `TOLERANCE` of one, from center to center."""
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance <= TOLERANCE * mask.shape[-1])


def best_threshold(overlaps: np.ndarray) -> int:
    """Index of the highest mean overlap, of float64 [n, len(THRESHOLDS)]; n is not 0."""
    return int(overlaps.mean(axis=0).argmax())


def center_prior(size: int) -> np.ndarray:
    """A Gaussian, float32 [S, S], with maximum 1: radiographs are centered on what hurts.

    Its standard deviation is a quarter of the side.
    """
    place = (np.arange(size) + 0.5) / size - 0.5
    along = np.exp(-(place**2) / (2 * CENTER_SPREAD**2))
    heat = np.outer(along, along)
    return np.asarray(heat / heat.max(), dtype=np.float32)


def edge_map(image: np.ndarray) -> np.ndarray:
    """Edges of an image uint8 [S, S], float32 [S, S] from 0 to 1; 0 everywhere if it is flat.

    The gradient's magnitude (Sobel), smoothed to the coarseness of a network's map, because a
    sharp edge of a single pixel is not a location.
    """
    across, down = (cv2.Sobel(image, cv2.CV_16S, dx, 1 - dx) for dx in (1, 0))
    # In doubles by scipy: OpenCV's floats round differently from one call to the next.
    gradient = np.hypot(across.astype(np.float64), down.astype(np.float64))
    smooth = scipy.ndimage.gaussian_filter(gradient, EDGE_SPREAD * image.shape[-1])
    maximum = smooth.max()
    return np.asarray(smooth / maximum if maximum > 0 else smooth, dtype=np.float32)


def _summarize(
    val: Mapping[str, Scores], test: Mapping[str, Scores], clusters: Clusters
) -> dict[str, Any]:
    """The estimates of `localize` from the scores of `MAPS`. clusters: of the test images."""
    maps = test["map"]
    n_val = len(val["map"].area)
    best = {name: best_threshold(val[name].overlaps) for name in MAPS} if n_val else None
    values = {name: _values(test[name], best[name] if best else None) for name in MAPS}
    # A uniform map hits annotations as often as they are large, and overlaps best when it covers
    # the whole image.
    values["chance"] = {
        name: maps.tolerance_area if name == "pointing_tolerance" else maps.area
        for name in values["map"]
    }
    return {
        "units": clusters.count,
        "unit": clusters.unit,
        "annotated_area": float(maps.area.mean()),
        "empty": int(maps.empty.sum()),
        "thresholds": best
        and {name: float(THRESHOLDS[best[name]]) for name in MAPS} | {"images": n_val},
        "scores": _estimates(values["map"], clusters),
        "baselines": {name: _estimates(values[name], clusters) for name in BASELINE_NAMES},
        "differences": {
            name: {
                key: estimate_difference(values["map"][key] - values[name][key], clusters)
                for key in values["map"]
            }
            for name in BASELINE_NAMES
        },
    }


def _values(scores: Scores, threshold: int | None) -> dict[str, np.ndarray]:
    """Each score of each image, float64 [n] by name."""
    values = {
        "pointing": scores.pointing.astype(np.float64),
        "pointing_tolerance": scores.pointing_tolerance.astype(np.float64),
        "energy": scores.energy,
    }
    return values if threshold is None else values | {"iou": scores.overlaps[:, threshold]}


def _estimates(values: Mapping[str, np.ndarray], clusters: Clusters) -> dict[str, ScoreEstimate]:
    return {
        name: estimate_share(column == 1, clusters)
        if np.isin(column, (0, 1)).all()
        else estimate_mean(column, clusters)
        for name, column in values.items()
    }


def estimate_share(hits: np.ndarray, clusters: Clusters) -> ScoreEstimate:
    """Share of hits, bool [n], with Wilson's interval."""
    every = np.ones(len(hits), dtype=bool)
    return _as_dict(float(hits.mean()), proportion(hits, every, clusters, rows="images"))


def estimate_mean(values: np.ndarray, clusters: Clusters) -> ScoreEstimate:
    """Mean of float64 [n] between 0 and 1, with a score interval from a bootstrap of clusters."""
    value = float(values.mean())
    if clusters.count < 2:
        return _as_dict(value, Interval(None, None, "", clusters.lone))

    def means(weights: np.ndarray) -> np.ndarray:
        return np.asarray(weights @ values / weights.sum(axis=1))[:, None]

    return _as_dict(value, score_limits(value, bootstrap(means, clusters)[:, 0], clusters))


def estimate_difference(gaps: np.ndarray, clusters: Clusters) -> ScoreEstimate:
    """Mean of paired differences float64 [n] between -1 and 1, with a t interval by clusters.

    Its variance is that of a ratio, G / (G - 1) sum_g (sum_i (gap_i - mean) / n)^2. If all gaps are
    equal, the variance shows nothing: with p, the lower limit by Wilson of a share of all, the
    remaining share 1 - p could have a gap of -1, or of 1.
    """
    value, method = float(gaps.mean()), f"t by {clusters.unit}"
    if clusters.count < 2:
        return _as_dict(value, Interval(None, None, method, clusters.lone))
    moves = (gaps - value) / len(gaps) * np.sqrt(clusters.count / (clusters.count - 1))
    error, freedom = clustered_error(moves, clusters)
    if error > ROUNDING:
        reach = float(scipy.stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
        return _as_dict(value, Interval(max(-1.0, value - reach), min(1.0, value + reach), method))
    every = np.ones(len(gaps), dtype=bool)
    wilson = proportion(every, every, clusters, rows="images")
    assert wilson.low is not None, wilson
    same, other = wilson.low * value, 1 - wilson.low
    return _as_dict(value, Interval(same - other, same + other, f"{wilson.method}, all equal"))


def _as_dict(value: float, interval: Interval) -> ScoreEstimate:
    return {"value": value} | asdict(interval)


def format_score(estimate: ScoreEstimate) -> str:
    """`0.891 (0.839-0.927)`, or the value alone."""
    if estimate["low"] is None:
        return f"{estimate['value']:.3f}"
    return f"{estimate['value']:.3f} ({text.limits(estimate['low'], estimate['high'])})"


def localization_verdict(result: Mapping[str, Any]) -> str:
    """better or not better than every baseline by the `PRIMARY` score; too few to tell.

    Better is a difference whose interval lies above 0.
    """
    if result["images"] < MIN_IMAGES:
        return "too few"
    return "better" if PRIMARY in _better_scores(result) else "not better"


def localization_sentences(result: Mapping[str, Any]) -> list[str]:
    """The verdict, the scores behind it, and what a reader must know to interpret them."""
    return [*_verdict_sentences(result), *_score_sentences(result), *_limitations(result)]


def _better_scores(result: Mapping[str, Any]) -> list[str]:
    """Scores by which the heatmaps are better than every baseline."""
    gaps = result["differences"].values()
    return [name for name in _usable_scores(result) if all((g[name]["low"] or 0) > 0 for g in gaps)]


def _usable_scores(result: Mapping[str, Any]) -> list[str]:
    """All scores but the overlap, if too few images chose its threshold."""
    few = result["thresholds"] and result["thresholds"]["images"] < MIN_VAL_IMAGES
    return [name for name in result["scores"] if name != "iou" or not few]


def _verdict_sentences(result: Mapping[str, Any]) -> list[str]:
    maps = f"heatmaps ({METHOD_NAMES[result['method']]})"
    every = f"every baseline ({', '.join(BASELINE_NAMES.values())})"
    if result["verdict"] == "too few":
        images = counted(result["images"], "annotated test image")
        return [
            f"It is unclear whether the {maps} locate the annotations better than {every}: there "
            f"{text.are(result['images'])} {images}, and at least {MIN_IMAGES} are needed."
        ]
    verb = "locate" if result["verdict"] == "better" else "did not locate"
    sentences = [
        f"The {maps} {verb} the annotations better than {every} by {SCORE_NAMES[PRIMARY]}."
    ]
    others = [SCORE_NAMES[name] for name in _better_scores(result) if name != PRIMARY]
    if others:
        sentences.append(f"They are better than every baseline by {join_names(others)}.")
    for name, gaps in result["differences"].items():
        worse = [SCORE_NAMES[key] for key in _usable_scores(result) if (gaps[key]["high"] or 0) < 0]
        if worse:
            sentences.append(f"They are worse than {BASELINE_NAMES[name]} by {join_names(worse)}.")
    return sentences


def _score_sentences(result: Mapping[str, Any]) -> list[str]:
    thresholds = result["thresholds"]
    subject = "map" if result["method"] in CLASS_AGNOSTIC else "true class's map"
    level = f"{thresholds['map']:.2f}" if thresholds else ""
    forms = {
        "pointing": f"The maximum of the {subject} lies inside an annotation in {{}} of them",
        "pointing_tolerance": "It lies inside an annotation, or within "
        f"{100 * TOLERANCE:.1f} % of the image side of one, in {{}} of them",
        "energy": "On average, {} of the sum of the map lies inside the annotations",
        "iou": f"Thresholded at {level} of its maximum, the map overlaps with the annotations by "
        "{} (intersection over union)",
    }
    units = "" if result["unit"] == "image" else f" of {_count_units(result)}"
    sentences = [
        f"Measured on {counted(result['images'], 'annotated image')}{units} of the test split; the "
        f"annotations cover {100 * result['annotated_area']:.1f} % of an image on average."
    ]
    for key, estimate in result["scores"].items():
        baselines = ", ".join(
            f"{name} {format_score(scores[key])}" for name, scores in result["baselines"].items()
        )
        sentences.append(f"{forms[key].format(format_score(estimate))}; {baselines}.")
    if not thresholds:
        return [
            *sentences,
            "No validation image is annotated, so no threshold can be chosen and the overlap is "
            "not measured.",
        ]
    sentences.append(
        f"The threshold was chosen on {counted(thresholds['images'], 'annotated validation image')}"
        ", separately for each kind of map. Chance is a uniform map."
    )
    if thresholds["images"] < MIN_VAL_IMAGES:
        sentences.append(
            f"These are fewer than {MIN_VAL_IMAGES}, so the overlap cannot show whether the "
            "heatmaps are better or worse."
        )
    return sentences


def _limitations(result: Mapping[str, Any]) -> list[str]:
    sentences = []
    if result["annotated"] > result["images"]:
        sentences.append(
            f"These are {result['images']} of {result['annotated']} annotated test images, drawn "
            "at random."
        )
    if n := result["empty"]:
        evidence = "" if result["method"] in CLASS_AGNOSTIC else " for the true class"
        verbs = "is empty{} and counts as a miss" if n == 1 else "are empty{} and count as misses"
        sentences.append(f"{counted(n, 'heatmap')} {verbs.format(evidence)}.")
    return sentences


def _count_units(result: Mapping[str, Any]) -> str:
    unit = result["unit"]
    return counted(result["units"], unit if "," not in unit else f"cluster by {unit}")
