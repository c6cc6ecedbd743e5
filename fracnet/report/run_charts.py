"""ROC and precision-recall curves on a run's page, with bands and the operating point.

The charts on a run's page besides its curves: reliability, and learning by epoch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from fracnet.evaluation.aggregation import to_level
from fracnet.evaluation.decisions import calibrated
from fracnet.evaluation.predictions import clusters_of, probabilities, targets
from fracnet.evaluation.summary import Estimate
from fracnet.metrics import roc as roc_module
from fracnet.metrics.calibration import outcome, reliability
from fracnet.metrics.roc import Band
from fracnet.report import tables
from fracnet.report.plots import LOSSES, RATES, Panel, by_class, by_level, told
from fracnet.report.run_content import RunContent

STRIP = np.linspace(0, 1, 26)

# Of epochs; with more, marks run into one another.
MARKED = 40


@dataclass(frozen=True)
class Picture:
    """A chart with its title, the keys to its marks, and what a reader must know of it."""

    title: str
    chart: Markup
    keys: Sequence[tuple[Markup, str]] = ()
    caption: str = ""


def reliabilities(content: RunContent) -> list[Picture]:
    """What was predicted against what came true, before and after temperature scaling."""
    rows = content.rows
    target, clusters = targets(rows), clusters_of(rows)
    series = [("as they are", probabilities(rows), "s0")]
    if content.temperature != 1:
        warm = probabilities(calibrated(rows, content.temperature))
        series = [("before scaling", series[0][1], "s5 faint"), ("after scaling", warm, "s0")]
    about = f"probability of {content.classes[1]}" if content.binary else "probability, named class"
    share = f"share that is {content.classes[1]}" if content.binary else "share that is right"
    chart = tables.Chart(tables.unit(f"predicted {about}"), tables.unit(share), 340, 320)
    chart.line([(0, 0), (1, 1)], "guide")
    keys, sizes, score = [], [], np.zeros(0)
    for place, (name, prob, look) in enumerate(series):
        score, hit = outcome(target, prob)
        bins = reliability(score, hit, clusters)
        mark = len(series) - 1 - place
        if look == "s0":
            for at, low, high in zip(bins.score, bins.low, bins.high, strict=True):
                if math.isfinite(low):
                    chart.line([(at, low), (at, high)], f"{look} thin")
        points = list(zip(bins.score.tolist(), bins.share.tolist(), strict=True))
        chart.line(points, f"{look} thin")
        for (x, y), n in zip(points, bins.n.tolist(), strict=True):
            chart.dot(x, y, look, mark, f"{n} images: {x:.3f} predicted, {y:.3f} found")
        keys.append((tables.key(mark, look), name))
        sizes += bins.n.tolist()
    held = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    caption = f"Bins of {held} images; bars: 95 % by {clusters.unit}. Dashed: predicted as found."
    return [
        Picture("Reliability", chart.drawn("Predicted against observed shares"), keys, caption),
        _strip(score, f"predicted {about}"),
    ]


def _strip(score: np.ndarray, title: str) -> Picture:
    """How many images have which probability."""
    n, _ = np.histogram(score, bins=list(STRIP))
    tall = tables.linear([0, float(n.max())], "images", count=3)
    chart = tables.Chart(tables.unit(title), tall, 340, 320)
    for low, high, count in zip(STRIP[:-1] + 0.003, STRIP[1:] - 0.003, n.tolist(), strict=True):
        if count:
            chart.band([(low, count), (high, count)], [(low, 0), (high, 0)], "s0 solid")
    return Picture("Where the probabilities lie", chart.drawn("Histogram of probabilities"))


def learning(content: RunContent) -> list[Picture]:
    """Loss and validation rates by epoch; nothing where there were no epochs."""
    if content.curves is None or "epoch" not in content.curves:
        return []
    table = content.curves.groupby("epoch").last()
    selected = (content.fit.get("selected") or {}).get("epoch")
    found = []
    for title, lines in (("Loss", LOSSES), ("Validation rates", RATES)):
        held = {name: table[name].dropna() for name in lines if name in table}
        held = {name: of for name, of in held.items() if len(of)}
        if not held:
            continue
        values = [value for of in held.values() for value in of if math.isfinite(value)]
        y = tables.linear([0, *values], "") if title == "Loss" else tables.unit()
        first, last = int(table.index.min()), int(table.index.max())
        step = max(1, -(-(last - first) // 8))
        ticks = [(float(at), str(at)) for at in range(first, last + 1, step)]
        chart = tables.Chart(tables.Axis(first - 0.3, last + 0.3, "epoch", ticks), y, 380, 270)
        keys = []
        if selected is not None:
            chart.rule(x=float(selected))
        for place, (name, of) in enumerate(held.items()):
            label, look = lines[name][0], f"s{place}"
            points = list(zip(map(float, of.index), map(float, of), strict=True))
            chart.line(points, look, label)
            if len(of) <= MARKED:
                for x, value in points:
                    chart.dot(x, value, look, place, f"{label}, epoch {x:g}: {value:.3f}")
            keys.append((tables.key(place, look), label))
        told_of = f"Dashed: the selected epoch, {selected}." if selected is not None else ""
        found.append(Picture(title, chart.drawn(f"{title} by epoch"), keys, told_of))
    return found


# In shares of an axis: corners closer than this to the last one drawn are not seen.
FINEST = 0.002
POINT = "s1"


@dataclass(frozen=True)
class _Kind:
    """What makes one kind of curve differ from the other."""

    title: str
    x: str
    y: str
    area: str
    points: Callable[[Panel], tables.Points]
    band: Callable[..., Band]
    at: Callable[[Panel], tuple[Estimate, Estimate]]


def panels(content: RunContent) -> list[Panel]:
    """Two classes: the positive one at each level; else each class. As the tables have them."""
    if not content.binary:
        return by_class(content.decided, content.shown)
    views = content.assessment.options.views
    tables = {level: to_level(content.decided, level, views) for level in content.overall}
    found = by_level(tables, content.overall, content.assessment.decisions)
    return sorted(found, key=lambda panel: panel.level != content.level)


def roc(content: RunContent) -> list[Picture]:
    """Sensitivity against the share of false alarms."""

    def points(panel: Panel) -> tables.Points:
        curve = roc_module.roc(panel.case, panel.score)
        return list(zip(curve.x.tolist(), curve.y.tolist(), strict=True))

    def at(panel: Panel) -> tuple[Estimate, Estimate]:
        rate = panel.summary.specificity
        turned = [None if end is None else 1 - end for end in (rate.high, rate.low)]
        false = Estimate(1 - rate.value, turned[0], turned[1], rate.method, rate.n, rate.note)
        return false, panel.summary.sensitivity

    kind = _Kind("ROC", "1 - specificity", "sensitivity", "AUC", points, roc_module.roc_band, at)
    return _pictures(content, kind)


def precision_recall(content: RunContent) -> list[Picture]:
    """Precision against recall, in steps."""

    def points(panel: Panel) -> tables.Points:
        x, y = roc_module.steps(roc_module.precision_recall(panel.case, panel.score))
        corners = [(float(x[0]), float(y[0]))]
        for k in range(1, len(x)):
            corners += [(float(x[k - 1]), float(y[k])), (float(x[k]), float(y[k]))]
        return corners

    def at(panel: Panel) -> tuple[Estimate, Estimate]:
        return panel.summary.sensitivity, panel.summary.precision

    band = roc_module.precision_recall_band
    title = "Precision and recall"
    kind = _Kind(title, "recall (sensitivity)", "precision", "AUC-PR", points, band, at)
    return _pictures(content, kind)


def _pictures(content: RunContent, kind: _Kind) -> list[Picture]:
    """One for all levels of two classes; else one a class."""
    found, resamples = panels(content), content.assessment.options.resamples
    groups = [found] if content.binary else [[panel] for panel in found]
    return [_picture(group, kind, resamples, content.binary) for group in groups]


def _picture(group: Sequence[Panel], kind: _Kind, resamples: int, together: bool) -> Picture:
    """The first panel with its band and operating point, the others, if `together`, as lines."""
    first = group[0]
    chart = tables.Chart(tables.unit(kind.x), tables.unit(kind.y), 340, 320)
    label = f"{kind.y} against {kind.x}: {first.title}"
    title = kind.title if together else first.title
    why = roc_module.drawable(first.case)
    if why:
        return Picture(title, chart.drawn(label), caption=f"No curve: {why}.")
    share = float(first.case.mean())
    chart.line([(0, 0), (1, 1)] if kind.area == "AUC" else [(0, share), (1, share)], "guide")
    band = kind.band(first.case, first.score, first.clusters, resamples=resamples)
    known = ~np.isnan(band.low)
    if known.any():
        low, high = (
            list(zip(band.x[known].tolist(), edge[known].tolist(), strict=True))
            for edge in (band.low, band.high)
        )
        chart.band(high, low, "s0")
    keys: list[tuple[Markup, str]] = []
    for place, panel in reversed(list(enumerate(group))):
        look = ("s0", "s2 faint dashed", "s3 faint dashed")[place]
        if not roc_module.drawable(panel.case):
            chart.line(_thinned(kind.points(panel)), look)
            area = panel.summary.auc if kind.area == "AUC" else panel.summary.average_precision
            name = f"{panel.title}: " if len(group) > 1 else ""
            keys.insert(0, (_line(look), f"{name}{told(area, kind.area)}"))
    x, y = kind.at(first)
    _cross(chart, x, y)
    caption = f"Band: 95 %, {band.method}." if known.any() else f"No band: {band.note}."
    if not together:  # said once for all of them, by `curves_note`
        return Picture(title, chart.drawn(label), keys, "" if known.any() else caption)
    keys.append((tables.key(0, POINT), first.decision))
    if first.chosen is not None and kind.area == "AUC":
        chart.dot(1 - first.chosen[1], first.chosen[0], f"{POINT} hollow", 0, "on validation")
        keys.append((tables.key(0, f"{POINT} hollow"), "the same on validation, where chosen"))
    return Picture(title, chart.drawn(label), keys, caption)


def curves_note(content: RunContent) -> str:
    """What holds for the curve of every class."""
    resamples, unit = content.assessment.options.resamples, content.shown.unit
    return (
        "Each class against the rest. The dot is the decision for the likeliest class with its "
        f"95 % intervals; bands are pointwise, 95 %, from {resamples} resamples by {unit}."
    )


def _thinned(points: tables.Points) -> tables.Points:
    """Without corners that no eye could tell from the one before; both ends stay."""
    kept = [points[0]]
    for x, y in points[1:-1]:
        if max(abs(x - kept[-1][0]), abs(y - kept[-1][1])) >= FINEST:
            kept.append((x, y))
    return [*kept, points[-1]]


def _cross(chart: tables.Chart, x: Estimate, y: Estimate) -> None:
    """The operating point, with a bar of each coordinate's interval."""
    if x.low is not None and x.high is not None:
        chart.line([(x.low, y.value), (x.high, y.value)], f"{POINT} thin")
    if y.low is not None and y.high is not None:
        chart.line([(x.value, y.low), (x.value, y.high)], f"{POINT} thin")
    chart.dot(x.value, y.value, POINT, 0, "operating point")


def _line(look: str) -> Markup:
    path = Markup('<path class="line {}" d="M0 7 L26 7"/>').format(look)
    return Markup('<svg class="key" viewBox="0 0 26 14" aria-hidden="true">{}</svg>').format(path)
