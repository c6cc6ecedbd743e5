"""The page of a run: the verdict first, for a clinician; then all that an engineer asks.

Everything on it comes from the files of the run's folder (`RunContent`); a part whose file is not
there is left out, or says how to get it.

Single images on a run's page: a gallery with heatmaps, and the surest errors as a table.

What was trained on what, from the files of a run: data, exclusions, recipe, provenance.

Heatmaps in figures on a run's page: how well they find what is marked, and what they rest on.

What a model may be used for, and what its figures do not say: for page and model card.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from fracnet.evaluation.aggregation import is_class
from fracnet.evaluation.decisions import calibrated, decide_positive
from fracnet.evaluation.predictions import probabilities, targets
from fracnet.evaluation.summary import Estimate
from fracnet.report import run_charts, run_tables
from fracnet.report.caveats import ABNORMAL
from fracnet.report.console import basis, further_basis, remarks
from fracnet.report.html import page
from fracnet.report.run_content import IMAGE, RunContent
from fracnet.report.tables import Axis, Cell, Reach, Table, figure_cell, interval, named_file
from fracnet.report.verdict import Against, Verdict, against, verdict
from fracnet.utils.text import counted, limits

SIDE = 320  # pixels of the longest side: two stand side by side on a telephone
QUALITY = 80
WORST = 10
NO_MAPS = "python -m fracnet.explain run=<this run's folder>"


def gallery(content: RunContent) -> list[dict[str, Any]]:
    """Cases of explain.json by their kind, wrong ones first; nothing where images stay out."""
    if content.explained is None or not content.images or content.redecided:
        return []
    cases: dict[str, list[dict[str, Any]]] = {}
    for case in content.explained.get("cases", []):
        cases.setdefault(str(case["kind"]), []).append(_case(case, content.explain_folder))
    kinds = sorted(cases, key=lambda kind: not kind.startswith("wrong"))
    return [{"kind": f"{kind[0].upper()}{kind[1:]}", "cases": cases[kind]} for kind in kinds]


def gallery_told(content: RunContent) -> str:
    """What a pair of pictures is: by which method, at which layer, of which class."""
    # Here, as it imports OpenCV.
    from fracnet.saliency.localization import CLASS_AGNOSTIC, METHOD_NAMES

    made = content.explained or {}
    method = str(made.get("method"))
    by = f"by {METHOD_NAMES.get(method, method)} at the layer {made.get('layer')}"
    shows = f"the heatmap of the class that it named, {by}"
    if method in CLASS_AGNOSTIC:
        shows = f"a heatmap {by}, which is the same for every class"
    return (
        f"Each pair is the radiograph as the model sees it and {shows}; what is marked in the data "
        "set is outlined."
    )


def why_no_gallery(content: RunContent) -> str:
    """Why an evaluation of a run shows no cases, in a sentence; "" where there may be some."""
    if content.anew:
        return (
            "Heatmaps are made for the test images of the run's own predictions only, so there "
            "are none here."
        )
    if content.redecided and content.explained is not None:
        return (
            "The run's gallery is not shown: its cases are right or wrong by the run's own "
            "decisions, and this evaluation decides otherwise."
        )
    return ""


def _case(case: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    return {
        "truth": case["truth"],
        "predicted": case["predicted"],
        "probability": float(case["probability"]),
        "row": case["row"],
        "path": named_file(case.get("path") or ""),
        "pictures": [
            {"src": as_source(folder / case[key]), "alt": f"Radiograph, row {case['row']}{words}"}
            for key, words in (("plain", ""), ("overlay", ", with its heatmap"))
            if case.get(key)
        ],
    }


def as_source(path: Path) -> str:
    """A picture of the folder as a data URL: a JPEG of at most `SIDE` pixels."""
    import cv2

    image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None, path
    height, width = image.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done, path
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def _as_cell(column: str, value: str) -> Cell:
    return named_file(value) if column == "path" else value


def surest_errors(content: RunContent) -> Table | None:
    """Images that were called wrong most firmly, at the decision that the tables have."""
    warm = calibrated(content.rows, content.temperature)
    prob, target = probabilities(warm), targets(warm)
    threshold = content.overall[IMAGE].threshold
    if threshold is not None and content.binary:
        named = decide_positive(prob[:, 1], threshold)
    else:
        named = prob.argmax(axis=1).astype(np.int64)
    sure = prob[np.arange(len(named)), named]
    wrong = np.flatnonzero(named != target)
    if not len(wrong):
        return None
    wrong = wrong[np.argsort(-sure[wrong], kind="stable")][:WORST]
    heads = ["row", "truth", "called", "its probability"]
    told = []
    if "region" in warm and warm["region"].notna().any() and not is_class(warm, "region"):
        told.append("region")
    if content.images:
        told.append("path")
    numbers = content.rows.index.to_numpy()  # rows of predictions.csv, which `calibrated` resets
    rows = [
        [
            str(numbers[at]),
            content.classes[target[at]],
            content.classes[named[at]],
            f"{sure[at]:.3f}",
            *(_as_cell(key, str(warm[key].iloc[at])) for key in told),
        ]
        for at in wrong
    ]
    n = int((named != target).sum())
    rule = "at the operating point" if threshold is not None else "by the likeliest class"
    return Table(
        f"The surest of {n} wrong images of {len(named)}, {rule}",
        [*heads, *({"path": "file"}.get(key, key) for key in told)],
        rows,
        text=[1, 2, *range(4, 4 + len(told))],
        note="Rows are those of predictions.csv, from 0. A sure error may be a wrong label: look "
        "at the image.",
    )


SPLITS = ("train", "val", "test")
Facts = list[tuple[str, str]]


def counts(content: RunContent) -> Table | None:
    """Images by class and split, then patients and studies; None where only the tables are known.

    Of an evaluation on other data it is what the model was trained on.
    """
    held = (content.provenance.get("data") or {}).get("counts")
    if not held:
        return None
    rows = [_row(label, [held[split][label] for split in SPLITS]) for label in held["train"]]
    totals = [sum(held[split].values()) for split in SPLITS]
    groups = (content.fit.get("data") or {}).get("counts") or {}
    for name, of in groups.items():
        known = [of.get(split) for split in SPLITS]
        if all(known):
            rows.append([name, *map(thousands, known), thousands(sum(known))])
    return Table(
        "Images that were used",
        ["class", *SPLITS, "all"],
        [_row("all images", totals), *rows],
        strong=True,
    )


def exclusions(content: RunContent) -> list[dict[str, Any]]:
    """The flow from what was found to what was used, a step each; empty where it is not known."""
    data = content.fit.get("data") or {}
    held = (content.provenance.get("data") or {}).get("counts")
    if "excluded" not in data or not held:
        return []
    used = sum(sum(held[split].values()) for split in SPLITS)
    reasons: dict[str, int] = {}
    for row in data["excluded"]:
        reasons[row["reason"]] = reasons.get(row["reason"], 0) + int(row["n"])
    left = [{"n": n, "reason": reason} for reason, n in reasons.items() if n]
    return [
        {"n": used + sum(reasons.values()), "words": "images found", "left": left},
        {
            "n": used,
            "words": "images used",
            "left": [
                {"n": sum(held[split].values()), "reason": f"for {split}"} for split in SPLITS
            ],
        },
    ]


def recipe(content: RunContent) -> Facts:
    """The model and how it was trained."""
    config, fit = content.config, content.fit
    model, data = config.get("model") or {}, config.get("data") or {}
    made = fit.get("model") or {}
    optim, schedule = config.get("optim") or {}, config.get("scheduler") or {}
    selected = fit.get("selected") or {}
    facts: Facts = [("model", made.get("name") or architecture(config))]
    if made.get("parameters"):
        facts.append(("parameters", thousands(made["parameters"])))
    if "image_size" in config:
        facts.append(("input", f"{config['image_size']} x {config['image_size']} pixels, grey"))
    steps = (config.get("preprocess") or {}).get("steps") or []
    facts.append(("preprocessing", ", ".join(str(step.get("name", "?")) for step in steps)))
    transforms = (config.get("augment") or {}).get("transforms") or []
    facts.append(("augmentation", ", ".join(_short(one) for one in transforms) or "none"))
    if model.get("fit") != "classical":
        parts = [_short(optim)]
        parts += [f"rate {optim['lr']:g}"] if "lr" in optim else []
        parts += [f"weight decay {optim['weight_decay']:g}"] if optim.get("weight_decay") else []
        facts.append(("optimizer", ", ".join(filter(None, parts))))
        facts.append(("schedule", _short(schedule) or "none"))
        facts.append(("loss", _short(config.get("loss") or {})))
        if "batch_size" in data:
            facts.append(("batch", f"{data['batch_size']} images"))
        epochs = (config.get("trainer") or {}).get("max_epochs")
        if "epoch" in selected:
            most = "" if epochs is None else f", of at most {epochs}"
            facts.append(("epochs", f"{selected['epoch']} selected{most}"))
    if selected.get("by"):
        value = selected.get("value")
        by = str(selected["by"]).replace("val/", "validation ").replace("_", " ")
        facts.append(("selected by", f"{by}{'' if value is None else f' {value:.3f}'}"))
    method = (config.get("imbalance") or {}).get("method", "none")
    facts.append(("imbalance", str(method).replace("_", " ")))
    if "seed" in config:
        facts.append(("seed", str(config["seed"])))
    facts += [("also", line) for line in made.get("recipe", [])]
    return [(name, value) for name, value in facts if value]


def provenance(content: RunContent) -> Facts:
    """Where the run comes from, and what it took."""
    held = content.provenance
    code = held.get("code") or {}
    commit = str(code.get("commit") or "")[:12]
    changed = ", with changes that are not committed" if code.get("modified") else ""
    version = f"fracnet {code['fracnet']}" if code else ""
    seconds = held.get("seconds")
    memory = held.get("peak_resident_mib")
    gpu = held.get("peak_gpu_mib")
    facts = [
        ("command", _line(held.get("command") or [])),
        ("code", f"{version}{f', commit {commit}{changed}' if commit else ''}"),
        ("data", f"fingerprint {held['data_fingerprint']}" if "data_fingerprint" in held else ""),
        ("device", str(held.get("device", ""))),
        ("started", str(held.get("started", "")).replace("T", " ").replace("+00:00", " UTC")),
        ("took", "" if seconds is None else duration(float(seconds))),
        ("memory", "" if memory is None else f"{memory / 1024:.1f} GiB at most"),
        ("GPU memory", "" if gpu is None else f"{gpu / 1024:.1f} GiB at most"),
        ("Python", f"{held['python']}, {held.get('platform', '')}" if "python" in held else ""),
    ]
    return [(name, value) for name, value in facts if value]


def architecture(config: Mapping[str, Any]) -> str:
    """The backbone's name, as the config has it."""
    model = config.get("model") or {}
    return str(model.get("name") or str(model.get("_target_", "")).rpartition(".")[2])


def duration(seconds: float) -> str:
    """`48 s`, `8 min 50 s`, `3 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def thousands(n: int) -> str:
    """`36 808`, with a narrow space that does not break."""
    return f"{n:,}".replace(",", "\u202f")


def _row(name: str, values: Sequence[int]) -> list[str]:
    return [name, *map(thousands, values), thousands(sum(values))]


def _short(node: Mapping[str, Any]) -> str:
    """The last part of what a node builds."""
    return str(node.get("_target_", "")).rpartition(".")[2]


def _line(words: Sequence[str]) -> str:
    """A command as a person would type it again."""
    return " ".join(f"'{word}'" if set(word) & set(" []{}(),$*?;&|<>") else word for word in words)


# Short heads, so that a page of usual width shows every column.
HEADS = {
    "pointing": "pointing",
    "near": "pointing, with tolerance",
    "energy": "energy inside",
    "iou": "overlap",
}


def localization(content: RunContent) -> Table | None:
    """Scores of the heatmaps beside maps that see no network; None where nothing is marked."""
    found = (content.explained or {}).get("localization")
    if not found:
        return None
    from fracnet.saliency.localization import BASELINE_NAMES  # imports OpenCV

    names = [name for name in HEADS if name in found["scores"]]
    rows: list[list[Cell]] = [["heatmaps", *(_cell(found["scores"].get(name)) for name in names)]]
    for key, title in BASELINE_NAMES.items():
        held = found["baselines"].get(key)
        if held:
            rows.append([title, *(_cell(held.get(name)) for name in names)])
            gaps = found["differences"].get(key, {})
            rows.append(["difference", *(_cell(gaps.get(n), True) for n in names)])
    caption = f"{found['images']} marked test images, 95 % intervals by {found['unit']}"
    heads = ["", *(HEADS[name] for name in names)]
    return Table(caption, heads, rows, strong=True, below=True)


def sanity(content: RunContent) -> Table | None:
    """How alike maps are before and after the loss of weights; None where it was not asked."""
    found = (content.explained or {}).get("sanity")
    if not found:
        return None
    null = found["null"]
    scale = Axis(-1.0, 1.0)
    rows: list[list[Cell]] = []
    for stage in found["stages"]:
        value = math.nan if stage["correlation"] is None else stage["correlation"]
        reach = Reach(value, stage["low"], stage["high"])
        drawn = interval(reach, scale, guide=null["correlation"])
        part = 100 * stage["weights"]
        share = f"{part:.0f} %" if part >= 1 else "under 1 %"
        rows.append([f"down to {stage['name']}", share, _stage(stage), drawn])
    reach = Reach(null["correlation"], null["low"], null["high"])
    drawn = interval(reach, scale, guide=null["correlation"], look="s5")
    rows.append(["maps of different images", "", _stage(null), drawn])
    return Table(
        f"Rank correlation of maps before and after the loss; {found['images']} test images",
        ["weights lost", "share", "correlation", "-1 to 1"],
        rows,
        wide=[3],
        note="The dashed line is the mean between maps of different images; its bar is the middle "
        "95 % of them.",
    )


def parts(content: RunContent) -> list[dict[str, Any]]:
    """Each question that was put to the maps: title, what was said, and the figures."""
    made = {
        "localization": ("Do they find what is marked?", localization(content)),
        "sanity": ("Do they depend on the weights?", sanity(content)),
    }
    return [
        {
            "title": title,
            "table": table,
            "sentences": list((content.explained or {})[key].get("sentences", [])) or [""],
        }
        for key, (title, table) in made.items()
        if table is not None
    ]


def _stage(held: Mapping[str, Any]) -> Cell:
    if held["correlation"] is None:
        return "all maps went out"
    text = f"{held['correlation']:.2f}"
    return text if held["low"] is None else f"{text} ({held['low']:.2f} to {held['high']:.2f})"


def _cell(held: Mapping[str, Any] | None, signed: bool = False) -> Cell:
    if held is None or held["value"] is None:
        return "-"
    form = "+.3f" if signed else ".3f"
    text = format(held["value"], form)
    if held["low"] is None:
        return text
    reach = limits(held["low"], held["high"])
    if signed:
        reach = f"{held['low']:+.3f} to {held['high']:+.3f}"
    return Markup('{} <span class="i">({})</span>').format(text, reach)


@dataclass(frozen=True)
class Use:
    """Sentences: what it is for, what it is not for, and the limits of the figures."""

    intended: Sequence[str]
    not_intended: Sequence[str]
    limits: Sequence[str]


def limits_of_use(content: RunContent) -> Use:
    """What the files of the run allow to say, and no more."""
    classes = ", ".join(content.classes)
    intended = [
        f"Research on classifying radiographs as {classes}, and on the methods that do it.",
        "Comparison with other models on the same images.",
    ]
    not_intended = [
        "Diagnosis, triage or any other decision on a patient: it is no medical device, and no "
        "study of its use by people has been made.",
        "Images unlike those it was trained on: other body parts, other projections, photographs "
        "of screens.",
    ]
    return Use(intended, not_intended, _limits(content))


def _limits(content: RunContent) -> list[str]:
    shown = content.shown
    limits = []
    if content.drawn:
        limits.append("The images are phantoms: nothing is known of real radiographs.")
    limits.append(
        f"The figures hold for {counted(shown.n, 'image')} of {content.data}; other hospitals, "
        "machines and patients may give others."
    )
    # Where abnormal images are drawn, the data set's own note says what is drawn in them.
    if "abnormal" in content.classes and not content.drawn:
        limits.append(ABNORMAL)
    if "image" in shown.unit:
        limits.append(
            "Patients are not known for all images, which then count as independent: intervals "
            "may be too narrow, and copies of one patient in two splits cannot be ruled out."
        )
    if content.binary:
        limits.append(_chosen(content))
    if content.assessment.test is None:
        limits.append("There is no test: all figures are those of the rows that chose the model.")
    limits.append(
        "Labels are taken as true. Age, sex and machine are not known here, so neither is whether "
        "the model treats them alike."
    )
    return limits


def _chosen(content: RunContent) -> str:
    """What validation has chosen of threshold and temperature, if anything."""
    decisions = content.assessment.decisions or {}
    points = decisions.get("operating_point") or {}
    # A point without rates was not chosen: validation lacks a class.
    chosen = ["threshold"] if any(p["sensitivity"] is not None for p in points.values()) else []
    if decisions.get("calibrate") and not decisions.get("temperature_note"):
        chosen.append("temperature")
    positive, whole = content.classes[1], ""
    if "threshold" not in chosen:
        whole = f"The threshold is 0.5: validation has not chosen one for the share of {positive}."
    if chosen:
        verb, other = ("was", "another") if len(chosen) == 1 else ("were", "others")
        words = " and ".join(chosen)
        whole += (
            f" {words[0].upper()}{words[1:]} {verb} chosen on validation for the share of "
            f"{positive} there; another share calls for {other}."
        )
    return whole.strip()


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
        "operating_point": run_tables.operating_point(content),
        "figures": run_tables.all_figures(content),
        "classes": run_tables.per_class(content),
        "official": run_tables.official(content),
        "confusion": confusion(content),
        "curves_note": run_charts.curves_note(content),
        "roc": run_charts.roc(content),
        "precision_recall": run_charts.precision_recall(content),
        "reliability": run_charts.reliabilities(content),
        "calibration": run_tables.calibration(content),
        "strata": list(run_tables.strata(content)),
        "gallery": gallery(content),
        "gallery_told": gallery_told(content) if content.explained else "",
        "errors": surest_errors(content),
        "images": content.images,
        "explained": content.explained is not None,
        "no_maps": NO_MAPS if content.run_known else "",
        "no_gallery": why_no_gallery(content),
        "map_notes": [str(note) for note in (content.explained or {}).get("notes", [])],
        "map_parts": parts(content),
        "data": content.data,
        "trained_on": content.trained_on if content.elsewhere else "",
        "counts": counts(content),
        "exclusions": exclusions(content),
        "audit": content.audit,
        "notes": [*content.notes],
        "license": data.get("license", ""),
        "citation": data.get("citation", ""),
        "groups": data.get("groups", ""),
        "cited": content.cited,
        "recipe": recipe(content) if content.run_known else [],
        "learning": run_charts.learning(content),
        "provenance": provenance(content),
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
    model = (content.fit.get("model") or {}).get("name") or architecture(content.config)
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
