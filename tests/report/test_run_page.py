"""A run's page is self-contained, shows metrics.json, and works without optional files."""

import base64
import hashlib
import json
import re
import shlex
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from helpers.reports import (
    Page,
    content_of,
    six_classes,
    two_classes,
    update_config,
    write_explanation,
    write_report,
    write_run_metadata,
)

from fracnet.evaluation.summary import NOT_FROM_0
from fracnet.report.run_page import run_page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With everything that a run can leave."""
    run = two_classes(tmp_path_factory.mktemp("page") / "run<b>")
    write_run_metadata(run)
    figure = {"value": 0.4, "low": 0.3, "high": 0.5, "method": "x", "note": ""}
    scores = {"pointing": figure, "energy": figure}
    localization = {
        "images": 30,
        "unit": "patient",
        "scores": scores,
        "baselines": {"center": scores},
        "differences": {"center": scores},
        "verdict": "better",
        "sentences": ["They find it.", "In detail."],
    }
    stage = {"name": "head", "weights": 0.1, "correlation": 0.2, "low": 0.1, "high": 0.3}
    sanity = {
        "images": 50,
        "stages": [stage],
        "null": {"correlation": 0.1, "low": -0.2, "high": 0.4},
        "verdict": "passed",
        "sentences": ["They need the weights."],
    }
    write_explanation(run, localization=localization, sanity=sanity)
    write_report(run)
    return run


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return (folder / "report/index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a run of six classes."""
    folder = six_classes(tmp_path_factory.mktemp("six") / "run")
    return write_report(folder)[0].read_text(encoding="utf-8")


def test_true_and_predicted_are_the_only_words_for_label_and_decision(html: str) -> None:
    assert re.search(r">predicted</text>", html), "axis of the confusion matrix"
    assert re.search(r"<th[^>]*>predicted</th>", html), "head of the table of errors"
    assert not re.search(r"\bcalled\b", Page(html).text)


def test_page_is_well_formed_and_its_parts_are_found_by_the_menu(html: str) -> None:
    page = Page(html)
    ids = [held["id"] for _, held in page.seen if "id" in held]
    assert len(ids) == len(set(ids))
    links = [str(held["href"]) for held in page.all("a")]
    targets = {href.removeprefix("#") for href in links if href.startswith("#")}
    assert targets <= set(ids)
    assert len(targets) > 9
    assert {str(held["aria-labelledby"]) for held in page.all("section") if "id" in held} <= targets
    assert len(page.all("h1")) == 1


def test_page_loads_nothing_and_allows_its_own_script_alone(html: str) -> None:
    page = Page(html)
    assert "http" not in html.replace("http-equiv", "")
    assert set(re.findall(r"url\((.)", html)) <= {"#"}, "parts of the page itself"
    for tag in ("link", "iframe", "object"):
        assert not page.all(tag), tag
    assert page.all("script") == [{}]
    script = html.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(str(m["content"]) for m in page.all("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"script-src 'sha256-{digest}'" in policy
    for image in page.all("img"):
        assert str(image["src"]).startswith("data:image/jpeg;base64,")
        assert image["alt"]
    assert len(page.all("img")) == 4
    assert "<b>" not in html.partition("<main")[0], "names are escaped"


def test_the_page_shows_the_values_of_metrics_json(folder: Path, html: str) -> None:
    text = " ".join(Page(html).text.split())
    metrics = json.loads((folder / "metrics.json").read_text())
    for name, held in metrics["test"]["metrics"].items():
        if held["low"] is not None and held["low"] >= 0:
            value = f"{held['value']:.3f}"
            if name == "calibration_error" and held["low"] == 0 and held["value"] == 0:
                value = NOT_FROM_0  # an estimate cut at 0 would read as perfect
            assert f"{value} ({held['low']:.3f}-{held['high']:.3f})" in text, name
    for stratum in metrics["test_strata"]:
        held = stratum["per_class"][1]["sensitivity"]
        assert f"{held['value']:.3f} ({held['low']:.3f}-{held['high']:.3f})" in text
    study = next(s for s in metrics["test_strata"] if s["level"] == "study")
    rate = study["per_class"][1]["sensitivity"]["value"]
    assert f"Of 100 abnormal studies, {round(100 * rate)} are found" in text


def test_the_confusion_matrix_says_how_its_predictions_were_decided(
    folder: Path, html: str
) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    strata = {(s["level"], s["by"]): s for s in metrics["test_strata"]}
    matrix = html.partition("Confusion matrix")[2].partition("<svg")[0]
    assert f"predicted abnormal: above {strata['study', 'overall']['threshold']:.3f}" in matrix


def test_verdict_comes_first_and_everything_else_is_there(html: str) -> None:
    text = " ".join(Page(html).text.split())
    parts = (
        "better than chance",
        "Confusion matrix",
        "Precision and recall",
        "Calibration",
        "Right and wrong",
        "Do they find the annotations?",
        "In detail.",
        "Do they depend on the weights?",
        "left out: 7 (unreadable file)",
        "A note of the dataset.",
        "8 min 50 s",
        "not a medical device",
    )
    places = [text.find(part) for part in parts]
    assert -1 not in places, parts[places.index(-1)]
    assert places == sorted(places)


def test_without_the_optional_files_the_page_says_how_to_get_them(tmp_path: Path) -> None:
    folder = two_classes(tmp_path / "bare", baseline=False)
    (folder / "fit.json").unlink()
    metrics = json.loads((folder / "metrics.json").read_text())
    del metrics["data"]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    update_config(folder, data={"_target_": "fracnet.data.datasets.mura.Mura"})
    page = Page(write_report(folder)[0].read_text(encoding="utf-8"))
    assert "python -m fracnet.explain run=<this run's folder>" in page.text
    assert "There is no shortcut baseline to compare with" in page.text
    assert "Mura" in page.text.split()


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        ("gradcam", "the heatmap of the predicted class, by Grad-CAM at the layer blocks.11"),
        ("eigencam", "a heatmap by Eigen-CAM at the layer blocks.11, which is the same for every"),
    ],
)
def test_the_gallery_says_of_which_layer_and_class_its_heatmaps_are(
    folder: Path, method: str, sentence: str
) -> None:
    content = content_of(folder)
    explained = {**(content.explained or {}), "method": method, "layer": "blocks.11"}
    assert sentence in run_page(replace(content, explained=explained))


def test_a_stage_with_only_empty_heatmaps_has_a_note_and_no_dot(folder: Path) -> None:
    content = content_of(folder)
    explained: Any = content.explained or {}
    out = {"name": "stem", "weights": 1.0, "correlation": None, "low": None, "high": None}
    sanity = {**explained["sanity"], "stages": [*explained["sanity"]["stages"], out]}
    html = run_page(replace(content, explained={**explained, "sanity": sanity}))
    assert "all maps are empty" in html
    assert html.count('class="dot') == run_page(content).count('class="dot')


def test_six_classes_have_a_curve_each_and_no_operating_point(six: str) -> None:
    page = Page(six)
    labels = [str(svg.get("aria-label")) for svg in page.all("svg")]
    for name in ("elbow", "wrist"):
        assert f"sensitivity against 1 - specificity: {name}" in labels
        assert f"precision against recall (sensitivity): {name}" in labels
    assert "where chosen" not in page.text
    assert "get the right class" in page.text
    assert "too few" in page.text


def test_the_head_of_a_bar_column_shows_its_scale(six: str) -> None:
    of = "<caption><span>Each class against the rest"
    table = next(part for part in six.split("<table") if of in part)
    ((low, high),) = re.findall(r'class="wide">AUC, (\S+) to (\S+)</th>', table)
    wide = float(high) - float(low)
    rows = [row.partition('<span class="bars') for row in table.split("<tr>")]
    bars = [(cells, bar) for cells, start, bar in rows if start]
    assert len(bars) == 6
    for cells, bar in bars:
        value = re.findall(r"<td>([01]\.\d{3})", cells)[-1]
        place = re.search(r'class="dot" style="left:([\d.]+)%"', bar)
        assert place is not None
        share = 100 * (float(value) - float(low)) / wide
        assert float(place[1]) == pytest.approx(share, abs=0.1 / wide)


def test_the_same_files_give_the_same_page(folder: Path, html: str) -> None:
    assert write_report(folder)[0].read_text(encoding="utf-8") == html


def test_charts_are_the_figures_of_the_folder_with_the_page_s_colors(six: str) -> None:
    charts = [svg for svg in re.findall(r"<svg .*?</svg>", six, re.S) if 'role="img"' in svg]
    assert len(charts) >= 15
    for chart in charts:
        assert "var(--s0)" in chart
        assert not re.search(r"#[0-9a-fA-F]{6}\b", chart), "no color that ignores dark mode"
        assert re.search(r"<text[^>]*>[^<]+</text>", chart), "text is text"
        assert "font-family" not in chart


def test_an_empty_heatmap_shows_the_reason(folder: Path) -> None:
    content = content_of(folder)
    explained: Any = dict(content.explained or {})
    cases = [dict(case) for case in explained["cases"]]
    assert "heatmap is empty" not in run_page(content)
    cases[0]["empty"] = True
    html = run_page(replace(content, explained=explained | {"cases": cases}))
    assert html.count("The heatmap is empty: nothing raised the score.") == 1


def test_cases_carry_the_attributes_of_the_filters(html: str) -> None:
    cases = [a for a in Page(html).all("article") if "data-outcome" in a]
    assert {case["data-outcome"] for case in cases} == {"right", "wrong"}
    assert {case["data-confidence"] for case in cases} == {"confident"}
    assert all(case["data-true"] == "normal" for case in cases)
    options = Page(html).text
    for title in ("true class", "predicted class", "outcome", "confidence"):
        assert title in options
    assert "hidden" in next(a for a in Page(html).all("form")), "useless without the script"
    assert 'class="colorbar"' in html


def test_the_command_can_be_pasted_into_a_shell(folder: Path) -> None:
    words = ["python", "-m", "fracnet.train", "data.root='/it is/mine'", "name=it's", "seed=1,2"]
    html = run_page(replace(content_of(folder), provenance={"command": words}))
    code = [text for text in re.findall(r"<code>(.*?)</code>", html) if "fracnet.train" in text]
    assert words in [shlex.split(unescape(text)) for text in code]


def test_a_page_links_the_files_of_its_folder_and_its_sweep(folder: Path) -> None:
    links = {str(a["href"]) for a in Page((folder / "report/index.html").read_text()).all("a")}
    for name in ("metrics.json", "predictions.csv", "config.yaml", "provenance.json"):
        assert f"../{name}" in links
        assert (folder / "report" / f"../{name}").is_file()
    assert "../train.log" not in links, "there is none"
    (folder / "job.json").write_text("{}")
    try:
        assert '<a href="../../index.html">its sweep</a>' in write_report(folder)[0].read_text()
    finally:
        (folder / "job.json").unlink()
        write_report(folder)
