"""The phantom of MURA outlines its fractures, in a file beside the images and in the manifest."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from fracnet.data.annotations import mask_of, outlines
from fracnet.data.datasets.layouts import MURA_FOLDER
from fracnet.data.datasets.phantom import MuraPhantom
from fracnet.data.image_io import read_grey
from fracnet.data.manifest import Manifest, read_table, write_table
from fracnet.data.phantoms import mura
from fracnet.data.phantoms.mura import write_mura
from fracnet.data.phantoms.render import DILATION, Spec, render, render_shown
from fracnet.data.preprocess import Preprocess
from fracnet.utils.errors import UserError

PATIENTS = {"train": 5, "valid": 4}
SEED = 5
SIZE = 512


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    root = tmp_path_factory.mktemp("polygons")
    write_mura(root, seed=SEED, patients=PATIENTS, workers=1, progress=False)
    source = MuraPhantom(root=str(root), seed=SEED, patients=PATIENTS, val_share=0.4)
    source.prepare()
    return source.manifest()


def test_every_abnormal_image_and_no_other_has_outlines(manifest: Manifest) -> None:
    table = manifest.table
    assert set(table["label"]) == {"normal", "abnormal"}
    for label, marks in zip(table["label"], table["polygons"], strict=True):
        assert (marks is not None) == (label == "abnormal")
        for mark in marks or []:
            assert mark["label"] == "abnormal"
            points = np.array(mark["points"])
            assert len(points) >= 3
            assert 0 <= points.min() <= points.max() <= 1
    assert table["boxes"].isna().all()


def test_nothing_but_images_lies_among_the_images(manifest: Manifest) -> None:
    for part in mura.PARTS:
        found = {path.suffix for path in (manifest.root / part).rglob("*") if path.is_file()}
        assert found == {".png"}
    assert not any("left out" in note for note in manifest.notes)


def test_the_fracture_lies_within_its_outline_in_the_enhanced_image(manifest: Manifest) -> None:
    recipe = {"seed": SEED, "patients": PATIENTS, "abnormal": 0.45}
    preprocess = Preprocess([{"name": "resize", "mode": "pad"}], SIZE)
    rows = manifest.table.set_index("path")
    compared = 0
    for job in mura.plan(Path(MURA_FOLDER), recipe):
        if not job.spec.fracture or compared == 3:
            continue
        row = rows.loc[job.path.relative_to(MURA_FOLDER).as_posix()]
        broken = read_grey(manifest.root / row.name)
        drawn = render_shown(job.spec, "view", mura.SAME_PROJECTION)
        intact = render(drawn_without(job.spec)).image
        if intact.shape != broken.shape:
            continue  # the frame had no place to break, and another view was drawn
        changed = preprocess(np.where(broken == intact, 0, 255).astype(np.uint8)) > 64
        mask = mask_of(outlines(row, preprocess), SIZE).astype(np.uint8)
        reach = np.ones((2 * DILATION + 3, 2 * DILATION + 3), np.uint8)
        assert changed.any()
        assert not (changed & (cv2.dilate(mask, reach) == 0)).any()
        assert len(row["polygons"]) == len(drawn.polygons)
        compared += 1
    assert compared == 3


def drawn_without(spec: Spec) -> Spec:
    """The same image without its fracture."""
    return replace(spec, fracture=False)


def test_outlines_survive_the_way_through_a_csv(manifest: Manifest, tmp_path: Path) -> None:
    write_table(manifest.table, tmp_path / "table.csv")
    assert list(read_table(tmp_path / "table.csv")["polygons"]) == list(manifest.table["polygons"])


def test_phantoms_without_outlines_are_those_of_another_recipe(
    manifest: Manifest, tmp_path: Path
) -> None:
    recipe = (manifest.root / "phantom.json").read_text()
    old = tmp_path / MURA_FOLDER
    old.mkdir()
    (old / "phantom.json").write_text(recipe.replace(',\n  "files": 2', ""))
    assert "files" not in (old / "phantom.json").read_text()
    with pytest.raises(UserError, match="phantoms of another recipe"):
        write_mura(tmp_path, seed=SEED, patients=PATIENTS, progress=False)
