"""The page of a run: the verdict first, for a clinician; then all that an engineer asks.

Everything on it comes from the files of the run's folder (`RunContent`); a part whose file is not
there is left out, or says how to get it.
"""

import math
from typing import Any

from fracnet.evaluation.summary import Estimate
from fracnet.report import run_cases, run_curves, run_facts, run_figures, run_maps, run_tables
from fracnet.report.console import basis, further_basis, remarks
from fracnet.report.page import page
from fracnet.report.run_against import Against, against
from fracnet.report.run_content import RunContent
from fracnet.report.run_use import limits_of_use
from fracnet.report.run_verdict import Verdict, verdict
from fracnet.report.tables import figure_cell
from fracnet.words import counted


def as_page(content: RunContent) -> str:
    """The page, as HTML."""
    found = against(content)
    return page("run.html", _values(content, found, verdict(content, found)))


def _values(content: RunContent, found: Against, said: Verdict) -> dict[str, Any]:
    shown = content.shown
    data = content.fit.get("data") or {}
    return {
        "title": _title(content),
        "kicker": _kicker(content),
        "made": str(content.provenance.get("started", ""))[:10],
        "verdict": said,
        "meaning": meaning(content),
        "facts": _facts(content, found),
        "split": shown.split,
        "binary": content.binary,
        "operating": run_tables.operating(content),
        "figures": run_tables.all_figures(content),
        "classes": run_tables.per_class(content),
        "official": run_tables.official(content),
        "confusion": confusion(content),
        "curves_note": run_curves.curves_note(content),
        "roc": run_curves.roc(content),
        "precision_recall": run_curves.precision_recall(content),
        "reliability": run_figures.reliabilities(content),
        "calibration": run_tables.calibration(content),
        "strata": list(run_tables.strata(content)),
        "gallery": run_cases.gallery(content),
        "gallery_told": run_cases.gallery_told(content) if content.explained else "",
        "errors": run_cases.surest_errors(content),
        "images": content.images,
        "explained": content.explained is not None,
        "no_maps": run_cases.NO_MAPS if content.run_known else "",
        "no_gallery": run_cases.why_no_gallery(content),
        "map_notes": [str(note) for note in (content.explained or {}).get("notes", [])],
        "map_parts": run_maps.parts(content),
        "data": content.data,
        "trained_on": content.trained_on if content.elsewhere else "",
        "counts": run_facts.counts(content),
        "exclusions": run_facts.exclusions(content),
        "audit": content.audit,
        "notes": [*content.notes],
        "licence": data.get("licence", ""),
        "citation": data.get("citation", ""),
        "groups": data.get("groups", ""),
        "cited": content.cited,
        "recipe": run_facts.recipe(content) if content.run_known else [],
        "learning": run_figures.learning(content),
        "provenance": run_facts.provenance(content),
        "packages": content.provenance.get("packages") or {},
        "use": limits_of_use(content),
        "method": [
            basis(shown),
            further_basis(shown),
            *remarks(shown),
            *(f"{note[0].upper()}{note[1:]}." for note in content.assessment.notes),
        ],
    }


def _title(content: RunContent) -> str:
    model = (content.fit.get("model") or {}).get("name") or run_facts.architecture(content.config)
    return f"{str(model).partition(',')[0]} on {content.data}" if model else content.data


def _kicker(content: RunContent) -> str:
    if not content.run_known:
        return "Evaluation of predictions"
    if content.evaluation:
        return f"Evaluation {content.evaluation} of run {content.name}"
    return f"Run {content.name}"


def _facts(content: RunContent, found: Against) -> list[dict[str, Any]]:
    """The figures that a reader looks for first, as the verdict has them."""
    summary = content.first
    if content.binary:
        one = summary.per_class[1]
        pairs = [
            ("AUC", found.model),
            (f"sensitivity, {found.level}", one.sensitivity),
            (f"specificity, {found.level}", one.specificity),
        ]
    else:
        pairs = [
            ("accuracy", summary.metrics["accuracy"]),
            ("macro sensitivity", summary.metrics["macro_sensitivity"]),
            ("macro specificity", summary.metrics["macro_specificity"]),
            ("macro AUC", found.model),
        ]
    facts = [{"name": name, "value": figure_cell(value), "more": ""} for name, value in pairs]
    independent = "" if content.shown.n == content.shown.clusters else _independent(content)
    count = counted(content.shown.n, "image")
    return [*facts, {"name": f"{summary.split} split", "value": count, "more": independent}]


def _independent(content: RunContent) -> str:
    unit = content.shown.unit
    return f"of {counted(content.shown.clusters, unit if ',' not in unit else 'group')}"


def meaning(content: RunContent) -> list[dict[str, Any]]:
    """Rates as numbers of a hundred, which are read more rightly than percentages.

    U. Hoffrage et al. 2000, Science 290:2261. Of two classes sensitivity and specificity at the
    operating point; of more the accuracy.
    """
    summary = content.first
    if not content.binary:
        accuracy = summary.metrics["accuracy"]
        return _hundred("images", accuracy, "get the right class", "get a wrong one")
    negative, positive = content.classes
    one, units = summary.per_class[1], run_tables.level_of(content)
    found = _hundred(f"{positive} {units}", one.sensitivity, "are found", "are missed")
    kept = f"are called {negative}"
    return found + _hundred(f"{negative} {units}", one.specificity, kept, "are false alarms")


def _hundred(what: str, rate: Estimate, good: str, bad: str) -> list[dict[str, Any]]:
    if math.isnan(rate.value):
        return []
    n = round(100 * rate.value)
    reach = ""
    if rate.low is not None and rate.high is not None:
        reach = f"{math.floor(100 * rate.low)} to {math.ceil(100 * rate.high)}"
    return [{"what": what, "n": n, "good": good, "rest": 100 - n, "bad": bad, "reach": reach}]


def confusion(content: RunContent) -> dict[str, Any]:
    """The matrix at the level and decision of the page's first figures: counts and row shares."""
    stratum = content.overall[content.level]
    rows = []
    for name, counts in zip(content.classes, content.first.confusion, strict=True):
        n = sum(counts)
        cells = [{"n": k, "share": k / n if n else 0.0} for k in counts]
        rows.append({"name": name, "n": n, "cells": cells})
    rule = "by the likeliest class"
    if stratum.threshold is not None and content.binary:
        rule = "at the operating point"
    return {
        "caption": f"{run_tables.level_of(content).capitalize()} {rule}: truth in rows, "
        "what the model said in columns",
        "classes": content.classes,
        "rows": rows,
    }
