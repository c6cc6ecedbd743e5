"""The phantom of MURA: layout, lists, outlines, reproducible bytes, and no shortcuts."""

import json
import shutil
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from helpers.mura_files import write_lists
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fracnet.data.annotations import annotation_outlines, outline_mask
from fracnet.data.datasets.layouts import MURA_FOLDER
from fracnet.data.datasets.phantom import MuraPhantom
from fracnet.data.image_features import shortcut_features
from fracnet.data.image_io import read_grey
from fracnet.data.manifest import Manifest, read_table, write_table
from fracnet.data.phantoms import mura
from fracnet.data.phantoms.implants import SHARE, draw_kind
from fracnet.data.phantoms.mura import PARTS, PlannedImage, plan, write_mura
from fracnet.data.phantoms.render import DILATION, Spec, render, render_visible
from fracnet.data.preprocess import Preprocess
from fracnet.evaluation.predictions import clusters_of
from fracnet.metrics.classification import auc
from fracnet.metrics.roc import auc_intervals
from fracnet.utils.errors import UserError
from fracnet.utils.files import config_dir

PATIENTS = {"train": 16, "valid": 8}
FEW_PATIENTS = {"train": 5, "valid": 4}
SEED = 3
XR = {"elbow", "finger", "forearm", "hand", "humerus", "shoulder", "wrist"}
LISTS = [f"{part}_{kind}.csv" for part in PARTS for kind in ("image_paths", "labeled_studies")]


def files(root: Path) -> dict[str, bytes]:
    folder = root / MURA_FOLDER
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mura_phantom")
    write_mura(root, seed=SEED, patients=PATIENTS, workers=1, progress=False)
    return root


@pytest.fixture(scope="module")
def planned_images() -> list[PlannedImage]:
    """The plan of a larger dataset."""
    recipe = {"seed": 0, "patients": {"train": 1000, "valid": 400}, "abnormal": 0.45}
    return list(plan(Path(MURA_FOLDER), recipe))


def studies(planned_images: list[PlannedImage]) -> dict[Path, Spec]:
    return {planned.path.parent: planned.spec for planned in planned_images}


def test_images_are_grey_pngs_of_at_most_512_pixels(written: Path) -> None:
    sizes = set()
    for path in (written / MURA_FOLDER).rglob("*.png"):
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert image.mode == "L"
            assert max(image.size) <= 512
            sizes.add(image.size)
    assert len(sizes) > 10


def test_the_lists_have_the_official_form(written: Path, tmp_path: Path) -> None:
    base = tmp_path / MURA_FOLDER
    shutil.copytree(written / MURA_FOLDER, base)
    write_lists(base)
    for name in LISTS:
        paths = (written / MURA_FOLDER / name).read_text()
        assert sorted(paths.splitlines()) == (base / name).read_text().splitlines()
        assert paths.startswith(f"{MURA_FOLDER}/{name.partition('_')[0]}/XR_")
        assert paths.endswith("\n")


def test_the_dataset_reads_it_like_mura(written: Path) -> None:
    dataset = MuraPhantom(root=str(written), seed=SEED, patients=PATIENTS, val_share=0.25)
    dataset.prepare()  # the data exist
    manifest = dataset.manifest()
    manifest.check()
    assert manifest.classes == ("normal", "abnormal")
    assert manifest.excluded.empty
    table = manifest.table
    assert set(table["region"]) <= XR
    assert len(table) == len(list((written / MURA_FOLDER).rglob("*.png")))
    in_train = table.loc[table["split"] != "test", "patient"].nunique()
    assert (in_train, table["patient"].nunique()) == (16, 24)
    assert table.groupby("study")["label"].nunique().max() == 1
    assert (written / MURA_FOLDER / "fracnet_split.csv").exists()
    dataset.prepare()  # also with the split file
    notes = " ".join(manifest.notes)
    assert "say nothing about patients" in notes
    assert "every view of the study shows a fracture" in notes
    assert "Stanford" not in f"{notes} {manifest.license}"


def test_same_bytes_for_any_number_of_workers(written: Path, tmp_path: Path) -> None:
    write_mura(tmp_path, seed=SEED, patients=PATIENTS, workers=2, progress=False)
    old, new = files(written), files(tmp_path)
    old.pop("fracnet_split.csv", None)
    assert new == old


def test_another_recipe_is_rejected(written: Path) -> None:
    with pytest.raises(UserError, match="phantoms of another recipe"):
        write_mura(written, seed=SEED, patients=PATIENTS, abnormal=0.3, progress=False)


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(mura, "_write_lists", full)
    with pytest.raises(OSError, match="disk full"):
        write_mura(tmp_path, patients={"train": 2, "valid": 1}, progress=False)
    assert not list(tmp_path.rglob("*.png"))


def test_patients_studies_and_views_are_as_in_mura(planned_images: list[PlannedImage]) -> None:
    parts = defaultdict(set)
    for planned in planned_images:
        parts[planned.path.parts[1]].add(planned.path.parts[3])
        assert f"patient{planned.spec.patient:05d}" == planned.path.parts[3]
    assert not parts["train"] & parts["valid"]
    assert (len(parts["train"]), len(parts["valid"])) == (1000, 400)
    views = Counter(planned.path.parent for planned in planned_images)
    assert set(views.values()) == {1, 2, 3, 4}
    assert np.mean(list(views.values())) == pytest.approx(36_808 / 13_457, abs=0.1)
    by_patient = defaultdict(list)
    for folder in views:
        by_patient[folder.parts[3]].append(folder.parts[2])
    assert len(views) / len(by_patient) == pytest.approx(13_457 / 11_184, abs=0.03)
    twice = [regions for regions in by_patient.values() if len(regions) == 2]
    assert {len(set(regions)) for regions in twice} == {1, 2}
    assert {folder.name for folder in views} == {
        f"study{k}_{ending}" for k in (1, 2) for ending in ("positive", "negative")
    }
    folders = Counter(folder.parts[2] for folder in views)
    assert set(folders) == {f"XR_{region.upper()}" for region in XR}
    assert folders["XR_WRIST"] / len(views) == pytest.approx(3460 / 13_457, abs=0.03)
    assert folders["XR_HUMERUS"] / len(views) == pytest.approx(592 / 13_457, abs=0.02)


def test_all_images_differ_in_their_identifiers(planned_images: list[PlannedImage]) -> None:
    names = [
        (planned.spec.patient, planned.spec.study, planned.spec.view) for planned in planned_images
    ]
    assert len(set(names)) == len(names) == len({planned.path for planned in planned_images})


def test_each_region_of_each_part_has_its_share_of_abnormal_studies(
    planned_images: list[PlannedImage],
) -> None:
    labels = defaultdict(list)
    for folder, spec in studies(planned_images).items():
        labels[folder.parts[1:3]].append(spec.fracture)
        assert folder.name.endswith("_positive") == spec.fracture
    assert len(labels) == 14
    for regional in labels.values():
        assert sum(regional) == pytest.approx(0.45 * len(regional), abs=1)


def test_hardware_is_equally_common_in_both_classes(planned_images: list[PlannedImage]) -> None:
    has_implant = {True: [], False: []}
    for spec in studies(planned_images).values():
        has_implant[spec.fracture].append(draw_kind(spec.stream("hardware")) is not None)
    assert np.mean(has_implant[True]) == pytest.approx(SHARE, abs=0.03)
    assert np.mean(has_implant[False]) == pytest.approx(SHARE, abs=0.03)


def test_a_frame_without_room_for_the_fracture_is_replaced_by_one_of_the_same_projection() -> None:
    closed = Spec("wrist", seed=0, patient=152, study=0, view=2, fracture=True)
    assert not render(closed).polygons, "this test needs a spec whose frame shows no site"
    rendered = render_visible(closed, "view", mura.SAME_PROJECTION)
    assert rendered.polygons
    assert rendered.info["projection"] == "oblique"


def test_the_config_differs_from_mura_only_in_the_origin_of_the_files() -> None:
    with initialize_config_dir(str(config_dir())):
        real, phantom = (
            OmegaConf.to_container(compose("train", [f"data={name}"]), resolve=True)
            for name in ("mura", "mura_phantom")
        )
    paths, extra = real.pop("data"), phantom.pop("data")
    assert real == phantom
    assert {**paths, "_target_": None, "root": None}.items() <= {
        **extra,
        "_target_": None,
        "root": None,
    }.items()


@pytest.mark.slow
def test_no_shortcut_separates_abnormal_from_normal(tmp_path: Path) -> None:
    """It fails with files 10 % larger, two black lines at the top edge or 8 grey levels more in all
    abnormal images, as tried with planted traces."""
    write_mura(tmp_path, patients={"train": 200, "valid": 1}, progress=False)
    assert json.loads((tmp_path / MURA_FOLDER / "phantom.json").read_text())["abnormal"] == 0.45
    low, value, high = shortcut_auc(tmp_path)
    assert high < 0.6, (low, value, high)


def shortcut_auc(root: Path) -> tuple[float | None, float, float]:
    """Out-of-fold AUC of the shortcut baseline with its interval, by patient, over 600 images."""
    dataset = MuraPhantom(root=str(root))
    manifest = dataset.manifest()
    table = manifest.table.iloc[:600]
    assert len(table) == 600
    paths = [manifest.root / path for path in table["path"]]
    features = np.array([shortcut_features(read_grey(p), p.stat().st_size) for p in paths])
    target = (table["label"] == "abnormal").to_numpy().astype(int)
    clusters = clusters_of(pd.DataFrame(table))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=10_000))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    prob = cross_val_predict(
        model, features, target, groups=clusters.ids, cv=folds, method="predict_proba"
    )
    interval = auc_intervals(target, prob, clusters)[1]
    assert interval.high is not None
    return interval.low, float(auc(target, prob)[1]), interval.high


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    root = tmp_path_factory.mktemp("polygons")
    write_mura(root, seed=5, patients=FEW_PATIENTS, workers=1, progress=False)
    dataset = MuraPhantom(root=str(root), seed=5, patients=FEW_PATIENTS, val_share=0.4)
    dataset.prepare()
    return dataset.manifest()


def test_only_abnormal_images_have_outlines(manifest: Manifest) -> None:
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


def test_the_study_folders_hold_nothing_but_images(manifest: Manifest) -> None:
    for part in mura.PARTS:
        suffixes = {path.suffix for path in (manifest.root / part).rglob("*") if path.is_file()}
        assert suffixes == {".png"}
    assert not any("skipped" in note for note in manifest.notes)


def test_the_fracture_is_inside_its_outline_in_the_preprocessed_image(manifest: Manifest) -> None:
    recipe = {"seed": 5, "patients": FEW_PATIENTS, "abnormal": 0.45}
    preprocess = Preprocess([{"name": "resize", "mode": "pad"}], 512)
    rows = manifest.table.set_index("path")
    compared = 0
    for planned in mura.plan(Path(MURA_FOLDER), recipe):
        if not planned.spec.fracture or compared == 3:
            continue
        row = rows.loc[planned.path.relative_to(MURA_FOLDER).as_posix()]
        broken = read_grey(manifest.root / row.name)
        rendered = render_visible(planned.spec, "view", mura.SAME_PROJECTION)
        intact = render(replace(planned.spec, fracture=False)).image
        if intact.shape != broken.shape:
            continue  # its frame had no room for a fracture, and another view was rendered
        changed = preprocess(np.where(broken == intact, 0, 255).astype(np.uint8)) > 64
        mask = outline_mask(annotation_outlines(row, preprocess), 512).astype(np.uint8)
        kernel = np.ones((2 * DILATION + 3, 2 * DILATION + 3), np.uint8)
        assert changed.any()
        assert not (changed & (cv2.dilate(mask, kernel) == 0)).any()
        assert len(row["polygons"]) == len(rendered.polygons)
        compared += 1
    assert compared == 3


def test_outlines_survive_a_csv_file(manifest: Manifest, tmp_path: Path) -> None:
    write_table(manifest.table, tmp_path / "table.csv")
    assert list(read_table(tmp_path / "table.csv")["polygons"]) == list(manifest.table["polygons"])


def test_phantoms_without_outlines_are_rejected_as_another_recipe(
    manifest: Manifest, tmp_path: Path
) -> None:
    recipe = (manifest.root / "phantom.json").read_text()
    old = tmp_path / MURA_FOLDER
    old.mkdir()
    (old / "phantom.json").write_text(recipe.replace(',\n  "files": 2', ""))
    assert "files" not in (old / "phantom.json").read_text()
    with pytest.raises(UserError, match="phantoms of another recipe"):
        write_mura(tmp_path, seed=5, patients=FEW_PATIENTS, progress=False)
