"""Heatmaps in figures on a run's page: how well they find what is marked, and what they rest on."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup

from fracnet.report.console import limits
from fracnet.report.reach import Reach, interval
from fracnet.report.run_content import RunContent
from fracnet.report.run_rules import Said
from fracnet.report.svg import Axis
from fracnet.report.tables import Cell, Table

# Short heads, so that a page of usual width shows every column.
HEADS = {
    "pointing": "pointing",
    "near": "pointing, with tolerance",
    "energy": "energy inside",
    "iou": "overlap",
}


def localisation(content: RunContent) -> Table | None:
    """Scores of the heatmaps beside maps that see no network; None where nothing is marked."""
    found = (content.explained or {}).get("localisation")
    if not found:
        return None
    from fracnet.explaining.localisation_words import BASELINE_NAMES  # imports OpenCV

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
        "localisation": ("Do they find what is marked?", localisation(content)),
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


def of_maps(content: RunContent) -> Iterator[Said]:
    """What scored heatmaps say, in the words of who scored them."""
    grave = {
        "survives": "warning",
        "partly": "hint",
        "not better": "hint",
        "mixed": "hint",
        "too few": "hint",
    }
    explained = content.explained or {}
    for key in ("localisation", "sanity"):
        told_of = explained.get(key) or {}
        if told_of and key == "sanity" and explained.get("model_dependent", True) is None:
            yield Said("hint", "It is not shown whether the heatmaps depend on the weights.")
            continue
        for sentence in told_of.get("sentences", [])[:1]:
            yield Said(grave.get(str(told_of.get("verdict")), "ok"), str(sentence))


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
