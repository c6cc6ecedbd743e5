"""One of a thing is not several."""

import pytest

from fracnet.utils.text import counted, shortened


@pytest.mark.parametrize(
    ("n", "noun", "expected"),
    [
        (1, "image", "1 image"),
        (0, "image", "0 images"),
        (2, "study", "2 studies"),
        (1, "study", "1 study"),
        (3, "class", "3 classes"),
        (2, "day", "2 days"),
        (5, "label file", "5 label files"),
    ],
)
def test_number_and_noun_agree(n: int, noun: str, expected: str) -> None:
    assert counted(n, noun) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("normal", "normal"),
        ("thirteen_long", "thirteen_long"),
        ("fracture of the wrist", "fracture of…"),
        ("a_word_without_a_space", "a_word_witho…"),
        ("a long_word_after_a_short_one", "a long_word_…"),
    ],
)
def test_a_name_is_cut_after_a_word_or_within_a_long_one(text: str, expected: str) -> None:
    assert shortened(text, 13) == expected
