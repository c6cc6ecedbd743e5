"""One of a thing is not several."""

import pytest

from fracnet.utils.text import counted


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
