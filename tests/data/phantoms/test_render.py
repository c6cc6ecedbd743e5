"""One phantom image: what it shows, and that a fracture changes it only locally."""

import time
from dataclasses import replace

import cv2
import numpy as np
import pytest

from fracnet.data.phantoms.anatomy import Build
from fracnet.data.phantoms.fractures import KINDS
from fracnet.data.phantoms.poses import POSES, WIDE_SCENES, Scene, Site, wrist
from fracnet.data.phantoms.render import (
    DILATION,
    REGIONS,
    Rendered,
    Spec,
    frames_every_region,
    render,
    render_visible,
)
from fracnet.data.phantoms.xray import Framing

CARPALS = {
    *("scaphoid", "lunate", "triquetrum", "pisiform"),
    *("trapezium", "trapezoid", "capitate", "hamate"),
}
METACARPALS = {f"metacarpal {k}" for k in range(1, 6)}
PHALANGES = {f"{level} {k}" for level in ("proximal", "distal") for k in range(1, 6)}
PHALANGES |= {f"middle {k}" for k in range(2, 6)}
FOREARM = {"radius", "ulna"}
SHOULDER = {"humerus", "scapula", "clavicle", "ribs"}
HAND = CARPALS | METACARPALS | PHALANGES

Pair = tuple[Spec, Rendered, Rendered]


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    """Specs with their images with and without the fracture."""
    pairs = []
    for number, region in enumerate(REGIONS):
        for patient in range(9 * number, 9 * number + 9):
            spec = Spec(region, seed=4, patient=patient, view=patient % 3, fracture=True)
            pairs.append((spec, render(spec), render(replace(spec, fracture=False))))
    return pairs


def near(rendered: Rendered, pixels: int) -> np.ndarray:
    """Mask [H, W] of the polygons dilated by that many pixels."""
    height, width = rendered.image.shape
    mask = np.zeros((height, width), np.uint8)
    for polygon in rendered.polygons:
        corners = np.round(polygon * [width, height] - 0.5).astype(np.int32)
        cv2.fillPoly(mask, [corners], 1)
    return cv2.dilate(mask, np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)) > 0


@pytest.mark.parametrize("region", REGIONS)
def test_fracture_changes_nothing_outside_its_polygon(pairs: list[Pair], region: str) -> None:
    for spec, broken, intact in pairs:
        if spec.region == region:
            changed = broken.image != intact.image
            assert not (changed & ~near(broken, DILATION)).any(), spec
            assert (changed & near(broken, 0)).sum() >= 20, spec


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_fracture_changes_only_its_polygon(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_site(build: Build, rng: np.random.Generator, projection: str) -> Scene:
        return replace(wrist(build, rng, projection), sites=(Site("radius", 205, 230, (kind,)),))

    monkeypatch.setitem(POSES, "wrist", one_site)
    for patient in range(3):
        spec = Spec("wrist", seed=8, patient=patient, fracture=True)
        broken, intact = render(spec), render(replace(spec, fracture=False))
        assert broken.info["kinds"] == [kind]
        changed = broken.image != intact.image
        assert not (changed & ~near(broken, DILATION)).any()
        assert (changed & near(broken, 0)).sum() >= 20


def test_fractures_are_visible(pairs: list[Pair]) -> None:
    strong = []
    for _, broken, intact in pairs:
        step = np.abs(broken.image.astype(int) - intact.image)
        strong.append((step > 20).sum())
    assert np.median(strong) > 60
    assert np.mean(np.array(strong) < 10) < 0.1


def test_only_broken_images_have_polygons(pairs: list[Pair]) -> None:
    assert all(not intact.polygons for _, _, intact in pairs)
    numbers = [len(broken.polygons) for _, broken, _ in pairs]
    assert set(numbers) == {1, 2}


def test_polygons_are_in_the_image_and_small(pairs: list[Pair]) -> None:
    for spec, broken, _ in pairs:
        for polygon in broken.polygons:
            assert polygon.ndim == 2
            assert polygon.shape[1] == 2
            assert len(polygon) >= 3
            assert polygon.min() >= 0
            assert polygon.max() <= 1
            assert cv2.contourArea(polygon.astype(np.float32)) < 0.12, spec


def test_images_are_grey_and_as_large_as_the_public_ones(pairs: list[Pair]) -> None:
    shapes = {broken.image.shape for _, broken, _ in pairs}
    assert all(max(shape) <= 512 for shape in shapes)
    assert len(shapes) > 4
    assert all(broken.image.dtype == np.uint8 for _, broken, _ in pairs)


def test_hardware_is_the_same_with_and_without_fracture(pairs: list[Pair]) -> None:
    assert all(broken.info["hardware"] == intact.info["hardware"] for _, broken, intact in pairs)
    kinds = {intact.info["hardware"] for _, _, intact in pairs}
    assert None in kinds
    assert len(kinds) > 2


@pytest.mark.parametrize(
    ("region", "bones"),
    [
        ("elbow", {"humerus"} | FOREARM),
        ("fingers", None),
        ("forearm", {"humerus"} | FOREARM | HAND),
        ("hand", FOREARM | HAND),
        ("humerus", SHOULDER | FOREARM),
        ("shoulder", SHOULDER),
        ("wrist", FOREARM | HAND),
    ],
)
def test_number_of_bones(region: str, bones: set[str] | None) -> None:
    build = Build.draw(np.random.default_rng(0))
    body = POSES[region](build, np.random.default_rng(1), "frontal").body
    names = [bone.name for bone in body.bones]
    assert len(names) == len(set(names))
    if bones is None:  # some digits only, each complete
        digits = {name.split()[1] for name in names if name.startswith("distal")}
        assert 1 <= len(digits) <= 3
        bones = CARPALS | METACARPALS | {name for name in PHALANGES if name.split()[1] in digits}
    assert set(names) == bones


@pytest.mark.parametrize(
    ("region", "visible", "hidden"),
    [
        ("elbow", {"humerus", "radius", "ulna"}, {"clavicle", "scaphoid"}),
        ("shoulder", {"humerus", "scapula", "clavicle", "ribs"}, {"radius"}),
        ("wrist", {"radius", "ulna", "scaphoid", "lunate"}, {"humerus"}),
    ],
)
def test_bones_in_view(pairs: list[Pair], region: str, visible: set[str], hidden: set[str]) -> None:
    for spec, rendered, _ in pairs:
        if spec.region == region:
            assert visible <= set(rendered.info["bones"])
            assert not hidden & set(rendered.info["bones"])


def test_framing_depends_on_neither_region_nor_fracture() -> None:
    def framing(region: str, fracture: bool) -> Framing:
        spec = Spec(region, seed=3, patient=5, study=1, view=2, fracture=fracture)
        return Framing.draw(spec.stream("display"), spec.stream("study"))

    first = framing("elbow", True)
    for region in REGIONS:
        other = framing(region, False)
        assert (first.width, first.height, first.zoom) == (other.width, other.height, other.zoom)
        assert (first.outside, first.marker) == (other.outside, other.marker)


def test_same_spec_same_pixels_and_each_identifier_counts() -> None:
    spec = Spec("wrist", seed=1, patient=2, study=0, view=0)
    image = render(spec).image
    np.testing.assert_array_equal(image, render(spec).image)
    for other in ({"seed": 2}, {"patient": 3}, {"study": 1}, {"view": 1}, {"region": "elbow"}):
        changed = render(replace(spec, **other)).image
        assert changed.shape != image.shape or (changed != image).mean() > 0.5


@pytest.mark.parametrize("scene", WIDE_SCENES)
def test_nothing_but_the_fracture_tells_the_label_of_a_wide_scene(scene: str) -> None:
    first, *others = WIDE_SCENES[scene]
    spec = Spec(first, seed=4, patient=1, view=1, fracture=True, scene=scene)
    spec = next(s for k in range(20) if frames_every_region(s := replace(spec, study=k)))
    broken = render_visible(spec, "study", 1)
    for region in others:
        other = render_visible(replace(spec, region=region), "study", 1)
        unbroken = ~(near(broken, DILATION) | near(other, DILATION))
        np.testing.assert_array_equal(broken.image[unbroken], other.image[unbroken])
        middles = [np.concatenate(each.polygons).mean(axis=0) for each in (broken, other)]
        assert np.abs(middles[0] - middles[1]).max() > 0.1


def test_views_are_projections_of_one_patient() -> None:
    views = [render(Spec("elbow", seed=1, patient=2, view=view)) for view in range(3)]
    assert [rendered.info["projection"] for rendered in views] == ["frontal", "lateral", "oblique"]
    assert len({rendered.info["side"] for rendered in views}) == 1


def test_build_belongs_to_the_patient() -> None:
    sizes = {
        Build.draw(Spec("hand", patient=7, study=study, view=view).stream("patient")).size
        for study in range(2)
        for view in range(3)
    }
    assert len(sizes) == 1


@pytest.mark.slow
def test_rendering_is_fast() -> None:
    specs = [Spec(region, patient=k, fracture=True) for k in range(6) for region in REGIONS]
    begin = time.process_time()
    for spec in specs:
        render(spec)
    assert (time.process_time() - begin) / len(specs) < 0.1  # seconds; 0.03 on a free core
