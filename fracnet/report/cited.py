"""Published figures beside a run's own, with the interval that their number of images allows."""

from collections.abc import Mapping, Sequence
from typing import Any

from fracnet.evaluation.intervals import wilson
from fracnet.evaluation.summary import Summary


def cited_lines(cited: Sequence[Mapping[str, Any]], model: Summary, data: str) -> list[str]:
    """One sentence for each published figure: it, its Wilson interval, its source, and ours.

    Each of `cited` has metric (a key of `model.metrics`), value (a proportion), n (images, or None
    where the publication does not say), source and remark. `data` names what ours was measured on.
    """
    lines = []
    for figure in cited:
        if figure["n"] is None:
            basis = "no interval: n is not stated"
        else:
            low, high = wilson(round(figure["value"] * figure["n"]), figure["n"])
            basis = f"95 % {low:.3f}-{high:.3f} by Wilson, n = {figure['n']}"
        ours = model.metrics[figure["metric"]]
        limits = "no interval" if ours.low is None else f"{ours.low:.3f}-{ours.high:.3f}"
        remark = f"; {figure['remark']}" if figure["remark"] else ""
        lines.append(
            f"Published {figure['metric'].replace('_', ' ')}: {figure['value']:.3f} ({basis}; "
            f"{figure['source']}{remark}). This run, on {data}: {ours.value:.3f} "
            f"({limits}, n = {model.n})."
        )
    return lines
