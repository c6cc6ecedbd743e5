"""What the names of folders and the labels in tables mean: splits, and classes however spelled."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from fracnet.data.annotations import NEGATIVE
from fracnet.utils.errors import DataFault
from fracnet.utils.text import counted, number_in

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
COPY = re.compile(r"([\s_-]+copy)?([\s_-]+\(\d+\))?$", re.IGNORECASE)
"""What a file manager adds to the name of a copied folder."""
SPLIT_SUFFIXES = {"set", "data", "dataset", "images", "split"}
"""Words that may follow the name of a split, as in test_set."""


def split_named(name: str) -> str | None:
    """The split that a folder or cell names (train, Training, test_set ...); None if it is none."""
    first, *others = re.split(r"[\s_-]+", name.strip().lower())
    return SPLIT_NAMES.get(first) if SPLIT_SUFFIXES.issuperset(others) else None


def split_within(name: str) -> str | None:
    """The split that a word of the name is, as in train2017, trainA, 01_test or trainset."""
    for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name):
        for suffix in ("", *SPLIT_SUFFIXES):
            if split := SPLIT_NAMES.get(word.lower().removesuffix(suffix)):
                return split
    return None


def unify_labels(
    rows: Sequence[dict[str, Any]], origin: Path | str, distinct: Sequence[object]
) -> list[str]:
    """Give labels that are one number (0, 0.0) one spelling; notes on it.

    distinct: classes that the user lists; two spellings that are both listed stay two classes.
    Raises DataFault if labels differ only in case, separators, blanks at the ends or Unicode form:
    probably a slip.
    """
    counts = Counter(row["label"] for row in rows)
    listed = set(map(str, distinct))
    keys = {label: label_key(label) for label in sorted(counts)}
    spellings: dict[Decimal | str, list[str]] = defaultdict(list)
    for label, key in keys.items():
        original = label_key(COPY.sub("", visible(label)))
        spellings[original if original in keys.values() else key].append(label)
    several = [
        labels
        for labels in spellings.values()
        if len(labels) > 1 and not len(listed.intersection(labels)) > 1
    ]
    texts = [
        labels
        for labels in several
        if not all(isinstance(keys[label], Decimal) for label in labels)
    ]
    if texts:
        pairs = [
            " and ".join(f"{label!r} ({counted(counts[label], 'image')})" for label in labels)
            for labels in texts
        ]
        raise DataFault(
            f"{origin} spells {counted(len(texts), 'class')} in several ways: "
            f"{'; '.join(pairs)}. Use one spelling per class."
        )
    notes = []
    for labels in several:
        label = min(labels, key=lambda text: (text not in listed, len(text), text))
        for row in rows:
            if row["label"] in labels:
                row["label"] = label
        quoted = ", ".join(f"{name!r} ({counted(counts[name], 'image')})" for name in labels)
        notes.append(f"{origin}: the labels {quoted} are one number and count as one class.")
    return notes


def label_key(label: str) -> Decimal | str:
    """Equal for two spellings of one number, or of one name."""
    name = visible(label)
    if (number := number_in(name)) is not None:
        return number
    return re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", name.casefold()).replace("_", " ")


def is_class_without_finding(name: str, names: Sequence[str]) -> bool:
    """Whether a folder is called normal or 0, say, or `not X` beside X; `normal view` is a view."""
    first, _, rest = str(label_key(name)).partition(" ")
    if not rest:
        return first in NEGATIVE
    return first in NEGATIVE and rest in {label_key(other) for other in names}


def visible(text: str) -> str:
    """The text in one Unicode form, without what nobody sees: blanks around it, joiners, marks."""
    text = unicodedata.normalize("NFKC", text)
    return "".join(char for char in text if unicodedata.category(char) != "Cf").strip()
