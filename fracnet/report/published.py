"""Published metrics next to a run's own, with the interval that their number of images allows."""

from collections.abc import Mapping, Sequence
from typing import Any

from fracnet.evaluation.aggregation import OVERALL
from fracnet.evaluation.assessment import OfficialRow
from fracnet.evaluation.summary import Estimate, Summary
from fracnet.metrics.intervals import wilson
from fracnet.utils.text import limits

SHARE = "accuracy"
"""The metric that is a share of all n images: others have no Wilson interval on n."""
RATES, OFFICIAL = ("sensitivity", "specificity"), ("auc", "kappa")


def compare_with_published(
    cited: Sequence[Mapping[str, Any]],
    model: Summary,
    data: str,
    official: Sequence[OfficialRow] = (),
) -> list[dict[str, str]]:
    """Two clauses for each published metric: `published`, and `ours`.

    metrics.json stores them, so the table of a sweep can show them for the chosen job.

    Args:
        cited: each with metric, value, n (or None if the publication does not state it), source,
            remark and, unless it is of images, level.
        model: our metrics.
        data: the name of the dataset that ours were measured on.
        official: our metrics of studies and of the positive class, which are decided at 0.5.
    """
    pairs = []
    for item in cited:
        metric, n, level = item["metric"], item["n"], item.get("level", "image")
        if n is None:
            basis = "no interval: n is not stated"
        elif metric in RATES:
            basis = f"no interval: the number of its cases is not stated; n = {n}"
        elif metric != SHARE:
            basis = f"no interval: not a proportion; n = {n}"
        else:
            low, high = wilson(round(item["value"] * n), n)
            basis = f"95 % CI {limits(low, high)} by Wilson, n = {n}"
        remark = f"; {item['remark']}" if item["remark"] else ""
        title = metric.replace("_", " ") + (f" by {level}" if level != "image" else "")
        published = f"Published {title}: {item['value']:.3f} ({basis}; {item['source']}{remark})"
        ours = f"on {data}: {_ours(metric, level, model, official)}"
        pairs.append({"published": published, "ours": ours})
    return pairs


def _ours(metric: str, level: str, model: Summary, official: Sequence[OfficialRow]) -> str:
    estimate: Estimate | None = None
    n = model.n
    if level == "image":
        estimate = model.metrics.get(metric)
    if estimate is None and metric in (*RATES, *OFFICIAL):
        for row in official:
            if (row.level, row.region) == (level, OVERALL):
                estimate = getattr(row, metric)
                n = estimate.n if metric in RATES else row.n
    if estimate is None:
        return "not measured"
    interval = "no interval"
    if estimate.low is not None and estimate.high is not None:
        interval = limits(estimate.low, estimate.high)
    return f"{estimate.value:.3f} ({interval}, n = {n})"


def published_lines(runs: Sequence[tuple[str, Sequence[Mapping[str, str]]]]) -> list[str]:
    """One line per published metric, followed by the metric of each run that cites it.

    runs: a name, such as "This run" or "Job 3", and its result of `compare_with_published`.
    """
    groups: dict[str, list[str]] = {}
    for name, pairs in runs:
        for pair in pairs:
            groups.setdefault(pair["published"], []).append(f"{name}, {pair['ours']}.")
    return [f"{published}. {' '.join(ours)}" for published, ours in groups.items()]
