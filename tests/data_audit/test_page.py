"""The page stands alone, is well formed, shows pairs side by side, and names no patient."""

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.audited import audited, read_picture, write_picture, write_set
from helpers.patients import PatientSource
from helpers.reports import Page

from fracnet.data.datasets.folder import Folder
from fracnet.data_audit.page import _left_end, _reach, as_page, laid_over
from fracnet.data_audit.shortcuts import Reached
from fracnet.report.html import page


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = write_set(tmp_path_factory.mktemp("set"))
    first = read_picture(root / "train/normal/train00.png")
    write_picture(root / "test/normal/copy.png", first[:, ::-1])
    write_picture(root / "test/fractured/<b>.png", first)
    source = Folder(root=str(root), class_order=["normal", "fractured"])
    return as_page(audited(source.manifest()), 24)


def test_page_is_well_formed_and_its_parts_are_found_by_the_menu(html: str) -> None:
    reader = Page(html)
    ids = [held["id"] for _, held in reader.seen if "id" in held]
    assert len(ids) == len(set(ids))
    targets = [str(held["href"]) for held in reader.all("a")]
    assert {target.removeprefix("#") for target in targets} <= set(ids)
    assert len(targets) > 5
    labeled = {str(held["aria-labeledby"]) for _, held in reader.seen if "aria-labeledby" in held}
    assert labeled <= set(ids)
    assert reader.all("html")[0]["lang"] == "en"
    assert len(reader.all("h1")) == 1


def test_page_loads_nothing_from_elsewhere_and_runs_no_script(html: str) -> None:
    reader = Page(html)
    assert "http" not in html.replace("http-equiv", "")
    assert "url(" not in html
    assert "@import" not in html
    for tag in ("script", "link", "iframe", "object"):
        assert not reader.all(tag), tag
    for _, held in reader.seen:
        assert not [name for name in held if name.startswith("on")], held
    for image in reader.all("img"):
        assert str(image["src"]).startswith("data:image/jpeg;base64,")


def test_every_picture_is_a_radiograph_and_says_so(html: str) -> None:
    images = Page(html).all("img")
    assert len(images) >= 5, "an altered pair is three pictures, an equal one two"
    for image in images:
        assert str(image["alt"]).startswith("Radiograph ")
        data = base64.b64decode(str(image["src"]).partition(",")[2])
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert decoded is not None
        assert decoded.std() > 10


def test_verdict_comes_before_findings_and_names_are_escaped(html: str) -> None:
    text = Page(html).text
    verdict = text.index("Test figures on these data, split as they are, will be too good.")
    assert verdict < text.index("Findings, the worst first") < text.index("How this was found")
    assert "altered copy, mirrored" in text
    assert "<b>.png" in text
    assert "<b>" not in html
    assert "For research use only; not a medical device." in text


def test_page_follows_the_reader_to_the_dark_to_paper_and_to_a_telephone(html: str) -> None:
    for part in (
        "prefers-color-scheme: dark",
        "size: A4",
        "@media print",
        'name="viewport"',
        ":focus-visible",
        "prefers-reduced-motion",
    ):
        assert part in html


def test_no_patient_is_named(tmp_path: Path) -> None:
    source = PatientSource(root=str(tmp_path))
    source.prepare()
    manifest = source.manifest()
    table = manifest.table.copy()
    rows = table.index[table["split"] == "test"]
    table.loc[rows[0], "patient"] = table.loc[0, "patient"]
    copied = tmp_path / str(table.loc[rows[1], "path"])
    copied.write_bytes((tmp_path / str(table.loc[0, "path"])).read_bytes())
    broken = tmp_path / str(table.loc[5, "path"])
    broken.write_bytes(broken.read_bytes()[:60])
    found = audited(type(manifest)(**{**vars(manifest), "table": table}))
    html = as_page(found, 24)
    assert found.severity == "error"
    for name in ("images in more than one split", "the same file", "cannot be read"):
        assert name in html
    reader = Page(html)
    said = reader.text + " ".join(str(held.get("alt")) for _, held in reader.seen)
    for patient in table["patient"].unique():
        assert patient not in said


def test_the_second_picture_is_brought_into_the_place_of_the_first(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", train=12)
    first = read_picture(root / "train/normal/train00.png")
    height, width = first.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 8, 1.0)
    turned = cv2.warpAffine(first[:, ::-1], turn, (width, height))
    write_picture(root / "test/normal/copy.png", turned)
    source = Folder(root=str(root), class_order=["normal", "fractured"])
    found = audited(source.manifest())
    (pair,) = found.pairs
    a, b = (
        read_picture(found.manifest.root / found.manifest.table["path"].iloc[row])
        for row in (pair.a, pair.b)
    )
    laid = laid_over(a, b, pair)
    inside = np.s_[20:-20, 20:-20]

    def alike(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.corrcoef(x[inside].ravel(), y[inside].ravel())[0, 1])

    assert alike(a, laid) > 0.9
    assert alike(a, b) < 0.5


def test_a_name_that_the_content_lacks_is_an_error() -> None:
    with pytest.raises(Exception, match="'name' is undefined"):
        page("audit.html", {})


def test_an_interval_is_drawn_whole_however_low_it_begins() -> None:
    found = [Reached("all", 0.5, 0.27, 0.73), Reached("border", 0.48, 0.42, 0.55)]
    left = _left_end(found)
    assert left == 0.2
    drawn = [_reach(one, left) for one in found]
    assert drawn[0]["low"] == pytest.approx(200 * 0.07 / 0.8, abs=0.1)
    assert 0 < drawn[0]["low"] < drawn[1]["low"] < drawn[1]["high"] < drawn[0]["high"] < 200
    assert _left_end(found[1:]) == 0.4


def test_the_fingerprint_stays_on_one_line(html: str) -> None:
    assert [held for held in Page(html).all("dd") if held.get("class") == "hash"]
    (rule,) = [line for line in html.splitlines() if line.startswith(".facts dd.hash")]
    assert "white-space: nowrap" in rule
