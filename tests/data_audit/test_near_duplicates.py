"""The whole search: it detects the planted copies and nothing else, with any number of workers."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from experiments.duplicates.copies import SINGLES, Planted, phantom, plant, score_search
from fracnet.data.image_io import BadImage
from fracnet.data_audit.keypoints import describe
from fracnet.data_audit.near_duplicates import (
    CANDIDATES,
    Index,
    Pair,
    clusters,
    consistent_pairs,
    find_duplicates,
    over_copies,
)

T = TypeVar("T")
N = 14
MIXED = [
    *SINGLES,
    ("horizontal flip", "inversion", "gamma"),
    ("vertical flip", "crop", "window"),
    ("horizontal flip", "rotation", "text"),
    ("vertical flip", "noise", "padding"),
    ("inversion", "shear", "jpeg"),
    ("quarter turn", "horizontal flip", "blur"),
    ("gain", "rotation", "text"),
    ("clahe", "vertical flip", "jpeg"),
    ("gamma", "padding", "quarter turn"),
    ("window", "horizontal flip", "shear"),
]


@pytest.fixture(scope="module")
def planted() -> Planted:
    """Different phantoms, two copies of each: every single alteration, and some in threes."""
    return plant([(f"{i}", phantom(i), 2) for i in range(N)], seed=2, recipes=MIXED)


@pytest.fixture(scope="module")
def pairs(planted: Planted) -> list[Pair]:
    return search(planted.images)


def search(images: Sequence[np.ndarray | None], workers: int = 2) -> list[Pair]:
    return find_duplicates(lambda i: images[i], len(images), workers=workers)


def as_tuples(pairs: list[Pair], names: Sequence[int] | None = None) -> list[tuple]:
    """Comparable pairs, optionally with other names for the images."""
    tuples = []
    for pair in pairs:
        a, b = (names[i] if names is not None else i for i in (pair.a, pair.b))
        tuples.append((min(a, b), max(a, b), pair.kind, pair.mirrored, round(pair.score, 5)))
    return sorted(tuples)


def test_planted_copies_are_detected_and_nothing_else(planted: Planted, pairs: list[Pair]) -> None:
    result = score_search(planted, pairs)
    assert result.false == []
    assert result.recall > 0.95, [planted.recipes[i] for i in result.missed]
    assert all(pair.a < pair.b for pair in pairs)
    assert [(pair.a, pair.b) for pair in pairs] == sorted({(pair.a, pair.b) for pair in pairs})


def test_a_mirrored_copy_is_reported_as_mirrored(planted: Planted, pairs: list[Pair]) -> None:
    checked = 0
    for pair in pairs:
        kinds = [*planted.recipes[pair.a], *planted.recipes[pair.b]]
        assert pair.mirrored == bool(sum("flip" in kind for kind in kinds) % 2)
        assert pair.inverted == bool(kinds.count("inversion") % 2)
        assert pair.transform is not None
        assert (np.linalg.det(pair.transform[:, :2]) < 0) == pair.mirrored
        checked += pair.mirrored
    assert checked > 3


def test_neither_workers_nor_order_change_the_pairs(planted: Planted, pairs: list[Pair]) -> None:
    order = np.random.default_rng(5).permutation(len(planted)).tolist()
    other = search([planted.images[i] for i in order], workers=3)
    assert as_tuples(other, order) == as_tuples(pairs)
    assert as_tuples(search(planted.images, workers=1)) == as_tuples(pairs)


def test_copies_that_key_points_miss_are_found_over_their_original(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only candidates that include the original remain, so not the pair of its two copies."""
    images = plant([("0", phantom(0), 2)], 3, [("rotation",), ("gamma", "horizontal flip")]).images
    original, propose = describe(images[0]).digest, Index.candidates

    def candidates(self: Index, query: int) -> list[tuple[int, bool, bool]]:
        digests = [image.digest for image in self.images]
        return [
            each for each in propose(self, query) if original in (digests[query], digests[each[0]])
        ]

    monkeypatch.setattr(Index, "candidates", candidates)
    pairs = search(images)
    assert [(pair.a, pair.b) for pair in pairs] == [(0, 1), (0, 2), (1, 2)]
    assert pairs[2].mirrored
    assert pairs[2].score > 0.9


def test_the_transform_leads_from_the_lower_to_the_higher_image() -> None:
    small = np.ascontiguousarray(phantom(3)[30:, 40:])
    for images, shift in (([phantom(3), small], (-40, -30)), ([small, phantom(3)], (40, 30))):
        (pair,) = search(images)
        assert pair.transform is not None
        assert np.abs(pair.transform - np.array([[1, 0, shift[0]], [0, 1, shift[1]]])).max() < 0.8


def test_same_bytes_differ_from_same_pixels(tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.png" for i in range(4)]
    for file, data in zip(files, (b"one", b"two", b"one", b"three"), strict=True):
        file.write_bytes(data)
    same, other = phantom(0), phantom(1)
    images = [same, same, same, other]
    pairs = find_duplicates(lambda i: images[i], 4, files=files, workers=1)
    assert [(pair.a, pair.b, pair.kind) for pair in pairs] == [
        (0, 1, "same pixels"),
        (0, 2, "same bytes"),
    ]
    assert all(pair.transform is None and pair.score == 1 for pair in pairs)
    without_files = find_duplicates(lambda i: images[i], 4, workers=1)
    assert {pair.kind for pair in without_files} == {"same pixels"}


def test_identical_images_are_represented_by_one_in_other_pairs() -> None:
    copy = plant([("0", phantom(0), 1)], 3, [("rotation",)]).images[1]
    pairs = search([phantom(0), phantom(0), copy])
    assert [(pair.a, pair.b, pair.kind) for pair in pairs] == [
        (0, 1, "same pixels"),
        (0, 2, "copy"),
    ]
    assert clusters(pairs, 3).tolist() == [0, 0, 0]


def test_images_left_out_and_blank_ones_have_no_copies() -> None:
    black, grey = np.zeros((80, 60), np.uint8), np.full((80, 60), 128, np.uint8)
    assert search([black, None, grey, None]) == []
    assert [pair.kind for pair in search([black, grey, black])] == ["same pixels"]
    assert search([phantom(0), black, None, phantom(1)]) == []


def test_zero_images_and_a_single_image() -> None:
    assert search([]) == []
    assert search([phantom(0)]) == []
    assert search([None]) == []


def test_each_image_is_requested_once_and_progress_is_reported() -> None:
    requested, steps, lock = list[int](), list[tuple[str, int]](), threading.Lock()

    def image(i: int) -> np.ndarray:
        with lock:
            requested.append(i)
        return phantom(i)

    def progress(items: Iterable[T], total: int, name: str) -> Iterator[T]:
        passed = list(items)
        assert len(passed) == total
        steps.append((name, total))
        yield from passed

    find_duplicates(image, 5, workers=2, progress=progress)
    assert sorted(requested) == [0, 1, 2, 3, 4]
    assert [name for name, _ in steps] == ["read images", "find candidates", "compare images"]
    assert steps[0][1] == steps[1][1] == 5


def test_an_error_in_an_image_is_raised_at_once() -> None:
    requested = list[int]()

    def image(i: int) -> np.ndarray:
        requested.append(i)
        if i == 1:
            raise BadImage("x.png", "it is broken")
        return phantom(0)

    with pytest.raises(BadImage, match="it is broken"):
        find_duplicates(image, 500, workers=1)
    assert len(requested) < 100


def test_clusters_join_over_any_number_of_pairs() -> None:
    chain = [Pair(4, 6, "copy"), Pair(1, 4, "copy"), Pair(2, 3, "same pixels"), Pair(0, 6, "copy")]
    assert clusters(chain, 8).tolist() == [0, 0, 2, 2, 0, 5, 0, 7]
    assert clusters([], 3).tolist() == [0, 1, 2]


def scored(a: int, b: int, score: float) -> Pair:
    return Pair(a, b, "copy", np.eye(2, 3), score=score)


CERTAIN = 0.999


def test_a_likely_pair_is_a_copy_if_the_certain_copies_of_its_images_say_so() -> None:
    """Images 0 to 2 are certain copies; of 3, two of three comparisons say that it is one, too."""
    certain = [scored(0, 1, CERTAIN), scored(0, 2, CERTAIN), scored(1, 2, CERTAIN)]
    likely = [scored(0, 3, 0.9), scored(1, 3, 0.8), scored(2, 3, 0.4)]
    assert consistent_pairs([*certain, *likely]) == [*certain, *likely]
    unlikely = [scored(0, 3, 0.6), scored(1, 3, 0.2), scored(2, 3, 0.2)]
    assert consistent_pairs([*certain, *unlikely]) == certain


def test_an_image_that_resembles_one_copy_of_four_must_be_more_certain() -> None:
    """Image 3 is, e.g., blurred or too white, so that images of others resemble it."""
    certain = [scored(a, b, CERTAIN) for a in range(4) for b in range(a + 1, 4)]
    assert consistent_pairs([*certain, scored(3, 4, 0.8)]) == certain
    other = [scored(2, 4, 0.8), scored(3, 4, 0.8)]
    assert consistent_pairs([*certain, *other]) == [*certain, *other]
    sure = scored(3, 4, 0.97)
    assert consistent_pairs([*certain, sure]) == [*certain, sure]


def test_one_pair_does_not_join_two_clusters_of_which_no_other_pair_looks_like_copies() -> None:
    certain = [scored(a, b, CERTAIN) for a in range(4) for b in range(a + 1, 4)]
    certain.append(scored(4, 5, CERTAIN))
    assert consistent_pairs([*certain, scored(3, 4, 0.95)]) == certain
    several = [scored(a, b, 0.97) for a in range(4) for b in (4, 5)]
    assert len(consistent_pairs([*certain, *several])) == len(certain) + len(several)


def test_two_exposures_with_copies_stay_apart_although_some_pairs_look_like_copies() -> None:
    certain = [scored(0, 1, CERTAIN), scored(2, 3, CERTAIN)]
    across = [scored(0, 2, 0.7), scored(0, 3, 0.6), scored(1, 3, 0.9)]
    assert consistent_pairs([*certain, *across]) == certain
    one = [*certain, scored(0, 2, 0.99), scored(0, 3, 0.4), scored(1, 2, 0.3), scored(1, 3, 0.05)]
    assert consistent_pairs(one) == certain


def test_two_images_without_other_copies_must_be_more_certain() -> None:
    assert consistent_pairs([scored(0, 1, 0.95)]) == []
    sure = [scored(0, 1, 0.97)]
    assert consistent_pairs(sure) == sure


LEFT, RIGHT = (np.array([[25.0, 0, x], [0, 50, 100]]) for x in (50, 150))


def test_two_images_side_by_side_are_copies_of_both() -> None:
    """Image 0 shows 1 and its copy 2 on the left, 3 and its copy 4 on the right."""
    copies = [
        *(replace(scored(0, i, 0.98), region=LEFT) for i in (1, 2)),
        *(replace(scored(0, i, 0.97), region=RIGHT) for i in (3, 4)),
        scored(1, 2, CERTAIN),
        scored(3, 4, CERTAIN),
    ]
    alike = [scored(1, 3, 0.3), scored(1, 4, 0.3), scored(2, 3, 0.3), scored(2, 4, 0.3)]
    assert consistent_pairs([*copies, *alike]) == copies


def test_an_image_that_resembles_two_exposures_at_one_place_is_a_copy_of_one() -> None:
    own = [*(replace(scored(0, i, 0.98), region=LEFT) for i in (1, 2)), scored(1, 2, CERTAIN)]
    others = [replace(scored(0, i, 0.7), region=LEFT) for i in (3, 4)]
    found = consistent_pairs([*own, *others, scored(3, 4, CERTAIN)])
    assert [(pair.a, pair.b) for pair in found] == [(0, 1), (0, 2), (1, 2), (3, 4)]


def test_two_copies_of_one_picture_are_compared_over_it() -> None:
    """Images 1 and 2 are copies of 0: the map from 1 to 2 leads over 0."""
    double, shift = np.array([[2.0, 0, 0], [0, 2, 0]]), np.array([[1.0, 0, 7], [0, 1, 3]])
    first = replace(scored(0, 1, CERTAIN), transform=double, mirrored=True, inverted=True)
    second = replace(scored(0, 2, CERTAIN), transform=shift, inverted=True)
    unlikely = {(0, 1): first, (0, 2): second, (1, 2): scored(1, 2, 0.1)}
    for known in ({(0, 1): first, (0, 2): second}, unlikely):
        tasks = over_copies(known)
        assert list(tasks) == [(1, True, False)]
        assert np.allclose(tasks[1, True, False][2], [[0.5, 0, 7], [0, 0.5, 3]])
    assert over_copies({**unlikely, (1, 2): scored(1, 2, 0.6)}) == {}
    assert over_copies({**unlikely, (0, 2): replace(second, score=0.9)}) == {}


def test_comparisons_over_a_picture_with_many_copies_are_few() -> None:
    """Of 200 copies of image 0, only the most certain are compared with each other."""
    scores = np.linspace(0.96, 0.999, 200)
    tasks = over_copies({(0, i): scored(0, i, score) for i, score in enumerate(scores, 1)})
    compared = {i for (a, *_), others in tasks.items() for i in (a, *others)}
    assert compared == set(range(201 - CANDIDATES, 201))
    assert sum(map(len, tasks.values())) == CANDIDATES * (CANDIDATES - 1) // 2


def test_two_pictures_side_by_side_are_not_compared_over_their_image() -> None:
    left, right = (replace(scored(0, i, CERTAIN), region=r) for i, r in ((1, LEFT), (2, RIGHT)))
    assert over_copies({(0, 1): left, (0, 2): right}) == {}
