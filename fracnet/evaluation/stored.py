"""metrics.json read back: the assessment that was written, so that a page needs nothing else."""

import math
from collections.abc import Mapping
from typing import Any

from fracnet.config import validated
from fracnet.errors import UserError
from fracnet.evaluation.assess import Assessment, Stratum
from fracnet.evaluation.battery import PER_CLASS
from fracnet.evaluation.binary import BinaryRow
from fracnet.evaluation.summary import ClassSummary, Estimate, Summary
from fracnet.options import Evaluation

OFFICIAL = ("auc", "sensitivity", "specificity", "kappa")
WANTED = ("evaluation", "decisions", "calibration", "test_strata", "notes")


def assessment_of(content: Mapping[str, Any], where: str) -> Assessment:
    """The inverse of `Assessment.to_dict`; undefined values are NaN again.

    content: of a metrics.json, which may hold more. where: names the file.
    Raises UserError for one of an older fracnet, which lacks what is wanted.
    """
    if lacking := [key for key in WANTED if key not in content]:
        raise UserError(
            f"{where} lacks {', '.join(lacking)}: an older fracnet wrote it. "
            "python -m fracnet.evaluate run=<its folder> writes it anew."
        )
    return Assessment(
        options=validated(Evaluation, content["evaluation"], f"{where}: evaluation"),
        decisions=content["decisions"],
        val=summary_of(content["val"]) if "val" in content else None,
        test=summary_of(content["test"]) if "test" in content else None,
        baselines={k: summary_of(v) for k, v in content.get("baselines_on_test", {}).items()},
        official=tuple(_official(row) for row in content.get("test_by_level_and_region", [])),
        calibration={
            split: {
                moment: {name: estimate_of(held) for name, held in figures.items()}
                for moment, figures in moments.items()
            }
            for split, moments in content["calibration"].items()
        },
        strata=tuple(_stratum(row) for row in content["test_strata"]),
        notes=tuple(content["notes"]),
    )


def summary_of(held: Mapping[str, Any]) -> Summary:
    """The inverse of `Summary.to_dict`."""
    return Summary(
        split=held["split"],
        classes=tuple(held["classes"]),
        n=held["n"],
        clusters=held["clusters"],
        unit=held["unit"],
        metrics={name: estimate_of(value) for name, value in held["metrics"].items()},
        per_class=tuple(
            ClassSummary(
                name=row["class"],
                n=row["n"],
                **{rate: estimate_of(row[rate]) for rate in PER_CLASS},
            )
            for row in held["per_class"]
        ),
        confusion=tuple(tuple(row) for row in held["confusion"]),
        definitions=dict(held["definitions"]),
    )


def estimate_of(held: Mapping[str, Any]) -> Estimate:
    """The inverse of `plain` for one figure."""
    value = math.nan if held["value"] is None else float(held["value"])
    return Estimate(**{**held, "value": value})


def _stratum(row: Mapping[str, Any]) -> Stratum:
    own = {key: row[key] for key in ("level", "by", "value", "threshold", "positives")}
    return Stratum(**own, summary=summary_of(row))


def _official(row: Mapping[str, Any]) -> BinaryRow:
    own = {key: row[key] for key in ("level", "region", "n", "positives", "unit")}
    figures: dict[str, Any] = {name: estimate_of(row[name]) for name in OFFICIAL}
    return BinaryRow(**own, **figures)
