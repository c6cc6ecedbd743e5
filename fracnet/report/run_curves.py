"""ROC and precision-recall curves on a run's page, with bands and the operating point."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from fracnet.evaluation import curves
from fracnet.evaluation.curves import Band
from fracnet.evaluation.levels import to_level
from fracnet.evaluation.summary import Estimate
from fracnet.report import svg
from fracnet.report.figures.panels import Panel, by_class, by_level, told
from fracnet.report.run_content import RunContent
from fracnet.report.run_figures import Picture

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
    points: Callable[[Panel], svg.Points]
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

    def points(panel: Panel) -> svg.Points:
        curve = curves.roc(panel.case, panel.score)
        return list(zip(curve.x.tolist(), curve.y.tolist(), strict=True))

    def at(panel: Panel) -> tuple[Estimate, Estimate]:
        rate = panel.summary.specificity
        turned = [None if end is None else 1 - end for end in (rate.high, rate.low)]
        false = Estimate(1 - rate.value, turned[0], turned[1], rate.method, rate.n, rate.note)
        return false, panel.summary.sensitivity

    kind = _Kind("ROC", "1 - specificity", "sensitivity", "AUC", points, curves.roc_band, at)
    return _pictures(content, kind)


def precision_recall(content: RunContent) -> list[Picture]:
    """Precision against recall, in steps."""

    def points(panel: Panel) -> svg.Points:
        x, y = curves.steps(curves.precision_recall(panel.case, panel.score))
        corners = [(float(x[0]), float(y[0]))]
        for k in range(1, len(x)):
            corners += [(float(x[k - 1]), float(y[k])), (float(x[k]), float(y[k]))]
        return corners

    def at(panel: Panel) -> tuple[Estimate, Estimate]:
        return panel.summary.sensitivity, panel.summary.precision

    band = curves.precision_recall_band
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
    chart = svg.Chart(svg.unit(kind.x), svg.unit(kind.y), 340, 320)
    label = f"{kind.y} against {kind.x}: {first.title}"
    title = kind.title if together else first.title
    why = curves.drawable(first.case)
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
        if not curves.drawable(panel.case):
            chart.line(_thinned(kind.points(panel)), look)
            area = panel.summary.auc if kind.area == "AUC" else panel.summary.average_precision
            name = f"{panel.title}: " if len(group) > 1 else ""
            keys.insert(0, (_line(look), f"{name}{told(area, kind.area)}"))
    x, y = kind.at(first)
    _cross(chart, x, y)
    caption = f"Band: 95 %, {band.method}." if known.any() else f"No band: {band.note}."
    if not together:  # said once for all of them, by `curves_note`
        return Picture(title, chart.drawn(label), keys, "" if known.any() else caption)
    keys.append((svg.key(0, POINT), first.decision))
    if first.chosen is not None and kind.area == "AUC":
        chart.dot(1 - first.chosen[1], first.chosen[0], f"{POINT} hollow", 0, "on validation")
        keys.append((svg.key(0, f"{POINT} hollow"), "the same on validation, where chosen"))
    return Picture(title, chart.drawn(label), keys, caption)


def curves_note(content: RunContent) -> str:
    """What holds for the curve of every class."""
    resamples, unit = content.assessment.options.resamples, content.shown.unit
    return (
        "Each class against the rest. The dot is the decision for the likeliest class with its "
        f"95 % intervals; bands are pointwise, 95 %, from {resamples} resamples by {unit}."
    )


def _thinned(points: svg.Points) -> svg.Points:
    """Without corners that no eye could tell from the one before; both ends stay."""
    kept = [points[0]]
    for x, y in points[1:-1]:
        if max(abs(x - kept[-1][0]), abs(y - kept[-1][1])) >= FINEST:
            kept.append((x, y))
    return [*kept, points[-1]]


def _cross(chart: svg.Chart, x: Estimate, y: Estimate) -> None:
    """The operating point, with a bar of each coordinate's interval."""
    if x.low is not None and x.high is not None:
        chart.line([(x.low, y.value), (x.high, y.value)], f"{POINT} thin")
    if y.low is not None and y.high is not None:
        chart.line([(x.value, y.low), (x.value, y.high)], f"{POINT} thin")
    chart.dot(x.value, y.value, POINT, 0, "operating point")


def _line(look: str) -> Markup:
    path = Markup('<path class="line {}" d="M0 7 L26 7"/>').format(look)
    return Markup('<svg class="key" viewBox="0 0 26 14" aria-hidden="true">{}</svg>').format(path)
