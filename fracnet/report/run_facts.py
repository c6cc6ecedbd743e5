"""Facts about a run from its files, for page and model card: data, recipe, provenance, limits."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fracnet.report.caveats import ABNORMAL
from fracnet.report.html import thousands
from fracnet.report.run_content import RunContent
from fracnet.report.tables import Table
from fracnet.utils.text import counted, duration, list_some, time_text

SPLITS = ("train", "val", "test")
Facts = list[tuple[str, str]]


def image_counts(content: RunContent) -> Table | None:
    """Images by class and split, then patients and studies; None where they are not known.

    Of an evaluation on other data, the counts are those of the training data.
    """
    counts = (content.provenance.get("data") or {}).get("counts")
    if not counts:
        return None
    rows = [_count_row(name, [counts[split][name] for split in SPLITS]) for name in counts["train"]]
    totals = [sum(counts[split].values()) for split in SPLITS]
    groups = (content.fit.get("data") or {}).get("counts") or {}
    for name, by_split in groups.items():
        known = [by_split.get(split) for split in SPLITS]
        if all(known):
            rows.append(_count_row(name, known))
    heads = ["class", *SPLITS, "all"]
    return Table("Images used", heads, [_count_row("all images", totals), *rows], strong=True)


def _count_row(name: str, values: Sequence[int]) -> list[str]:
    return [name, *map(thousands, values), thousands(sum(values))]


def exclusions(content: RunContent) -> list[dict[str, Any]]:
    """The flow from the images found to the images used, a step each; empty if not known."""
    data = content.fit.get("data") or {}
    counts = (content.provenance.get("data") or {}).get("counts")
    if "excluded" not in data or not counts:
        return []
    used = sum(sum(counts[split].values()) for split in SPLITS)
    reasons: dict[str, int] = {}
    for row in data["excluded"]:
        reasons[row["reason"]] = reasons.get(row["reason"], 0) + int(row["n"])
    left_out = [{"n": n, "reason": reason} for reason, n in reasons.items() if n]
    splits = [{"n": sum(counts[split].values()), "reason": f"for {split}"} for split in SPLITS]
    found = used + sum(reasons.values())
    return [
        {"n": found, "what": "images found", "parts": left_out, "excluded": True},
        {"n": used, "what": "images used", "parts": splits, "excluded": False},
    ]


def recipe(content: RunContent) -> Facts:
    """The model and how it was trained."""
    config, fit = content.config, content.fit
    model, data = config.get("model") or {}, config.get("data") or {}
    trained = fit.get("model") or {}
    selected = fit.get("selected") or {}
    facts: Facts = [("model", trained.get("name") or architecture(config))]
    if trained.get("parameters"):
        facts.append(("parameters", thousands(trained["parameters"])))
    if "image_size" in config:
        facts.append(("input", f"{config['image_size']} x {config['image_size']} pixels, grey"))
    steps = (config.get("preprocess") or {}).get("steps") or []
    facts.append(("preprocessing", ", ".join(str(step.get("name", "?")) for step in steps)))
    transforms = (config.get("augment") or {}).get("transforms") or []
    facts.append(("augmentation", ", ".join(map(_target_name, transforms)) or "none"))
    fitted = model.get("fit") == "classical" or model.get("head") in ("logistic", "knn")
    if not fitted:
        facts += _optimization(config, selected)
        if "batch_size" in data:
            facts.append(("batch", f"{data['batch_size']} images"))
    if selected.get("by"):
        metric = str(selected["by"]).replace("val/", "validation ").replace("_", " ")
        value = selected.get("value")
        facts.append(("selected by", metric if value is None else f"{metric} {value:.3f}"))
    method = (config.get("imbalance") or {}).get("method", "none")
    facts.append(("imbalance", str(method).replace("_", " ")))
    if "seed" in config:
        facts.append(("seed", str(config["seed"])))
    facts += [("also", line) for line in trained.get("recipe", [])]
    return [(name, value) for name, value in facts if value]


def _optimization(config: Mapping[str, Any], selected: Mapping[str, Any]) -> Facts:
    optim = config.get("optim") or {}
    parts = [_target_name(optim)]
    parts += [f"rate {optim['lr']:g}"] if "lr" in optim else []
    parts += [f"weight decay {optim['weight_decay']:g}"] if optim.get("weight_decay") else []
    facts = [
        ("optimizer", ", ".join(filter(None, parts))),
        ("schedule", _target_name(config.get("scheduler") or {}) or "none"),
        ("loss", _target_name(config.get("loss") or {})),
    ]
    if "epoch" in selected:
        most = (config.get("trainer") or {}).get("max_epochs")
        limit = "" if most is None else f", of at most {most}"
        facts.append(("epochs", f"{selected['epoch']} selected{limit}"))
    return facts


def _target_name(node: Mapping[str, Any]) -> str:
    """The last part of what a config node builds."""
    return str(node.get("_target_", "")).rpartition(".")[2]


def provenance(content: RunContent) -> Facts:
    """Where the run comes from, and what it took."""
    record = content.provenance
    code = record.get("code") or {}
    commit = str(code.get("commit") or "")[:12]
    changed = ", with uncommitted changes" if code.get("modified") else ""
    version = f"fracnet {code['fracnet']}" if code else ""
    seconds, memory = record.get("seconds"), record.get("peak_resident_mib")
    gpu, speed = record.get("peak_gpu_mib"), record.get("images_per_second")
    # Without the report, which is not over when it states this.
    phases = {k: v for k, v in (record.get("seconds_by_phase") or {}).items() if k != "report"}
    times = time_text(phases)
    fingerprint = record.get("data_fingerprint")
    facts = [
        ("command", shlex.join(record.get("command") or [])),
        ("code", f"{version}, commit {commit}{changed}" if commit else version),
        ("data", f"fingerprint {fingerprint}" if fingerprint else ""),
        ("device", str(record.get("device", ""))),
        ("started", str(record.get("started", "")).replace("T", " ").replace("+00:00", " UTC")),
        ("duration", times or ("" if seconds is None else duration(float(seconds)))),
        ("memory", "" if memory is None else f"{memory / 1024:.1f} GiB at most"),
        ("GPU memory", "" if gpu is None else f"{gpu / 1024:.1f} GiB at most"),
        ("speed", f"{speed:g} images/s in training" if speed else ""),
        ("faster", str(record.get("advice") or "")),
        (
            "Python",
            f"{record['python']}, {record.get('platform', '')}" if "python" in record else "",
        ),
    ]
    return [(name, value) for name, value in facts if value]


def architecture(config: Mapping[str, Any]) -> str:
    """The backbone's name, as the config has it; of an ensemble the number of its runs, too."""
    model = config.get("model") or {}
    name = str(model.get("name") or _target_name(model))
    members = (config.get("ensemble") or {}).get("runs")
    if not members:
        return name
    return f"Ensemble of {counted(len(members), 'run')}" + (f" of {name}" if name else "")


@dataclass(frozen=True)
class Use:
    """Sentences: what the model is for, what it is not for, and the limits of its metrics."""

    intended: Sequence[str]
    not_intended: Sequence[str]
    limits: Sequence[str]


def limits_of_use(content: RunContent) -> Use:
    """What the files of the run support, and no more."""
    classes = list_some(content.classes, len(content.classes))
    intended = [
        f"Research on classifying radiographs as {classes}, and on the methods that do it.",
        "Comparison with other models on the same images.",
    ]
    not_intended = [
        "Diagnosis, triage or any other decision about a patient: this is not a medical device, "
        "and its use by people has not been studied.",
        "Images unlike the training images: other body parts, other projections, photographs of "
        "screens.",
    ]
    return Use(intended, not_intended, _limits(content))


def _limits(content: RunContent) -> list[str]:
    summary = content.summary
    limits = []
    if content.synthetic:
        limits.append("The images are phantoms: nothing is known about real radiographs.")
    limits.append(
        f"The metrics hold for {counted(summary.n, 'image')} of {content.data}; other hospitals, "
        "machines and patients may give different ones."
    )
    # Where abnormal images are phantoms, the dataset's own note says what is abnormal in them.
    if "abnormal" in content.classes and not content.synthetic:
        limits.append(ABNORMAL)
    if "image" in summary.unit:
        limits.append(
            "Images whose patient is unknown count as independent: intervals may be too narrow, "
            "and images of one patient in two splits cannot be ruled out."
        )
    if content.binary:
        limits.append(_chosen_on_validation(content))
    if content.assessment.test is None:
        limits.append("There is no test: all metrics come from the rows that chose the model.")
    limits.append(
        "Labels are assumed to be correct. Age, sex and X-ray device are unknown, and so is "
        "whether the model works equally well for all of them."
    )
    return limits


def _chosen_on_validation(content: RunContent) -> str:
    """Whether validation chose threshold and temperature, and for which share of cases."""
    decisions = content.assessment.decisions or {}
    points = decisions.get("operating_point") or {}
    # A point without rates was not chosen: validation lacks a class.
    chosen = ["threshold"] if any(p["sensitivity"] is not None for p in points.values()) else []
    if decisions.get("calibrate") and not decisions.get("temperature_note"):
        chosen.append("temperature")
    positive, sentences = content.classes[1], []
    if "threshold" not in chosen:
        sentences.append(
            f"The threshold is 0.5: validation has not chosen one for the share of {positive}."
        )
    if chosen:
        verb, other = ("was", "another") if len(chosen) == 1 else ("were", "others")
        what = " and ".join(chosen)
        sentences.append(
            f"The {what} {verb} chosen on validation for the share of {positive} there; another "
            f"share calls for {other}."
        )
    return " ".join(sentences)
