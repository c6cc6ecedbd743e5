"""What was trained on what, from the files of a run: data, exclusions, recipe, provenance."""

from collections.abc import Mapping, Sequence
from typing import Any

from fracnet.report.run_content import RunContent
from fracnet.report.tables import Table

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
    steps = (config.get("enhance") or {}).get("steps") or []
    facts.append(("enhancement", ", ".join(str(step.get("name", "?")) for step in steps)))
    transforms = (config.get("augment") or {}).get("transforms") or []
    facts.append(("augmentation", ", ".join(_short(one) for one in transforms) or "none"))
    if model.get("fit") != "classical":
        parts = [_short(optim)]
        parts += [f"rate {optim['lr']:g}"] if "lr" in optim else []
        parts += [f"weight decay {optim['weight_decay']:g}"] if optim.get("weight_decay") else []
        facts.append(("optimiser", ", ".join(filter(None, parts))))
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
