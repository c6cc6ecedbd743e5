"""Do heatmaps point to what is marked? Scored against marks, and against maps that see no network.

    localise(model, data, *, method="gradcam", layer=None, batch_size=16, device="cpu",
             most=500, seed=0, show=unseen) -> dict | None

`data` is set up (`RadiographData.setup`). None where no test image has a polygon or box of its own
class that can be placed. Otherwise plain values for explain.json:

    method, layer                 as given (layer may be None)
    split                         "test"
    images, marked                images scored; test images with marks (more, if `most` has cut)
    units, unit                   how many patients (studies, images) these are; the word for them
    area                          mean share of the image that is marked
    empty                         maps that are 0 everywhere
    cuts                          {"map", "centre", "edges": share of the maximum}, "images": val
                                  images that chose them; None where none of those is marked
    scores                        {SCORE: FIGURE} of the heatmaps; iou only where cuts is not None
    baselines                     {BASELINE: {SCORE: FIGURE}}
    differences                   {BASELINE: {SCORE: FIGURE}}, heatmaps less baseline, paired
    verdict                       "better" (than each baseline, by the pointing game), "not better",
                                  or "too few" (marked test images to tell)
    sentences                     what this means, the verdict first

with SCORE one of pointing, near, energy, iou (see `scores`); BASELINE one of centre, edges, chance;
and FIGURE {"value", "low", "high", "method", "note"}: a 95 % interval by patient, or None and why.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fracnet.data.datamodule import RadiographData
from fracnet.data.marks import mask_of, outlines
from fracnet.evaluation.predictions import Clusters, clusters_of
from fracnet.explaining import means
from fracnet.explaining.localisation_words import sentences, verdict
from fracnet.explaining.maps import heatmaps
from fracnet.explaining.priors import centre_maps, edge_maps
from fracnet.explaining.scores import CUTS, Scores, best_cut, score
from fracnet.models.module import Classifier
from fracnet.progress import Show, unseen

MOST = 500
MAPS = ("map", "centre", "edges")
BASELINES = ("centre", "edges", "chance")


def localise(
    model: Classifier,
    data: RadiographData,
    *,
    method: str = "gradcam",
    layer: str | None = None,
    batch_size: int = 16,
    device: str = "cpu",
    most: int = MOST,
    seed: int = 0,
    show: Show[Any] = unseen,
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
        split: _scores(model, data, rows[split], method, layer, batch_size, device, show)
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
    kept = [bool(outlines(data.manifest.table.iloc[row], data.enhance)) for row in rows]
    return np.asarray(rows[np.array(kept, dtype=bool)])


def summary(val: dict[str, Scores], test: dict[str, Scores], clusters: Clusters) -> dict[str, Any]:
    """The figures of `localise` from the scores of `MAPS` on validation and test.

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
                key: means.difference(values["map"][key] - values[name][key], clusters)
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


def _figures(values: dict[str, np.ndarray], clusters: Clusters) -> dict[str, means.Figure]:
    return {
        name: means.share(column == 1, clusters)
        if np.isin(column, (0, 1)).all()
        else means.mean(column, clusters)
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
    show: Show[Any],
) -> dict[str, Scores]:
    """Scores of each of `MAPS` on some rows."""
    images, targets = data.cache.images[rows], data.manifest.targets()[rows]
    size = data.enhance.image_size

    def masks() -> Iterator[np.ndarray]:
        for row in rows:
            yield mask_of(outlines(data.manifest.table.iloc[row], data.enhance), size)

    maps = heatmaps(
        model,
        images,
        targets,
        method=method,
        layer=layer,
        batch_size=batch_size,
        device=device,
        show=show,
    )
    return {
        "map": score(maps, masks()),
        "centre": score(centre_maps(len(rows), size), masks()),
        "edges": score(edge_maps(images), masks()),
    }


def _at_most(rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
