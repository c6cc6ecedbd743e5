"""What a run's page and its model card are made of: the content of the run folder's files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from fracnet.evaluation.aggregation import OVERALL
from fracnet.evaluation.assessment import Assessment, Stratum
from fracnet.evaluation.decisions import calibrate
from fracnet.evaluation.predictions import Predictions
from fracnet.evaluation.summary import Estimate, Summary
from fracnet.report.caveats import is_phantom
from fracnet.report.tables import Link

IMAGE, STUDY = "image", "study"


@dataclass(frozen=True)
class Evaluated:
    """Metrics of one evaluation with their predictions; the part that charts need.

    predictions: of val and test, before calibration.
    """

    assessment: Assessment
    predictions: Predictions

    @property
    def summary(self) -> Summary:
        """Of the test rows; of validation where there are no others."""
        summary = self.assessment.test or self.assessment.val
        assert summary is not None, "neither test nor validation rows"
        return summary

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the probabilities; of two the second is the positive one."""
        return self.summary.classes

    @property
    def binary(self) -> bool:
        """Whether there are two classes."""
        return len(self.classes) == 2

    @property
    def overall(self) -> dict[str, Stratum]:
        """All rows of `summary` by level; of validation, undecided, where there is no test."""
        strata = [s for s in self.assessment.strata if s.by == OVERALL]
        if strata:
            return {s.level: s for s in strata}
        return {IMAGE: Stratum(IMAGE, OVERALL, OVERALL, None, None, self.summary)}

    @property
    def level(self) -> str:
        """The level that a reader wants first: studies where they are known, else images."""
        return STUDY if self.binary and STUDY in self.overall else IMAGE

    @property
    def levels(self) -> list[str]:
        """All levels, the one that a reader wants first before the others."""
        return sorted(self.overall, key=lambda level: level != self.level)

    @property
    def decisions(self) -> Mapping[str, Any] | None:
        """Threshold and temperature that hold for `summary`; validation alone decides nothing."""
        return self.assessment.decisions if self.assessment.test is not None else None

    @property
    def temperature(self) -> float:
        """Divides the logits; 1 where nothing was calibrated."""
        return 1.0 if self.decisions is None else float(self.decisions["temperature"])

    @cached_property
    def rows(self) -> Predictions:
        """Rows of the split of `summary`, by path: sums of floats depend on their order."""
        return self.predictions.split(self.summary.split).by_path()

    @cached_property
    def decided(self) -> Predictions:
        """The rows behind `headline_summary`, before views are aggregated."""
        return calibrate(self.rows, self.temperature) if self.binary else self.rows

    @property
    def headline_summary(self) -> Summary:
        """The metrics that a reader wants first: of two classes at the operating point.

        Of more classes the raw ones, since temperature changes the ranking between classes.
        """
        return self.overall[self.level].summary if self.binary else self.summary

    @property
    def auc(self) -> Estimate:
        """The AUC of `headline_summary`: of the positive class of two, the macro AUC of more."""
        headline = self.headline_summary
        return headline.per_class[1].auc if self.binary else headline.metrics["macro_auc"]


@dataclass(frozen=True)
class RunContent(Evaluated):
    """All that the page of a run can show; what the folder does not hold is empty.

    name: of the folder. evaluation: name of a further evaluation of the run, "" for its own.
    run_known: whether there is a run at all; predictions of others come without one.
    baselines: predictions of the test rows by name.
    curves: one row per epoch. explained: explain.json, whose files lie in `explain_folder`.
    cited: as `compare_with_published` of `report.published` gives them.
    images: whether pixels, and names of files and patients, may appear on the page.
    repredicted: whether the predictions differ from those in the run's folder.
    redecided: whether a further evaluation decides differently than the run does.
    files: links to files of the folder, and what each holds.
    sweep: address of the page of the sweep that the run belongs to, "" where there is none.
    """

    name: str
    evaluation: str
    run_known: bool
    data: str
    notes: Sequence[str]
    baselines: Mapping[str, Predictions]
    config: Mapping[str, Any]
    fit: Mapping[str, Any]
    provenance: Mapping[str, Any]
    curves: pd.DataFrame | None
    explained: Mapping[str, Any] | None
    explain_folder: Path
    cited: Sequence[Mapping[str, str]]
    images: bool
    repredicted: bool = False
    redecided: bool = False
    files: Sequence[tuple[Link, str]] = ()
    sweep: str = ""

    @property
    def deduplicated(self) -> bool:
        """Whether images with a verified copy in a later split were left out."""
        return (self.config.get("data") or {}).get("split") == "deduplicated"

    @property
    def audit(self) -> Mapping[str, Any] | None:
        """Severity and verdict of the data's audit; None where there was none, or none is known."""
        return (self.provenance.get("data") or {}).get("audit")

    @property
    def trained_on(self) -> str:
        """The dataset that the model was trained on; "" where it is not known."""
        return str((self.fit.get("data") or {}).get("name", ""))

    @property
    def external_test(self) -> bool:
        """Whether the test is of another dataset than the model was trained on."""
        return bool(self.trained_on) and self.trained_on != self.data

    @property
    def synthetic(self) -> bool:
        """Whether the images are phantoms of fracnet's own."""
        return is_phantom(self.data)
