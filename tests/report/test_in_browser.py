"""Each kind of page in Chromium, wide and narrow, light, dark and printed; where one is installed.

FRACNET_CHROMIUM names the browser where it has another name than usual. FRACNET_SHOTS names a
folder for pictures of what was seen.
"""

import os
import re
from collections.abc import Iterator
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.browser import Browser, browser
from helpers.pages import KINDS
from helpers.predictions import make_table
from helpers.reports import write_report
from helpers.run_folders import write_run

PROBE = (Path(__file__).parents[1] / "helpers/probe.js").read_text(encoding="utf-8")
SCRIPT = (files("fracnet.report") / "templates/page.js").read_text(encoding="utf-8")
WIDTHS = {"desktop": 1280, "phone": 390}
PAPER = 688  # 210 mm less margins, in pixels at 96 to an inch
A4 = (595, 842)  # points
SHOTS = os.environ.get("FRACNET_SHOTS")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as process:
        if process is None:
            pytest.skip("no Chromium here; FRACNET_CHROMIUM names one")
        yield process


@pytest.fixture(scope="module", params=KINDS)
def page(
    request: pytest.FixtureRequest, chromium: Browser, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A page of each kind; the browser comes first, as without it none is needed."""
    return KINDS[request.param](tmp_path_factory.mktemp("page") / str(request.param))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_is_legible(page: Path, width: str, scheme: str, chromium: Browser) -> None:
    """Nothing sticks out, is cut, faint or without a name, and the console is silent."""
    chromium.open(page, WIDTHS[width], scheme)
    if SHOTS:
        chromium.picture(Path(SHOTS) / f"{_kind(page)}_{width}_{scheme}.png")
    assert chromium.faults == []
    assert chromium.value("document.body.innerText.length") > 500, "there is something to see"
    measured = chromium.value(PROBE)
    assert {name: faults for name, faults in measured.items() if faults} == {}
    ground = chromium.value("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 200) == (scheme == "dark")


def test_a_usual_screen_shows_every_column(page: Path, chromium: Browser) -> None:
    """Only tables with very many columns scroll sideways; the facts of a sweep fit into one row."""
    chromium.open(page, WIDTHS["desktop"], "light")
    tables = "[...document.querySelectorAll('.scroll:has(.figures:not(.many))')]"
    wide = f"{tables}.filter(e => e.scrollWidth > e.clientWidth).map(e => e.ariaLabel)"
    assert chromium.value(wide) == []
    if _kind(page) in ("comparison", "sweep"):
        tops = "[...document.querySelectorAll('.facts div')].map(e => e.offsetTop)"
        assert chromium.value(f"new Set({tops}).size") == 1


def test_page_prints_on_a4(page: Path, chromium: Browser) -> None:
    """Black on white whatever the screen, nothing wider than the paper within its margins."""
    chromium.open(page, PAPER, "dark", media="print")
    measured = chromium.value(PROBE)
    assert measured["wide"] == []
    assert chromium.value("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    printed = chromium.printed()
    if SHOTS:
        (Path(SHOTS) / f"{_kind(page)}.pdf").write_bytes(printed)
    boxes = re.findall(rb"/MediaBox\s*\[\s*0\s+0\s+([\d.]+)\s+([\d.]+)", printed)
    assert boxes
    assert {(round(float(w)), round(float(h))) for w, h in boxes} == {A4}


def test_a_page_can_be_used_by_keyboard(page: Path, chromium: Browser) -> None:
    """The first key leads past the menu, and each part that scrolls can be reached."""
    chromium.open(page, WIDTHS["phone"], "light")
    for press in ("rawKeyDown", "keyUp"):
        chromium.ask("Input.dispatchKeyEvent", type=press, key="Tab", windowsVirtualKeyCode=9)
    assert chromium.value("document.activeElement.className") == "skip"
    assert chromium.value("document.activeElement.getBoundingClientRect().left") > 0
    loose = "document.querySelectorAll('.scroll:not([tabindex=\"0\"][aria-label])').length"
    assert chromium.value(loose) == 0


def test_many_classes_with_long_names_fit(chromium: Browser, tmp_path: Path) -> None:
    names = [f"{n:02}_Schaftfraktur_mit_Verkürzung_&_<b>Drehfehler_über_30°" for n in range(12)]
    tables = [
        make_table((6,) * 11 + (0,), classes=names, seed=seed, split=split)
        for seed, split in enumerate(("val", "test"))
    ]
    table = pd.concat(tables, ignore_index=True).assign(region=None)
    write_run(tmp_path / "run", table, config={"evaluation": {"resamples": 100}})
    page = write_report(tmp_path / "run")[0]
    for width in WIDTHS.values():
        chromium.open(page, width, "light")
        measured = chromium.value(PROBE)
        assert (measured["wide"], measured["cut"], measured["broken"]) == ([], [], [])
        assert chromium.value("document.querySelectorAll('main b').length") == 0


@pytest.mark.parametrize("page", ["run"], indirect=True)
def test_the_gallery_is_filtered_by_outcome_confidence_and_class(
    page: Path, chromium: Browser
) -> None:
    chromium.open(page, WIDTHS["desktop"], "light")
    total = chromium.value("document.querySelectorAll('.case').length")
    assert not chromium.value("document.querySelector('.filters').hidden")

    def visible_after(name: str, value: str) -> int:
        chromium.value(
            f"(() => {{ const s = document.querySelector('.filters [name={name}]');"
            f" s.value = '{value}'; s.dispatchEvent(new Event('input', {{bubbles: true}})); }})()"
        )
        count: int = chromium.value(
            "[...document.querySelectorAll('.case')].filter(c => c.checkVisibility()).length"
        )
        text = chromium.value("document.querySelector('.filters output').textContent")
        assert text == f"{count} of {total} shown"
        return count

    assert visible_after("outcome", "right") == total // 2
    assert visible_after("confidence", "uncertain") == total // 4
    assert visible_after("predicted", "abnormal") == 0, "right ones are normal here"
    assert visible_after("predicted", "") == total // 4


@pytest.mark.parametrize("page", ["prediction"], indirect=True)
def test_choices_and_words_filter_the_predictions_together(page: Path, chromium: Browser) -> None:
    chromium.open(page, WIDTHS["desktop"], "light")

    def shown_after(selector: str, value: str) -> list[list[str]]:
        chromium.value(
            f"(() => {{ const s = document.querySelector('{selector}'); s.value = '{value}';"
            " s.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )
        rows: list[list[str]] = chromium.value(
            "[...document.querySelectorAll('.case')].filter(c => c.checkVisibility())"
            ".map(c => [c.dataset.confidence, c.cells[3].innerText])"
        )
        output = "document.querySelector('.gallery .filters output').textContent"
        assert chromium.value(output).startswith(f"{len(rows)} of ")
        return rows

    confident = shown_after(".filters [name=confidence]", "confident")
    likely = shown_after("input[type=search]", "probability>0.8")
    assert likely == [row for row in confident if float(row[1]) > 0.8]
    assert 0 < len(likely) < len(confident)
    assert shown_after("input[type=search]", "") == confident


def _shown_by_examples(chromium: Browser) -> list[tuple[str, int, int]]:
    """What each filter proposes, and how many rows of how many are left once it is typed."""
    found: list[list[Any]] = chromium.value(
        "[...document.querySelectorAll('.filters input[type=search]')].map(input => {"
        " input.value = input.placeholder.replace('e.g. ', '');"
        " input.dispatchEvent(new Event('input', {bubbles: true}));"
        " const at = [...document.querySelectorAll('table.sortable, .filters:has([type=search])')];"
        " const rows = [...at[at.indexOf(input.form) + 1].tBodies[0].rows];"
        " return [input.value, rows.filter(row => !row.matches('.unmatched')).length, rows.length];"
        "})"
    )
    return [(word, shown, total) for word, shown, total in found]


@pytest.mark.parametrize("page", ["sweep", "prediction"], indirect=True)
def test_the_example_of_a_filter_can_be_typed(page: Path, chromium: Browser) -> None:
    chromium.open(page, WIDTHS["desktop"], "light")
    # A table whose numbers do not differ has none.
    examples = [found for found in _shown_by_examples(chromium) if found[0] != "words"]
    assert examples
    for word, shown, total in examples:
        assert re.fullmatch(r"[^<>=\s]+<\S+", word)
        assert 0 < shown < total, word


@pytest.mark.parametrize(
    ("head", "example"),
    [
        ("Größe", "größe<0.4"),
        ("importance (95 % CI)", "importance_(95_%_ci)<0.4"),
        ("optim.lr", "optim.lr<0.4"),
        ("x<y", "words"),
    ],
)
def test_the_example_of_a_filter_names_a_column_that_can_be_compared(
    head: str, example: str, chromium: Browser, tmp_path: Path
) -> None:
    """Not the names of files, although these begin like numbers."""
    heads = f"<th>job<th class='text'>file<th>{escape(head)}"
    cells = [*(f"{n / 10} (0-1)" for n in range(8)), "-"]
    rows = "".join(f"<tr><th>{n}<td>{n:05}.png<td>{cell}" for n, cell in enumerate(cells))
    table = f"<table class='sortable'><thead><tr>{heads}<tbody>{rows}</table>"
    path = tmp_path / "index.html"
    path.write_text(
        f"<!doctype html><meta charset='utf-8'><div>{table}</div><script>{SCRIPT}</script>",
        encoding="utf-8",
    )
    chromium.open(path, WIDTHS["desktop"], "light")
    assert chromium.faults == []
    shown = 0 if example == "words" else 4
    assert _shown_by_examples(chromium) == [(example, shown, 9)]


@pytest.mark.parametrize("page", ["run"], indirect=True)
def test_a_case_opens_large_and_its_heatmap_is_switched_by_a_key(
    page: Path, chromium: Browser
) -> None:
    chromium.open(page, WIDTHS["phone"], "dark")
    chromium.value("document.querySelector('.case .open').click()")
    assert chromium.value("document.querySelector('dialog').open")
    picture = "document.querySelector('dialog img').src"
    plain = "document.querySelector('.case .plain img').src"
    overlay = "document.querySelector('.case .overlay img').src"
    assert chromium.value(f"{picture} === {plain}"), "the picture that was clicked"

    def press(key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            text = key if len(key) == 1 else ""
            chromium.ask("Input.dispatchKeyEvent", type=kind, key=key, text=text)

    press("h")
    assert chromium.value(f"{picture} === {overlay}")
    press("ArrowRight")
    assert not chromium.value(f"{picture} === {overlay}"), "the next case"
    press("ArrowLeft")
    press("h")
    assert chromium.value(f"{picture} === {plain}")
    chromium.value("[...document.querySelectorAll('dialog button')].at(-1).click()")
    assert not chromium.value("document.querySelector('dialog').open")
    assert chromium.faults == []


@pytest.mark.parametrize("page", ["sweep"], indirect=True)
def test_a_click_on_a_head_sorts_the_table(page: Path, chromium: Browser) -> None:
    chromium.open(page, WIDTHS["desktop"], "light")
    rows = "[...document.querySelector('.sortable').tBodies[0].rows]"

    def column_after_click(head: int) -> list[str]:
        chromium.value(f"document.querySelectorAll('.sortable thead .sort')[{head}].click()")
        values: list[str] = chromium.value(f"{rows}.map(r => r.cells[{head}].innerText)")
        return values

    rates = column_after_click(2)
    assert [float(rate) for rate in rates] == sorted(map(float, rates)), "as numbers"
    assert column_after_click(2) == rates[::-1]
    values = column_after_click(5)
    assert values[-2:] == ["-", "-"], "diverged jobs last"
    assert column_after_click(5)[-2:] == ["-", "-"]


def _kind(page: Path) -> str:
    return next(part for part in reversed(page.parts) if part in KINDS)


def _chart(label: str, content: str) -> str:
    return f"<svg role='img' {label} viewBox='0 0 90 50' width='180'>{content}</svg>"


TWO = "<text x='2' y='20'>one</text><text x='9' y='20'>two</text>"
FAULTS = {
    "wide": "<div style='width: 2000px'>wide</div>",
    "faint": "<p style='color: #999'>faint</p>",
    "small": "<p style='font-size: 7px'>small</p>",
    "cut": _chart("aria-label='x'", "<text x='70' y='20'>cut off</text>"),
    "crossed": _chart("aria-label='x'", TWO),
    "broken": "<p style='width: 1rem; overflow-wrap: anywhere'>abnormal</p>",
    "unnamed": _chart("", ""),
    "links": "<a href='#nowhere'>link</a>",
}


@pytest.mark.parametrize("kind", FAULTS)
def test_the_layout_probe_detects_faults(kind: str, chromium: Browser, tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    start = "<!doctype html><html><body style='background: #fff; overflow: visible'>"
    path.write_text(f"{start}{FAULTS[kind]}</body></html>")
    chromium.open(path, WIDTHS["phone"], "light")
    assert chromium.value(PROBE)[kind]


def test_a_broken_image_is_detected(chromium: Browser, tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    path.write_text("<!doctype html><img src='data:image/png;base64,AAAA' alt='x' loading='lazy'>")
    with pytest.raises(AssertionError, match="cannot be decoded"):
        chromium.open(path, WIDTHS["phone"], "light")


def test_console_errors_are_detected(chromium: Browser, tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    policy = "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\">"
    away = "<link rel='stylesheet' href='http://127.0.0.1:9/x.css'>"
    path.write_text(f"<!doctype html>{policy}{away}<p>words</p>")
    chromium.open(path, WIDTHS["phone"], "light")
    assert any("Content Security Policy" in fault for fault in chromium.faults)
