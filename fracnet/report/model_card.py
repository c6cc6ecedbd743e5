"""The model card: Markdown with the metadata block that the Hugging Face hub reads.

Fields as https://github.com/huggingface/hub-docs/blob/main/modelcard.md has them; sections after
M. Mitchell et al. 2019, Model cards for model reporting, FAT*.
"""

import math
from typing import Any

from fracnet.evaluation.summary import Estimate
from fracnet.report.console import FURTHER, METRICS, RESEARCH_ONLY
from fracnet.report.plots import told
from fracnet.report.run_content import RunContent
from fracnet.report.run_page import limits_of_use, provenance, recipe
from fracnet.report.run_tables import HEADS, TWO
from fracnet.report.verdict import against, verdict

# The hub's names for the figures that it knows.
TYPES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced_accuracy",
    "macro_auc": "roc_auc",
    "macro_f1": "f1",
    "macro_sensitivity": "recall",
    "macro_precision": "precision",
    "mcc": "matthews_correlation",
    "brier": "brier_score",
}


def as_card(content: RunContent) -> str:
    """The whole card."""
    import yaml

    head = yaml.safe_dump(metadata(content), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{head}---\n\n{_body(content)}"


def metadata(content: RunContent) -> dict[str, Any]:
    """The block at the top. A license is not stated: that is for whoever publishes to decide."""
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
            *(["synthetic-data"] if content.drawn else []),
        ],
        "model-index": [{"name": content.name, "results": [_result(content)]}],
    }


def _result(content: RunContent) -> dict[str, Any]:
    shown = content.shown
    metrics = [
        _metric(TYPES[name], (METRICS | FURTHER)[name], shown.metrics[name])
        for name in METRICS | FURTHER
        if name in TYPES and _whole(shown.metrics[name], len(shown.classes))
    ]
    if content.binary:
        one = content.overall["image"].summary.per_class[1]
        for name in ("sensitivity", "specificity"):
            rate = getattr(one, name)
            if not math.isnan(rate.value):
                title = f"{name} of {one.name} at the operating point"
                metrics.append(_metric(name, title, rate))
    return {
        "task": {"type": "image-classification"},
        "dataset": {"name": content.data, "type": content.data, "split": shown.split},
        "metrics": metrics,
    }


def _whole(estimate: Estimate, classes: int) -> bool:
    """Whether it is known, and of all classes: a bare number cannot say that it is of some only."""
    return not math.isnan(estimate.value) and estimate.scored in (None, classes)


def _metric(kind: str, title: str, estimate: Estimate) -> dict[str, Any]:
    return {"type": kind, "value": round(estimate.value, 6), "name": told(estimate, title)}


def _body(content: RunContent) -> str:
    found = against(content)
    said, use = verdict(content, found), limits_of_use(content)
    data = content.fit.get("data") or {}
    about = [
        f"{key}: {data[field]}"
        for key, field in (
            ("License of the data", "license"),
            ("Citation", "citation"),
            ("Patients from", "groups"),
        )
        if data.get(field)
    ]
    parts = [
        f"# {content.name}",
        f"> {RESEARCH_ONLY}",
        f"**{said.headline}**",
        *said.sentences,
        "## Uses",
        _list(use.intended),
        "### Out of scope",
        _list(use.not_intended),
        "## Limits",
        _list(use.limits),
        "## Figures",
        _figures(content),
        "## Data",
        _list([f"Name: {content.data}", *about, *content.notes]),
        "## Training",
        _pairs([*recipe(content)]),
        "## Provenance",
        _pairs(provenance(content)),
        "index.html beside this card has all figures, curves and errors.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _figures(content: RunContent) -> str:
    shown = content.shown
    rows = [(title, told(shown.metrics[name])) for name, title in (METRICS | FURTHER).items()]
    text = f"{shown.n} images of the {shown.split} split, 95 % intervals by {shown.unit}.\n\n"
    text += _markdown(("figure", "value"), rows)
    if content.binary:
        for level, stratum in content.overall.items():
            one = stratum.summary.per_class[1]
            rows = [(HEADS.get(name, name), told(getattr(one, name))) for name in TWO]
            at = 0.5 if stratum.threshold is None else stratum.threshold
            text += (
                f"\n\n{one.name} above {at:.4g}, {level} level, {one.n}/{stratum.summary.n}:\n\n"
            )
            text += _markdown(("figure", "value"), rows)
        return text
    of = [
        (one.name, str(one.n), told(one.sensitivity), told(one.specificity), told(one.auc))
        for one in shown.per_class
    ]
    return f"{text}\n\n{_markdown(('class', 'n', 'sensitivity', 'specificity', 'AUC'), of)}"


def _markdown(heads: tuple[str, ...], rows: list[Any]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _list(sentences: Any) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _pairs(pairs: list[tuple[str, str]]) -> str:
    return _list(f"{name}: {f'`{value}`' if name == 'command' else value}" for name, value in pairs)
