"""Pages of each kind in a folder, with long names and most optional content."""

import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pandas as pd
from helpers.audited import audit_manifest, read_picture, write_picture, write_set
from helpers.jobs import add_job
from helpers.reports import write_explanation, write_report, write_run_metadata
from helpers.run_folders import table_of, write_run

from fracnet.config.commands import CompareCommand
from fracnet.data.datasets.folder import Folder
from fracnet.data_audit.page import render_audit_page
from fracnet.evaluation.comparison import compare
from fracnet.evaluation.conformal import Limits
from fracnet.inference.prediction_page import prediction_page
from fracnet.runs.compare_runs import load_candidates, write_comparison
from fracnet.runs.evaluate_run import evaluate_run
from fracnet.runs.run_folder import RunFolder
from fracnet.runs.sweep_summary import collect

RESAMPLES = 100
RECIPE = {
    "model": {"_target_": "fracnet.models.backbones.timm_backbone", "name": "vit_tiny_patch16_224"},
    "optim": {"_target_": "torch.optim.AdamW", "lr": 1e-4, "weight_decay": 0.01},
    "scheduler": {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR"},
    "trainer": {"max_epochs": 12},
    "image_size": 224,
}
ABOUT = {
    "license": "research use only; ask its owners",
    "citation": "Somebody et al. 2018, A Large Data Set of Radiographs",
}
LONG = "_right_wrist_lateral_png.rf.2a7c4a2a2f0e6e6a3c1f70b1de9c5a44.jpg"


def audit(root: Path) -> Path:
    """The audit page of a few images, two of which are copies."""
    write_set(root / "set")
    first = read_picture(root / "set/train/normal/train00.png")
    write_picture(root / "set/test/normal/copy.png", first[:, ::-1])
    dataset = Folder(root=str(root / "set"), class_order=["normal", "fractured"])
    (root / "index.html").write_text(
        render_audit_page(audit_manifest(dataset.manifest()), 24), encoding="utf-8"
    )
    return root / "index.html"


def run(root: Path) -> Path:
    """The page of a run with studies, patients, long file names, and all optional files."""
    table = table_of(1.2)
    long = table["path"].str.replace(".png", LONG, regex=False)
    table = table.assign(path="MURA-v1.1/valid/" + long)
    write_run(root, table, config=RECIPE)
    update_json(root / "fit.json", data={"name": "mura", "notes": ["A note."]} | ABOUT)
    evaluate_run(RunFolder(root))
    write_run_metadata(root)
    curves(root, 0)
    figure = {"value": 0.42, "low": 0.31, "high": 0.53, "method": "x", "note": ""}
    scores = dict.fromkeys(("pointing", "pointing_tolerance", "energy", "iou"), figure)
    verdict = {
        "verdict": "better",
        "sentences": ["They find more of it than a guess.", "In detail."],
    }
    localization = {"images": 30, "unit": "patient", "scores": scores} | verdict
    localization |= {
        key: {"center": scores, "edges": scores} for key in ("baselines", "differences")
    }
    correlation = {"correlation": 0.2, "low": 0.1, "high": 0.3}
    stages = [
        {"name": f"blocks.{n}.norm1", "weights": 1 - n / 12} | correlation for n in (11, 6, 0)
    ]
    sanity: dict[str, Any] = {
        "images": 50,
        "stages": stages,
        "null": correlation,
        "verdict": "passed",
    }
    sanity |= {"sentences": ["They need the weights."]}
    kinds = [
        f"{right} and {sure}" for right in ("right", "wrong") for sure in ("confident", "uncertain")
    ]
    write_explanation(root, sorted(kinds * 3), localization=localization, sanity=sanity)
    return write_report(root)[0]


def comparison(root: Path, metric: str = "macro_auc") -> Path:
    """The page of two configurations with five runs each, one clearly better; the data leak."""
    line = "Test figures on these data, split as they are, will be too good."
    about = {"counts": {}, "audit": {"severity": "leak", "verdict": line}}
    for number in range(10):
        name, seed = f"a_rather_long_name_of_a_run_{number}", number // 2
        config = {"optim": {"lr": (0.1, 0.01)[number % 2]}}
        table = table_of(1.8 if number % 2 else 0.6, number)
        folder = write_run(root / "runs" / name, table, seed=seed, config=config)
        curves(folder, number)
        update_json(folder / "provenance.json", data=about)
        update_json(folder / "fit.json", data={"name": "mura_copies"})
    command = CompareCommand(
        runs=[str(root / "runs/*")],
        metric=metric,
        class_name=None,
        level="image",
        decisions="raw",
        reference=None,
        pairs="reference",
        seeds="grouped",
        margin=0.02,
        resamples=RESAMPLES,
        out=None,
    )
    candidates, skipped, configurations = load_candidates(command)
    result = compare(candidates, metric, margin=0.02, resamples=RESAMPLES)
    return write_comparison(root / "out", command, result, configurations, skipped)[0]


def sweep(root: Path) -> Path:
    """The page of eight jobs, two of them diverged; all test metrics are shown."""
    number = 0
    for model in ("custom_cnn", "resnet18"):
        for lr in ("1e-5", "0.0001", "0.001", "1e35"):
            overrides = [f"model={model}", f"optim.lr={lr}", "seed=0"]
            if lr == "1e35":
                add_job(root, number, overrides, status="diverged", reason="the loss is nan")
            else:
                add_job(root, number, overrides, 0.5 + number / 100)
                curves(root / str(number), number)
            number += 1
    collect(root, "all")
    return root / "index.html"


def prediction(root: Path) -> Path:
    """The page of a prediction: studies, heatmaps, unreadable and unusual images, long names."""
    (root / "overlays" / "plain").mkdir(parents=True)
    classes, rng = ("normal", "abnormal"), np.random.default_rng(0)
    rows = []
    for number in range(12):
        prob = rng.random()
        name = f"{number:04}{LONG}"
        picture = np.full((90, 60), 20 * number, np.uint8)
        for place in ("overlays", "overlays/plain"):
            (root / place / f"{number}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
        rows.append(
            {
                "path": f"scans/{name}",
                "decision": classes[prob > 0.4],
                "prob_normal": 1 - prob,
                "prob_abnormal": prob,
                "uncertain": 0.2 < prob < 0.7,
                "ood": number == 3,
                "ood_score": 1.2 if number == 3 else 0.31,
                "error": "it is not a complete image" if number == 5 else "",
                "overlay": "" if number == 5 else f"overlays/{number}.png",
            }
        )
    table = pd.DataFrame(rows)
    studies = table.assign(study="a/study1", patient="p1", views=1, unreadable=0, reason="a reason")
    limits = Limits(classes, 0.05, (0.3, 0.2), (0.05, 0.083), (40, 11), "A note.")
    levels = {level: {"threshold": 0.4, "limits": limits} for level in ("image", "study")}
    predictor: Any = SimpleNamespace(
        path=Path("a_run_with_a_long_name"),
        classes=classes,
        decisions={"temperature": 1.3},
        levels=levels,
        ood_description={"layer": "the last one"},
    )
    html = prediction_page(root, predictor, table, studies, ["A note."])
    (root / "index.html").write_text(html, encoding="utf-8")
    return root / "index.html"


def update_json(path: Path, **more: Any) -> None:
    """Add keys to a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


def curves(folder: Path, seed: int) -> None:
    """A metrics.csv of twelve epochs."""
    epochs = np.arange(1, 13)
    noise = np.random.default_rng(seed).normal(0, 0.02, len(epochs))
    rising = 0.9 - 0.4 * np.exp(-epochs / 4) + noise
    columns = {"val/macro_auc": rising, "val/accuracy": rising}
    columns |= {"val/loss": 1 - rising, "train/loss": 0.9 - rising}
    pd.DataFrame({"epoch": epochs} | columns).to_csv(folder / "metrics.csv", index=False)


KINDS: dict[str, Callable[[Path], Path]] = {
    "audit": audit,
    "run": run,
    "comparison": comparison,
    "sweep": sweep,
    "prediction": prediction,
}


def text_of(html: str) -> str:
    """What a reader sees, in one line, without the titles that show under a pointer."""
    bare = re.sub(r"<(style|title|script)[^>]*>.*?</\1>", " ", html, flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", bare)).split())
