"""Console, metrics.json, page, figures, model card and W&B give the same numbers for one run."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.figures import text_of
from helpers.reports import Page, six_classes, two_classes

from fracnet.report.tables import estimate_text
from fracnet.report.verdict import compare_with_baseline, run_verdict
from fracnet.runs.evaluate_run import evaluate_run
from fracnet.runs.report_run import draw_figures, print_evaluation, report_content, write_report
from fracnet.runs.run_folder import RunFolder
from fracnet.training.logged_results import summary_of

# In one line: cells that are too narrow for both have the interval below the value.
ESTIMATE = re.compile(r"(?<![\d.-])(\d\.\d{3}) \(?(\d\.\d{3}-\d\.\d{3})\b")


def estimates(node: Any) -> Iterator[str]:
    """Every `0.984 0.944-0.996` in the content of metrics.json."""
    if isinstance(node, dict) and {"value", "low", "high"} <= node.keys():
        if None not in (node["value"], node["low"], node["high"]):
            yield f"{node['value']:.3f} {node['low']:.3f}-{node['high']:.3f}"
    elif isinstance(node, dict | list):
        for item in node.values() if isinstance(node, dict) else node:
            yield from estimates(item)


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("make", [two_classes, six_classes])
def test_every_estimate_of_a_run_is_one_of_metrics_json(
    make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(make(tmp_path / "run"))
    evaluation = evaluate_run(folder)
    capsys.readouterr()
    print_evaluation(evaluation, [], "Run")
    printed = capsys.readouterr().out
    console = flat(printed)
    page_file, card_file = write_report(evaluation)
    page = flat(Page(page_file.read_text(encoding="utf-8")).text)
    card = flat(card_file.read_text(encoding="utf-8"))
    metrics = json.loads(folder.metrics.read_text())
    content = report_content(evaluation)
    comparison = compare_with_baseline(content)
    known = set(estimates(metrics))
    if comparison.baseline is not None:  # of studies, which only the comparison needs
        known.add(re.sub(r"[()]", "", estimate_text(comparison.baseline)))
    figures = " ".join(text_of(p.with_suffix(".svg")) for p in draw_figures(evaluation))
    texts = {"console": printed, "page": page, "card": card, "figures": figures}
    for name, text in texts.items():
        numbers = {f"{value} {interval}" for value, interval in ESTIMATE.findall(text)}
        assert numbers, name
        assert numbers <= known, name
    logged = summary_of(metrics, ["val", "test"])
    auc = "test/operating_point/study/auc" if content.binary else "test/macro_auc"
    headline = f"{logged[auc]:.3f} ({logged[f'{auc}_low']:.3f}-{logged[f'{auc}_high']:.3f})"
    for text in (console, page, card):
        assert headline in text


@pytest.mark.parametrize("make", [two_classes, six_classes])
def test_console_page_and_card_have_one_verdict(
    make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation = evaluate_run(RunFolder(make(tmp_path / "run")))
    capsys.readouterr()
    print_evaluation(evaluation, [], "Run")
    console = flat(capsys.readouterr().out)
    page, card = (path.read_text(encoding="utf-8") for path in write_report(evaluation))
    content = report_content(evaluation)
    verdict = run_verdict(content)
    for text in (console, flat(Page(page).text), flat(card)):
        for sentence in (verdict.headline, *verdict.sentences):
            assert flat(sentence) in text
