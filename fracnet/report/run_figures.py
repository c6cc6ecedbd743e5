"""The charts on a run's page besides its curves: reliability, and learning by epoch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from fracnet.evaluation.predictions import clusters_of, probabilities, targets
from fracnet.evaluation.reliability import outcome, reliability
from fracnet.evaluation.temperature import calibrated
from fracnet.report import svg
from fracnet.report.figures.learning import LOSSES, RATES
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
    chart = svg.Chart(svg.unit(f"predicted {about}"), svg.unit(share), 340, 320)
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
        keys.append((svg.key(mark, look), name))
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
    tall = svg.linear([0, float(n.max())], "images", count=3)
    chart = svg.Chart(svg.unit(title), tall, 340, 320)
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
        y = svg.linear([0, *values], "") if title == "Loss" else svg.unit()
        first, last = int(table.index.min()), int(table.index.max())
        step = max(1, -(-(last - first) // 8))
        ticks = [(float(at), str(at)) for at in range(first, last + 1, step)]
        chart = svg.Chart(svg.Axis(first - 0.3, last + 0.3, "epoch", ticks), y, 380, 270)
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
            keys.append((svg.key(place, look), label))
        told_of = f"Dashed: the selected epoch, {selected}." if selected is not None else ""
        found.append(Picture(title, chart.drawn(f"{title} by epoch"), keys, told_of))
    return found
