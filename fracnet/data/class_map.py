"""Labels of one data set in the classes of another, by an explicit map."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from fracnet.data.manifest import Manifest
from fracnet.utils.errors import UserError

KEY = "class_map"

ClassMap = Mapping[str, str | None] | None


def align(
    manifest: Manifest, classes: Sequence[str], class_map: ClassMap, key: str = KEY
) -> Manifest:
    """The manifest with labels that a model of `classes` can be judged by.

    class_map: label of the data set -> class of the model, or None to leave such images out (they
        are counted as excluded). May be None where the data set has the model's classes.
    key: under which the map is given, for messages.

    Raises:
        UserError: a class of the data set that is not mapped, or mapped to none of `classes`. A
            set that has the same names needs no map; no name is guessed.
    """
    if class_map is None and set(manifest.classes) == set(classes):
        return replace(manifest, classes=tuple(classes))
    given: dict[str, str | None] = {str(name): label for name, label in (class_map or {}).items()}
    of_model = ", ".join(classes)
    unmapped = [name for name in manifest.classes if name not in given]
    if unmapped:
        example = ", ".join(f"{name}: {classes[0]}" for name in unmapped)
        raise UserError(
            f"{key}: {manifest.name} has the {_plural(unmapped)} {', '.join(unmapped)}, the model "
            f"has {of_model}; say which is which, as in '{key}={{{example}}}' (null leaves a "
            "class out)."
        )
    if strange := [name for name in given if name not in manifest.classes]:
        raise UserError(
            f"{key}: {manifest.name} has no class {strange[0]!r}; it has "
            f"{', '.join(manifest.classes)}."
        )
    wrong = {name: label for name, label in given.items() if label not in (None, *classes)}
    if wrong:
        name, label = next(iter(wrong.items()))
        raise UserError(
            f"{key}: {name}={label} is no class of the model; allowed: {of_model} or null."
        )
    table = manifest.table.copy()
    table["label"] = table["label"].map(given)
    left_out = table["label"].isna()
    if left_out.all():
        raise UserError(f"{key} leaves out all classes of {manifest.name}.")
    more = Counter(zip(manifest.table["split"], manifest.table["label"], strict=True))
    excluded = pd.DataFrame(
        [
            *manifest.excluded.to_dict("records"),
            *(
                {"split": split, "reason": f"class {label} left out", "n": n}
                for (split, label), n in more.items()
                if given[label] is None
            ),
        ],
        columns=["split", "reason", "n"],
    )
    return replace(
        manifest,
        table=table[~left_out].reset_index(drop=True),
        classes=tuple(classes),
        task="binary" if len(classes) == 2 else "multiclass",
        excluded=excluded,
    )


def _plural(names: Sequence[str]) -> str:
    return "class" if len(names) == 1 else "classes"
