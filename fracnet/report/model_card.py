"""The model card: Markdown with the metadata block that the Hugging Face hub reads.

Fields as https://github.com/huggingface/hub-docs/blob/main/modelcard.md has them; sections after
M. Mitchell et al. 2019, Model cards for model reporting, FAT*.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from fracnet.evaluation.summary import Estimate
from fracnet.report.console import RESEARCH_ONLY
from fracnet.report.run_content import RunContent
from fracnet.report.run_facts import limits_of_use, provenance, recipe
from fracnet.report.run_tables import (
    BINARY_METRICS,
    COLUMN_TITLES,
    FURTHER_METRICS,
    METRICS,
    format_threshold,
    overall_table,
)
from fracnet.report.tables import estimate_text
from fracnet.report.verdict import run_verdict
from fracnet.utils.text import without_controls

HUB_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced_accuracy",
    "macro_auc": "roc_auc",
    "macro_f1": "f1",
    "macro_sensitivity": "recall",
    "macro_precision": "precision",
    "mcc": "matthews_correlation",
    "brier": "brier_score",
}
"""The hub's names for the metrics that it knows."""
TITLES = METRICS | FURTHER_METRICS


def model_card_text(content: RunContent) -> str:
    """The whole card."""
    metadata = yaml.safe_dump(
        card_metadata(content), sort_keys=False, allow_unicode=True, width=1000
    )
    return f"---\n{metadata}---\n\n{_body(content)}"


def card_metadata(content: RunContent) -> dict[str, Any]:
    """The block at the top. It states no license: that is for the publisher to decide."""
    timm = "timm_backbone" in str((content.config.get("model") or {}).get("_target_"))
    tags = ["image-classification", "medical-imaging", "radiography", "fracnet", "research-only"]
    return {
        "license": "other",
        "license_name": "not-stated",
        "library_name": "fracnet",
        "pipeline_tag": "image-classification",
        "tags": [
            *tags,
            *(["timm"] if timm else []),
            *(["synthetic-data"] if content.synthetic else []),
        ],
        "model-index": [{"name": content.name, "results": [_result(content)]}],
    }


def _result(content: RunContent) -> dict[str, Any]:
    summary = content.summary
    metrics = [
        _metric(kind, TITLES[name], summary.metrics[name])
        for name, kind in HUB_NAMES.items()
        if _is_complete(summary.metrics[name], len(summary.classes))
    ]
    if content.binary:
        positive = content.overall["image"].summary.per_class[1]
        for name in ("sensitivity", "specificity"):
            rate = getattr(positive, name)
            if not math.isnan(rate.value):
                title = f"{name} of {positive.name} at the operating point"
                metrics.append(_metric(name, title, rate))
    return {
        "task": {"type": "image-classification"},
        "dataset": {"name": content.data, "type": content.data, "split": summary.split},
        "metrics": metrics,
    }


def _is_complete(estimate: Estimate, classes: int) -> bool:
    """Whether it is defined over all classes: a bare number cannot say that it covers only some."""
    return not math.isnan(estimate.value) and estimate.scored in (None, classes)


def _metric(kind: str, title: str, estimate: Estimate) -> dict[str, Any]:
    value = round(estimate.value, 6)
    return {"type": kind, "value": value, "name": estimate_text(estimate, title)}


def _body(content: RunContent) -> str:
    verdict = run_verdict(content)
    use, data = limits_of_use(content), content.fit.get("data") or {}
    about = [
        f"{title}: {data[field]}"
        for title, field in (
            ("License of the data", "license"),
            ("Citation", "citation"),
            ("Patients known from", "groups"),
        )
        if data.get(field)
    ]
    parts = [
        f"# {_escape(content.name)}",
        f"> {RESEARCH_ONLY}",
        f"**{_escape(verdict.headline)}**",
        *map(_escape, verdict.sentences),
        "## Uses",
        _list(use.intended),
        "### Out of scope",
        _list(use.not_intended),
        "## Limitations",
        _list(use.limits),
        "## Metrics",
        _metrics(content),
        "## Data",
        _list([f"Name: {content.data}", *about, *content.notes]),
        "## Training",
        _pairs(recipe(content)),
        "## Provenance",
        _pairs(provenance(content)),
        "index.html in this folder has all metrics, curves and errors.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metrics(content: RunContent) -> str:
    summary = content.summary
    rows = [[title, estimate_text(summary.metrics[name])] for name, title in TITLES.items()]
    parts = [
        f"{_escape(overall_table(content).caption)} by {summary.unit}:",
        _table(("metric", "value"), rows),
    ]
    if content.binary:
        for level, stratum in content.overall.items():
            positive = stratum.summary.per_class[1]
            threshold = 0.5 if stratum.threshold is None else stratum.threshold
            rows = [
                [COLUMN_TITLES.get(name, name), estimate_text(getattr(positive, name))]
                for name in BINARY_METRICS
            ]
            parts += [
                f"{_escape(positive.name)} above {format_threshold(threshold)}, {level} level, "
                f"{positive.n} of {stratum.summary.n}:",
                _table(("metric", "value"), rows),
            ]
    else:
        rows = [
            [row.name, str(row.n), *map(estimate_text, (row.sensitivity, row.specificity, row.auc))]
            for row in summary.per_class
        ]
        parts.append(_table(("class", "n", "sensitivity", "specificity", "AUC"), rows))
    return "\n\n".join(parts)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(_escape, line))} |" for line in lines)


def _escape(text: str) -> str:
    """The text on one line, without Markdown or HTML of its own except code between backticks."""
    parts = re.split("(`[^`]*`)", " ".join(without_controls(text).split()))
    for place in range(0, len(parts), 2):
        escaped = re.sub(r"[\\*\[\]|`]", r"\\\g<0>", parts[place])
        parts[place] = escaped.replace("<", "&lt;")
    return "".join(parts)


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {_escape(item)}" for item in items)


def _code(command: str) -> str:
    """A command as code, which a backtick would end."""
    return f"`{command}`" if "`" not in command else command


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return _list(f"{name}: {_code(value) if name == 'command' else value}" for name, value in pairs)
