"""A run's page stands alone, shows the figures of metrics.json, and does without what lacks."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.reports import Page, configured, explain, six_classes, tell_more, two_classes

from fracnet.report.run_page import as_page
from fracnet.runs.report_run import content_of, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With everything that a run can leave."""
    made = two_classes(tmp_path_factory.mktemp("page") / "run<b>")
    tell_more(made)
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
        "verdict": "lost",
        "sentences": ["They need the weights."],
    }
    explain(made, localization=localization, sanity=sanity)
    write(made)
    return made


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return (folder / "report/index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a run of six classes."""
    folder = six_classes(tmp_path_factory.mktemp("six") / "run")
    return write(folder)[0].read_text(encoding="utf-8")


def test_what_a_model_says_is_called_by_one_word(html: str) -> None:
    assert '<span class="said">called</span> normal' in html
    assert re.search(r"<th[^>]*>called</th>", html), "of the surest errors"
    assert not re.search(r"<(th|span)[^>]*>said</", html)


def test_page_is_well_formed_and_its_parts_are_found_by_the_menu(html: str) -> None:
    page = Page(html)
    ids = [held["id"] for _, held in page.seen if "id" in held]
    assert len(ids) == len(set(ids))
    targets = {str(held["href"]).removeprefix("#") for held in page.all("a")}
    assert targets <= set(ids)
    assert len(targets) > 9
    assert {str(held["aria-labeledby"]) for held in page.all("section") if "id" in held} <= targets
    assert len(page.all("h1")) == 1


def test_page_loads_nothing_and_runs_no_script(html: str) -> None:
    page = Page(html)
    assert "http" not in html.replace("http-equiv", "")
    assert "url(" not in html
    for tag in ("script", "link", "iframe", "object"):
        assert not page.all(tag), tag
    for image in page.all("img"):
        assert str(image["src"]).startswith("data:image/jpeg;base64,")
        assert image["alt"]
    assert len(page.all("img")) == 4
    assert "<b>" not in html.partition("<main")[0], "names are escaped"


def test_figures_are_those_of_metrics_json(folder: Path, html: str) -> None:
    text = " ".join(Page(html).text.split())
    metrics = json.loads((folder / "metrics.json").read_text())
    for name, held in metrics["test"]["metrics"].items():
        if held["low"] is not None and held["low"] >= 0:
            assert f"{held['value']:.3f} ({held['low']:.3f}-{held['high']:.3f})" in text, name
    for stratum in metrics["test_strata"]:
        held = stratum["per_class"][1]["sensitivity"]
        assert f"{held['value']:.3f} ({held['low']:.3f}-{held['high']:.3f})" in text
    study = next(s for s in metrics["test_strata"] if s["level"] == "study")
    rate = study["per_class"][1]["sensitivity"]["value"]
    assert f"Of 100 abnormal studies, {round(100 * rate)} are found" in text


def test_verdict_comes_first_and_everything_else_is_there(html: str) -> None:
    text = " ".join(Page(html).text.split())
    parts = (
        "better than chance",
        "Confusion matrix",
        "Precision and recall",
        "Are the probabilities to be believed?",
        "Wrong and confident",
        "Do they find what is marked?",
        "In detail.",
        "Do they depend on the weights?",
        "left out: 7 unreadable file",
        "A note of the data source.",
        "8 min 50 s",
        "no medical device",
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
    configured(folder, data={"_target_": "fracnet.data.datasets.mura.Mura"})
    page = Page(write(folder)[0].read_text(encoding="utf-8"))
    assert "python -m fracnet.explain run=<this run's folder>" in page.text
    assert "no shortcut baseline here" in page.text
    assert "Mura" in page.text.split()


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("gradcam", "the heatmap of the class that it named, by Grad-CAM at the layer blocks.11"),
        ("eigencam", "a heatmap by Eigen-CAM at the layer blocks.11, which is the same for every"),
    ],
)
def test_the_gallery_says_of_which_layer_and_class_its_heatmaps_are(
    folder: Path, method: str, said: str
) -> None:
    content = content_of(folder)
    explained = {**(content.explained or {}), "method": method, "layer": "blocks.11"}
    assert said in as_page(replace(content, explained=explained))


def test_a_stage_at_which_all_heatmaps_went_out_is_told_and_has_no_dot(folder: Path) -> None:
    content = content_of(folder)
    asked: Any = content.explained or {}
    out = {"name": "stem", "weights": 1.0, "correlation": None, "low": None, "high": None}
    sanity = {**asked["sanity"], "stages": [*asked["sanity"]["stages"], out]}
    html = as_page(replace(content, explained={**asked, "sanity": sanity}))
    assert "all maps went out" in html
    assert html.count('class="dot') == as_page(content).count('class="dot')


def test_six_classes_have_a_curve_each_and_no_operating_point(six: str) -> None:
    page = Page(six)
    labels = [str(held.get("aria-label")) for held in page.all("svg")]
    for name in ("elbow", "wrist"):
        assert f"sensitivity against 1 - specificity: {name}" in labels
        assert f"precision against recall (sensitivity): {name}" in labels
    assert "on validation" not in page.text
    assert "get the right class" in page.text
    assert "too few" in page.text


def test_a_drawn_column_s_head_tells_the_scale_that_its_bars_stand_on(six: str) -> None:
    of = "<caption><span>Each class against the rest"
    table = next(part for part in six.split("<table") if of in part)
    ((low, high),) = re.findall(r'class="wide">AUC, (\S+) to (\S+)</th>', table)
    wide = float(high) - float(low)
    rows = [row.partition('<svg class="reach"') for row in table.split("<tr>")]
    drawn = [(cells, svg) for cells, reach, svg in rows if reach]
    assert len(drawn) == 6
    for cells, svg in drawn:
        value = re.findall(r"<td>([01]\.\d{3})", cells)[-1]
        place = re.search(r'<circle[^>]* cx="([\d.]+)%"', svg)
        assert place is not None
        share = 100 * (float(value) - float(low)) / wide
        assert float(place[1]) == pytest.approx(share, abs=0.1 / wide)


def test_the_same_files_give_the_same_page(folder: Path, html: str) -> None:
    assert write(folder)[0].read_text(encoding="utf-8") == html
