"""What validation decides, frozen with a hash: temperature and operating points.

Nothing of the test enters: `decide` is handed the rows of validation alone.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from fracnet.errors import UserError
from fracnet.evaluation import temperature
from fracnet.evaluation.levels import check_views, offered, positive, to_level
from fracnet.evaluation.operating import choose, said
from fracnet.evaluation.predictions import LOGIT, PROB, classes_of, targets
from fracnet.options import Evaluation

# The columns of a table on which a decision can depend.
IDENTITY = ("path", "label", "patient", "study")


def decide(val: pd.DataFrame, options: Evaluation) -> dict[str, Any]:
    """Choose temperature and thresholds on the rows of validation: the content of decisions.json.

    In this order: calibrate the logits, put the views together, choose a threshold for each level.
    `operating` is None for more than two classes, whose decision is the likeliest class.
    """
    assert set(val["split"]) == {"val"}, "validation decides, and nothing else"
    classes = classes_of(val)
    check_views(options.views, len(classes))
    fitted = temperature.Temperature(1.0, "not asked for")
    if options.calibrate:
        fitted = temperature.fit(val)
    points = None
    if len(classes) == 2:
        rows = temperature.calibrated(val, fitted.value)
        points = {}
        for level in offered(val)[1]:
            units = to_level(rows, level, options.views)
            chosen = choose(positive(units), targets(units) == 1, options.operating)
            points[level] = asdict(chosen)
    return sealed(
        {
            "temperature": fitted.value,
            "temperature_note": fitted.note,
            **settings(options),
            "operating": points,
            "classes": list(classes),
            "validation": {"n": len(val), "sha256": fingerprint(val)},
        }
    )


def settings(options: Evaluation) -> dict[str, Any]:
    """The options that decisions depend on."""
    return {
        "calibrate": options.calibrate,
        "views": options.views,
        "rule": dict(options.operating),
    }


def fingerprint(val: pd.DataFrame) -> str:
    """SHA-256 of the rows that decide, whatever their order: ids, labels, logits, probabilities."""
    scores = [c for c in val.columns if str(c).startswith((PROB, LOGIT))]
    rows = val[[*(c for c in IDENTITY if c in val), *scores]].sort_values("path")
    text = rows.to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with `sha256` of all the rest of it."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, allow_nan=False)
    return rest | {"sha256": hashlib.sha256(text.encode()).hexdigest()}


def verify(content: Any, val: pd.DataFrame, options: Evaluation, where: str) -> None:
    """Raise `UserError` unless `content` is whole and was made from these rows with these options.

    `where` names the file.
    """
    again = "remove it to have validation choose anew"
    if not isinstance(content, dict) or "sha256" not in content:
        raise UserError(f"{where} holds no decisions with their hash; {again}.")
    if sealed(content)["sha256"] != content["sha256"]:
        raise UserError(
            f"{where} has been changed since it was written: its content does not have the hash "
            f"{content['sha256'][:12]}... that stands in it. What validation has chosen is frozen; "
            f"bring the file back as it was, or {again}."
        )
    if content["validation"]["sha256"] != fingerprint(val):
        raise UserError(
            f"{where} was made from other rows of validation ({content['validation']['n']}) than "
            f"the {len(val)} in the predictions; bring them back as they were, or {again}."
        )
    wanted = settings(options)
    for key, value in wanted.items():
        if content[key] != value:
            raise UserError(
                f"{where} was made with {key}={said(content[key])}, and the run's config.yaml "
                f"says {key}={said(value)}; bring the config back as it was, or {again}."
            )
