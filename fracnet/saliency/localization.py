"""Do heatmaps point to what is marked? Scored against marks, and against maps that see no network.

    localize(model, data, *, method="gradcam", layer=None, batch_size=16, device="cpu",
             most=500, seed=0, progress=no_progress) -> dict | None

`data` is set up (`RadiographData.setup`). None where no test image has a polygon or box of its own
class that can be placed. Otherwise plain values for explain.json:

    method, layer                 as given (layer may be None)
    split                         "test"
    images, marked                images scored; test images with marks (more, if `most` has cut)
    units, unit                   how many patients (studies, images) these are; the word for them
    area                          mean share of the image that is marked
    empty                         maps that are 0 everywhere
    cuts                          {"map", "center", "edges": share of the maximum}, "images": val
                                  images that chose them; None where none of those is marked
    scores                        {SCORE: FIGURE} of the heatmaps; iou only where cuts is not None
    baselines                     {BASELINE: {SCORE: FIGURE}}
    differences                   {BASELINE: {SCORE: FIGURE}}, heatmaps less baseline, paired
    verdict                       "better" (than each baseline, by the pointing game), "not better",
                                  or "too few" (marked test images to tell)
    sentences                     what this means, the verdict first

with SCORE one of pointing, near, energy, iou (see `scores`); BASELINE one of center, edges, chance;
and FIGURE {"value", "low", "high", "method", "note"}: a 95 % interval by patient, or None and why.

Means over images and their differences, with intervals that know whose images they are.

How well a map finds what is marked: pointing game, energy inside, overlap.

Pointing game: Zhang et al. 2018 (IJCV 126:1084), whether the highest place lies in a mark; without
tolerance, and near: within their 15 pixels of one. Energy inside: Wang et al. 2020 (CVPR workshops,
Score-CAM). Overlap: intersection over union of the marks with the places where the map reaches a
level.

What the scores of `localization` mean, in sentences.

Maps that know nothing of the network: what a heatmap must beat to have found anything.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from scipy import stats
from scipy.ndimage import gaussian_filter

from fracnet.data.annotations import mask_of, outlines
from fracnet.data.datamodule import RadiographData
from fracnet.evaluation.predictions import clusters_of
from fracnet.metrics.clusters import Clusters
from fracnet.metrics.intervals import LEVEL, ROUNDING, Interval, bootstrap, proportion, spread
from fracnet.metrics.intervals import score as score_limits
from fracnet.models.classifier import Classifier
from fracnet.saliency.cam import heatmaps
from fracnet.utils import text
from fracnet.utils.progress import Progress, no_progress
from fracnet.utils.text import counted

Figure = dict[str, Any]
"""value, low, high, method and note (why there is no low and high, where there is none)."""


def share(hits: np.ndarray, clusters: Clusters) -> Figure:
    """Share of hits, bool [n], with Wilson's interval."""
    every = np.ones(len(hits), dtype=bool)
    return _figure(float(hits.mean()), proportion(hits, every, clusters, rows="images"))


def mean(values: np.ndarray, clusters: Clusters) -> Figure:
    """Mean of float64 [n] between 0 and 1, with a score interval from a bootstrap of clusters."""
    value = float(values.mean())
    if clusters.count < 2:
        return _figure(value, Interval(None, None, "", clusters.lone))

    def means(weights: np.ndarray) -> np.ndarray:
        return np.asarray(weights @ values / weights.sum(axis=1))[:, None]

    return _figure(value, score_limits(value, bootstrap(means, clusters)[:, 0], clusters))


def difference(gaps: np.ndarray, clusters: Clusters) -> Figure:
    """Mean of paired differences float64 [n] between -1 and 1, with an interval of t by clusters.

    Its variance is that of a ratio, G / (G - 1) sum_g (sum_i (gap_i - mean) / n)^2. Where all gaps
    are equal there is none to be seen: with p, the lower limit by Wilson of a share of all, the
    share 1 - p that may be otherwise could have a gap of -1, or of 1.
    """
    value, method = float(gaps.mean()), f"t by {clusters.unit}"
    if clusters.count < 2:
        return _figure(value, Interval(None, None, method, clusters.lone))
    moves = (gaps - value) / len(gaps) * np.sqrt(clusters.count / (clusters.count - 1))
    error, freedom = spread(moves, clusters)
    if error > ROUNDING:
        reach = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
        limits = max(-1.0, value - reach), min(1.0, value + reach)
        return _figure(value, Interval(*limits, method))
    every = np.ones(len(gaps), dtype=bool)
    wilson = proportion(every, every, clusters, rows="images")
    assert wilson.low is not None, wilson
    same, other = wilson.low * value, 1 - wilson.low
    return _figure(value, Interval(same - other, same + other, f"{wilson.method}, all equal"))


def score_text(figure: Figure) -> str:
    """`0.891 (0.839-0.927)`, or the value alone."""
    if figure["low"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({text.limits(figure['low'], figure['high'])})"


def _figure(value: float, interval: Interval) -> Figure:
    return {"value": value} | asdict(interval)


# What counts as near, in shares of the image's side: 15 pixels of 224.
TOLERANCE = 15 / 224

# Shares of a map's maximum at which it may be cut; which one, validation says.
CUTS = np.arange(1, 20) / 20


@dataclass(frozen=True)
class Scores:
    """Of n maps: pointing and near bool [n], energy float64 [n], overlaps float64 [n, len(CUTS)].

    area: share of the image that is marked, float64 [n]; wide: that is near a mark. empty: bool
    [n], maps that are 0 everywhere; they point nowhere, hold no energy inside and overlap with
    nothing.
    """

    pointing: np.ndarray
    near: np.ndarray
    energy: np.ndarray
    overlaps: np.ndarray
    area: np.ndarray
    wide: np.ndarray
    empty: np.ndarray


def score(maps: Iterable[np.ndarray], masks: Iterable[np.ndarray]) -> Scores:
    """Scores of maps, batches float [b, S, S] of values from 0 to 1, by masks, bool [S, S] each.

    There are as many masks as maps; a map's highest value is 1, or it is empty. Neither are held.
    """
    found = [_one(heat, mask) for heat, mask in zip(_singly(maps), masks, strict=True)]
    return Scores(
        pointing=np.array([one[0] for one in found], dtype=bool),
        near=np.array([one[1] for one in found], dtype=bool),
        energy=np.array([one[2] for one in found], dtype=np.float64),
        overlaps=np.array([one[3] for one in found], dtype=np.float64).reshape(-1, len(CUTS)),
        area=np.array([one[4] for one in found], dtype=np.float64),
        wide=np.array([one[5] for one in found], dtype=np.float64),
        empty=np.array([one[6] for one in found], dtype=bool),
    )


def best_cut(overlaps: np.ndarray) -> int:
    """Index of the cut with the highest mean overlap, of float64 [n, len(CUTS)]; n is not 0."""
    return int(overlaps.mean(axis=0).argmax())


def _singly(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for batch in batches:
        yield from batch


def around(mask: np.ndarray) -> np.ndarray:
    """Pixels of bool [S, S] and those within `TOLERANCE` of one, from center to center."""
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(away <= TOLERANCE * mask.shape[-1])


def _one(
    heat: np.ndarray, mask: np.ndarray
) -> tuple[bool, bool, float, np.ndarray, float, float, bool]:
    """The fields of `Scores` for one map, in their order."""
    assert heat.shape == mask.shape, (heat.shape, mask.shape)
    highest, close = float(heat.max()), around(mask)
    area, wide = float(mask.mean()), float(close.mean())
    if highest == 0:
        return False, False, 0.0, np.zeros(len(CUTS)), area, wide, True
    # Equal maxima, as of a flat top, count together: a hit has half of them inside at least.
    top = heat == highest
    pointing, near = bool(mask[top].mean() >= 0.5), bool(close[top].mean() >= 0.5)
    total = heat.sum(dtype=np.float64)
    energy = float(heat[mask].sum(dtype=np.float64) / total)
    # Cuts that each pixel reaches; pixels that reach cut k are those that reach k or more of them.
    reached = np.searchsorted(CUTS.astype(heat.dtype), heat.ravel(), side="right")
    above = _at_least(reached)
    inside = _at_least(reached[mask.ravel()])
    overlaps = inside / (above + int(mask.sum()) - inside)
    return pointing, near, energy, overlaps, area, wide, False


def _at_least(reached: np.ndarray) -> np.ndarray:
    """How many reach each cut, float64 [len(CUTS)]."""
    counts = np.bincount(reached, minlength=len(CUTS) + 1)
    return counts[::-1].cumsum()[::-1][1:].astype(np.float64)


METHOD_NAMES = {
    "gradcam": "Grad-CAM",
    "hirescam": "HiResCAM",
    "gradcam++": "Grad-CAM++",
    "eigencam": "Eigen-CAM",
}
CLASS_AGNOSTIC = ("eigencam",)

# The score that the verdict is of, named before there are any figures: of several scores one wins
# by luck. The others are told besides.
PRIMARY = "pointing"

# With fewer marked images nothing can be told; with fewer to choose a cut by, not by the overlap.
FEWEST, FEWEST_VAL = 20, 5
SCORE_NAMES = {
    "pointing": "the pointing game",
    "near": "the pointing game with tolerance",
    "energy": "energy inside",
    "iou": "overlap",
}
BASELINE_NAMES = {
    "center": "a guess at the center",
    "edges": "an edge detector",
    "chance": "chance",
}


def verdict(told: Mapping[str, Any]) -> str:
    """better or not better than every baseline by the `PRIMARY` score; too few to tell.

    Better is a difference whose interval lies above 0.
    """
    if told["images"] < FEWEST:
        return "too few"
    return "better" if PRIMARY in _won(told) else "not better"


def sentences(told: Mapping[str, Any]) -> list[str]:
    """The verdict, the figures behind it, and what one must know to read them."""
    return [*_verdict(told), *_figures_text(told), *_limits(told)]


def _won(told: Mapping[str, Any]) -> list[str]:
    """Scores in which the heatmaps are better than every baseline."""
    gaps = told["differences"].values()
    return [name for name in _judged(told) if all((of[name]["low"] or 0) > 0 for of in gaps)]


def _judged(told: Mapping[str, Any]) -> list[str]:
    """Scores that say something: not the overlap, if its cut was chosen by a handful of images."""
    few = told["cuts"] and told["cuts"]["images"] < FEWEST_VAL
    return [name for name in told["scores"] if name != "iou" or not few]


def _verdict(told: Mapping[str, Any]) -> list[str]:
    maps = f"The heatmaps ({METHOD_NAMES[told['method']]})"
    others = " and ".join([", ".join(list(BASELINE_NAMES.values())[:-1]), "chance"])
    if told["verdict"] == "too few":
        return [
            f"It cannot be told whether the heatmaps ({METHOD_NAMES[told['method']]}) find what is "
            f"marked better than {others}: {counted(told['images'], 'marked test image')}, and at "
            f"least {FEWEST} are needed."
        ]
    shown = "find" if told["verdict"] == "better" else "are not shown to find"
    said = [f"{maps} {shown} what is marked better than {others}, by {SCORE_NAMES[PRIMARY]}."]
    besides = [SCORE_NAMES[name] for name in _won(told) if name != PRIMARY]
    if besides:
        said.append(f"Besides, they are better than all of these by {listed(besides)}.")
    for name, of in told["differences"].items():
        worse = [SCORE_NAMES[key] for key in _judged(told) if (of[key]["high"] or 0) < 0]
        if worse:
            said.append(f"By {listed(worse)} they are worse than {BASELINE_NAMES[name]}.")
    return said


def _figures_text(told: Mapping[str, Any]) -> list[str]:
    n, cuts = told["images"], told["cuts"]
    whose = "map" if told["method"] == "eigencam" else "true class's map"
    what = {
        "pointing": f"The highest place of the {whose} lies in a mark in {{}} of them",
        "near": f"it lies in a mark or within {100 * TOLERANCE:.1f} % of the image's side of one "
        "in {}",
        "energy": "of all that the map shows, {} lies in the marks on average",
        "iou": "cut at {} of its maximum, it overlaps with the marks by {} (intersection over "
        "union)",
    }
    from_whom = "" if told["unit"] == "image" else f" of {_units(told)}"
    said = [
        f"Measured on {counted(n, 'marked image')}{from_whom} of the test split; the marks cover "
        f"{100 * told['area']:.1f} % of an image on average."
    ]
    for key, figure in told["scores"].items():
        own = (f"{cuts['map']:.2f}", score_text(figure)) if key == "iou" else (score_text(figure),)
        words = what[key].format(*own)
        baselines = ", ".join(
            f"{name} {score_text(of[key])}" for name, of in told["baselines"].items()
        )
        said.append(f"{words[0].upper()}{words[1:]}; {baselines}.")
    if cuts:
        said.append(
            f"Where to cut was chosen on {counted(cuts['images'], 'marked validation image')}, "
            "for each kind of map by itself. Chance is a map that is the same everywhere."
        )
        if cuts["images"] < FEWEST_VAL:
            said.append(
                f"These are fewer than {FEWEST_VAL}, so by overlap it cannot be told whether the "
                "heatmaps are better or worse."
            )
    else:
        said.append(
            "No validation image is marked, so there is nothing to choose a cut by, and no overlap."
        )
    return said


def _limits(told: Mapping[str, Any]) -> list[str]:
    said = []
    if told["marked"] > told["images"]:
        said.append(
            f"These are {told['images']} of {told['marked']} marked test images, drawn at random."
        )
    if told["empty"]:
        what = "" if told["method"] == "eigencam" else " for the true class"
        said.append(
            f"{counted(told['empty'], 'heatmap')} of them showed nothing{what}, and "
            f"{'counts' if told['empty'] == 1 else 'count'} as missing the marks."
        )
    return said


def _units(told: Mapping[str, Any]) -> str:
    unit = told["unit"]
    return counted(told["units"], unit if "," not in unit else f"cluster by {unit}")


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


# Of the side: two thirds of the prior lie within the middle half of the image, each way.
CENTER_SPREAD = 0.25

# Of the side: about the width of a cell of the coarse maps, 7 by 7, that most networks give.
EDGE_SPREAD = 1 / 28


def center_prior(size: int) -> np.ndarray:
    """Whoever takes a radiograph centers it on what hurts: a Gaussian, float32 [S, S].

    Its standard deviation is a quarter of the side; its highest value is 1.
    """
    place = (np.arange(size) + 0.5) / size - 0.5
    along = np.exp(-(place**2) / (2 * CENTER_SPREAD**2))
    heat = np.outer(along, along)
    return np.asarray(heat / heat.max(), dtype=np.float32)


def center_maps(n: int, size: int) -> Iterator[np.ndarray]:
    """The center prior n times, float32 [1, S, S] each."""
    prior = center_prior(size)[None]
    for _ in range(n):
        yield prior


def edge_map(image: np.ndarray) -> np.ndarray:
    """Where an image uint8 [S, S] has edges, float32 [S, S] of 0 to 1; 0 everywhere if it is flat.

    The gradient's magnitude (Sobel), smoothed to the coarseness of a network's map, for a single
    pixel's sharp edge is no place.
    """
    across, down = (cv2.Sobel(image, cv2.CV_16S, dx, 1 - dx) for dx in (1, 0))
    # In doubles by scipy: OpenCV's floats round differently from one call to the next.
    steep = np.hypot(across.astype(np.float64), down.astype(np.float64))
    smooth = gaussian_filter(steep, EDGE_SPREAD * image.shape[-1])
    highest = smooth.max()
    return np.asarray(smooth / highest if highest > 0 else smooth, dtype=np.float32)


def edge_maps(images: np.ndarray) -> Iterator[np.ndarray]:
    """`edge_map` of each of the images uint8 [n, S, S], float32 [1, S, S] each."""
    for image in images:
        yield edge_map(image)[None]


MOST = 500
MAPS = ("map", "center", "edges")
BASELINES = ("center", "edges", "chance")


def localize(
    model: Classifier,
    data: RadiographData,
    *,
    method: str = "gradcam",
    layer: str | None = None,
    batch_size: int = 16,
    device: str = "cpu",
    most: int = MOST,
    seed: int = 0,
    progress: Progress[Any] = no_progress,
) -> dict[str, Any] | None:
    """Scores of the true class's maps on marked test images; see the top of this file.

    The cuts for the overlap are chosen on marked validation images, one for each kind of map.
    most: images of each split at most, drawn by `seed` where there are more.
    """
    marked = {split: marked_rows(data, split) for split in ("val", "test")}
    if not len(marked["test"]):
        return None
    rows = {split: _at_most(found, most, seed) for split, found in marked.items()}
    found = {
        split: _scores(model, data, rows[split], method, layer, batch_size, device, progress)
        for split in rows
    }
    clusters = clusters_of(data.manifest.table.iloc[rows["test"]])
    result = summary(found["val"], found["test"], clusters)
    told: dict[str, Any] = {
        "method": method,
        "layer": layer,
        "split": "test",
        "images": len(rows["test"]),
        "marked": len(marked["test"]),
    } | result
    told["verdict"] = verdict(told)
    told["sentences"] = sentences(told)
    return told


def marked_rows(data: RadiographData, split: str) -> np.ndarray:
    """Rows of a split whose images have marks of their own class that can be placed, int64 [n]."""
    rows = data.rows(split)
    kept = [bool(outlines(data.manifest.table.iloc[row], data.preprocess)) for row in rows]
    return np.asarray(rows[np.array(kept, dtype=bool)])


def summary(val: dict[str, Scores], test: dict[str, Scores], clusters: Clusters) -> dict[str, Any]:
    """The figures of `localize` from the scores of `MAPS` on validation and test.

    clusters: of the test images.
    """
    own = test["map"]
    n_val = len(val["map"].area)
    cuts = {name: best_cut(val[name].overlaps) for name in MAPS} if n_val else None
    values = {name: _values(test[name], cuts[name] if cuts else None) for name in MAPS}
    # A map that says nothing, the same everywhere: it points into the marks as often as they are
    # large, and overlaps best with all of the image.
    values["chance"] = {name: own.wide if name == "near" else own.area for name in values["map"]}
    return {
        "units": clusters.count,
        "unit": clusters.unit,
        "area": float(own.area.mean()),
        "empty": int(own.empty.sum()),
        "cuts": cuts and {name: float(CUTS[cuts[name]]) for name in MAPS} | {"images": n_val},
        "scores": _figures(values["map"], clusters),
        "baselines": {name: _figures(values[name], clusters) for name in BASELINES},
        "differences": {
            name: {
                key: difference(values["map"][key] - values[name][key], clusters)
                for key in values["map"]
            }
            for name in BASELINES
        },
    }


def _values(scores: Scores, cut: int | None) -> dict[str, np.ndarray]:
    """Each score of each image, float64 [n] by name; the hits as they are, bool."""
    hits = {"pointing": scores.pointing, "near": scores.near}
    found = {name: of.astype(np.float64) for name, of in hits.items()} | {"energy": scores.energy}
    return found if cut is None else found | {"iou": scores.overlaps[:, cut]}


def _figures(values: dict[str, np.ndarray], clusters: Clusters) -> dict[str, Figure]:
    return {
        name: share(column == 1, clusters)
        if np.isin(column, (0, 1)).all()
        else mean(column, clusters)
        for name, column in values.items()
    }


def _scores(
    model: Classifier,
    data: RadiographData,
    rows: np.ndarray,
    method: str,
    layer: str | None,
    batch_size: int,
    device: str,
    progress: Progress[Any],
) -> dict[str, Scores]:
    """Scores of each of `MAPS` on some rows."""
    images, targets = data.cache.images[rows], data.manifest.targets()[rows]
    size = data.preprocess.image_size

    def masks() -> Iterator[np.ndarray]:
        for row in rows:
            yield mask_of(outlines(data.manifest.table.iloc[row], data.preprocess), size)

    maps = heatmaps(
        model,
        images,
        targets,
        method=method,
        layer=layer,
        batch_size=batch_size,
        device=device,
        progress=progress,
    )
    return {
        "map": score(maps, masks()),
        "center": score(center_maps(len(rows), size), masks()),
        "edges": score(edge_maps(images), masks()),
    }


def _at_most(rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
