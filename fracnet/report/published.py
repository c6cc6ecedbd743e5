"""Published figures beside a run's own, with the interval that their number of images allows."""

from collections.abc import Mapping, Sequence
from typing import Any

from fracnet.evaluation.assessment import _OVERALL, BinaryRow
from fracnet.evaluation.summary import Estimate, Summary
from fracnet.metrics.intervals import wilson
from fracnet.utils.text import limits

# What is no share of counted cases has no Wilson interval.
NO_PROPORTION = ("auc", "macro_auc", "macro_f1", "kappa", "mcc")
SHARES, OFFICIAL = ("sensitivity", "specificity"), ("auc", "kappa")


def cited_pairs(
    cited: Sequence[Mapping[str, Any]],
    model: Summary,
    data: str,
    official: Sequence[BinaryRow] = (),
) -> list[dict[str, str]]:
    """For each published figure two clauses: `published`, and `here` on our own.

    Each of `cited` has metric, value, n (what it rests on, or None where the publication does not
    say), source, remark and, unless it is of images, level. Ours are those of `model`; for studies,
    and for the positive one of two classes, those of `official`, which are decided at 0.5. `data`
    names what ours was measured on.
    metrics.json keeps them, so that the table of a sweep can show them for the job it chooses.
    """
    pairs = []
    for figure in cited:
        metric, n, level = figure["metric"], figure["n"], figure.get("level", "image")
        if n is None:
            basis = "no interval: n is not stated"
        elif metric in NO_PROPORTION:
            basis = f"no interval: it is no proportion; n = {n}"
        else:
            low, high = wilson(round(figure["value"] * n), n)
            basis = f"95 % {limits(low, high)} by Wilson, n = {n}"
        remark = f"; {figure['remark']}" if figure["remark"] else ""
        title = metric.replace("_", " ") + (f" by {level}" if level != "image" else "")
        published = (
            f"Published {title}: {figure['value']:.3f} ({basis}; {figure['source']}{remark})"
        )
        here = f"on {data}: {_ours(metric, level, model, official)}"
        pairs.append({"published": published, "here": here})
    return pairs


def _ours(metric: str, level: str, model: Summary, official: Sequence[BinaryRow]) -> str:
    found: Estimate | None = None
    n = model.n
    if level == "image":
        found = model.metrics.get(metric)
    if found is None and metric in (*SHARES, *OFFICIAL):
        for row in official:
            if (row.level, row.region) == (level, _OVERALL):
                found = getattr(row, metric)
                n = found.n if metric in SHARES else row.n
    if found is None:
        return "no such figure"
    interval = "no interval"
    if found.low is not None and found.high is not None:
        interval = limits(found.low, found.high)
    return f"{found.value:.3f} ({interval}, n = {n})"


def cited_lines(cited: Sequence[Mapping[str, Any]], model: Summary, data: str) -> list[str]:
    """One sentence for each published figure and one for ours; see `cited_pairs`."""
    return told([("This run", cited_pairs(cited, model, data))])


def told(pairs: Sequence[tuple[str, Sequence[Mapping[str, str]]]]) -> list[str]:
    """A line for each published figure, with the own figures of all who go with it.

    pairs: who, such as "This run" or "Job 3", and what `cited_pairs` gave for it.
    """
    found: dict[str, list[str]] = {}
    for who, figures in pairs:
        for figure in figures:
            found.setdefault(figure["published"], []).append(f"{who}, {figure['here']}.")
    return [f"{published}. {' '.join(here)}" for published, here in found.items()]
