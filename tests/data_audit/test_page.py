"""The page is self-contained and well formed, shows pairs side by side, and names no patient."""

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.audited import audit_manifest, read_picture, write_picture, write_set
from helpers.patients import PatientDataset
from helpers.reports import Page

from fracnet.data.datasets.folder import Folder
from fracnet.data_audit.page import _axis_start, _interval_bar, overlay, render_audit_page
from fracnet.data_audit.shortcuts import FamilyScore
from fracnet.report.html import page


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = write_set(tmp_path_factory.mktemp("set"))
    first = read_picture(root / "train/normal/train00.png")
    write_picture(root / "test/normal/copy.png", first[:, ::-1])
    write_picture(root / "test/fractured/<b>.png", first)
    dataset = Folder(root=str(root), class_order=["normal", "fractured"])
    return render_audit_page(audit_manifest(dataset.manifest()), 24)


def test_page_is_well_formed_and_the_menu_links_to_its_sections(html: str) -> None:
    reader = Page(html)
    ids = [attributes["id"] for _, attributes in reader.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [str(attributes["href"]) for attributes in reader.all("a")]
    assert {target.removeprefix("#") for target in targets} <= set(ids)
    assert len(targets) > 5
    labels = {
        str(attributes["aria-labelledby"])
        for _, attributes in reader.seen
        if "aria-labelledby" in attributes
    }
    assert labels <= set(ids)
    assert reader.all("html")[0]["lang"] == "en"
    assert len(reader.all("h1")) == 1


def test_page_loads_nothing_from_anywhere(html: str) -> None:
    reader = Page(html)
    assert "http" not in html.replace("http-equiv", "")
    assert "url(" not in html
    assert "@import" not in html
    for tag in ("link", "iframe", "object"):
        assert not reader.all(tag), tag
    assert reader.all("script") == [{}], "one inline script, which enlarges pictures"
    for _, attributes in reader.seen:
        assert not [name for name in attributes if name.startswith("on")], attributes
    for image in reader.all("img"):
        assert str(image["src"]).startswith("data:image/jpeg;base64,")


def test_every_picture_is_a_radiograph_and_says_so(html: str) -> None:
    images = Page(html).all("img")
    assert len(images) >= 5, "three pictures of an altered pair, two of an equal one"
    for image in images:
        assert str(image["alt"]).startswith("Radiograph ")
        data = base64.b64decode(str(image["src"]).partition(",")[2])
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert decoded is not None
        assert decoded.std() > 10


def test_verdict_comes_before_findings_and_names_are_escaped(html: str) -> None:
    text = Page(html).text
    verdict = text.index("Test metrics on these data will be too good with the current split.")
    assert verdict < text.index("Findings, worst first") < text.rindex("Method")
    assert "altered copy, mirrored" in text
    assert "<b>.png" in text
    assert "<b>" not in html
    assert "For research use only; not a medical device." in text


def test_page_supports_dark_mode_print_and_small_screens(html: str) -> None:
    for part in (
        "prefers-color-scheme: dark",
        "size: A4",
        "@media print",
        'name="viewport"',
        ":focus-visible",
        "prefers-reduced-motion",
    ):
        assert part in html


def test_the_page_names_no_patient(tmp_path: Path) -> None:
    dataset = PatientDataset(root=str(tmp_path), patients=12)
    dataset.prepare()
    manifest = dataset.manifest()
    table = manifest.table.copy()
    rows = table.index[table["split"] == "test"]
    table.loc[rows[0], "patient"] = table.loc[0, "patient"]
    copied = tmp_path / str(table.loc[rows[1], "path"])
    copied.write_bytes((tmp_path / str(table.loc[0, "path"])).read_bytes())
    broken = tmp_path / str(table.loc[5, "path"])
    broken.write_bytes(broken.read_bytes()[:60])
    result = audit_manifest(type(manifest)(**{**vars(manifest), "table": table}))
    html = render_audit_page(result, 24)
    assert result.severity == "error"
    for name in ("images in more than one split", "the same file", "cannot be read"):
        assert name in html
    reader = Page(html)
    text = reader.text + " ".join(str(attributes.get("alt")) for _, attributes in reader.seen)
    for patient in table["patient"].unique():
        assert patient not in text


def test_the_second_picture_is_aligned_with_the_first(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", train=12)
    first = read_picture(root / "train/normal/train00.png")
    height, width = first.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 8, 1.0)
    rotated = cv2.warpAffine(first[:, ::-1], turn, (width, height))
    write_picture(root / "test/normal/copy.png", rotated)
    dataset = Folder(root=str(root), class_order=["normal", "fractured"])
    result = audit_manifest(dataset.manifest())
    (pair,) = result.pairs
    a, b = (
        read_picture(result.manifest.root / result.manifest.table["path"].iloc[row])
        for row in (pair.a, pair.b)
    )
    aligned = overlay(a, b, pair)
    inside = np.s_[20:-20, 20:-20]

    def correlation(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.corrcoef(x[inside].ravel(), y[inside].ravel())[0, 1])

    assert correlation(a, aligned) > 0.9
    assert correlation(a, b) < 0.5


def test_a_name_missing_from_the_content_is_an_error() -> None:
    with pytest.raises(Exception, match="'name' is undefined"):
        page("audit.html", {})


def test_the_axis_includes_every_interval() -> None:
    scores = [FamilyScore("all", 0.5, 0.27, 0.73), FamilyScore("border", 0.48, 0.42, 0.55)]
    left = _axis_start(scores)
    assert left == 0.2
    for score in scores:
        bar = _interval_bar(score, left)["bar"]
        assert bar.scale.low == left < bar.low < bar.high < bar.scale.high == 1
    assert _axis_start(scores[1:]) == 0.4


def test_the_fingerprint_stays_on_one_line(html: str) -> None:
    assert [attributes for attributes in Page(html).all("dd") if attributes.get("class") == "hash"]
    (rule,) = [line for line in html.splitlines() if line.startswith(".facts dd.hash")]
    assert "white-space: nowrap" in rule
