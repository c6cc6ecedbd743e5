"""What a run's page and its model card are made of: the content of the run folder's files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fracnet.evaluation.aggregation import OVERALL
from fracnet.evaluation.assessment import Assessment, Stratum
from fracnet.evaluation.decisions import calibrated
from fracnet.evaluation.summary import Estimate, Summary
from fracnet.report.caveats import is_drawn

IMAGE, STUDY = "image", "study"


@dataclass(frozen=True)
class RunContent:
    """Everything that a page of figures can tell; what the folder does not hold is empty.

    name: of the folder. evaluation: name of a further evaluation of the run, "" for its own.
    run_known: whether there is a run at all; predictions of others come without one.
    table: predictions of val and test as they are, before calibration.
    baselines: predictions of the test rows by name.
    curves: a row an epoch. explained: explain.json, whose files lie in `explain_folder`.
    cited: as `report.cited.cited_pairs` gives them.
    images: whether pixels, and names of files and patients, may stand on the page.
    anew: whether the predictions are others than those in the run's folder.
    redecided: whether a further evaluation decides otherwise than the run does.
    """

    name: str
    evaluation: str
    run_known: bool
    data: str
    notes: Sequence[str]
    assessment: Assessment
    table: pd.DataFrame
    baselines: Mapping[str, pd.DataFrame]
    config: Mapping[str, Any]
    fit: Mapping[str, Any]
    provenance: Mapping[str, Any]
    curves: pd.DataFrame | None
    explained: Mapping[str, Any] | None
    explain_folder: Path
    cited: Sequence[Mapping[str, str]]
    images: bool
    anew: bool = False
    redecided: bool = False

    @property
    def shown(self) -> Summary:
        """Of the test rows; of validation where there are no others."""
        found = self.assessment.test or self.assessment.val
        assert found is not None, "neither test nor validation rows"
        return found

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the probabilities; of two the second is the positive one."""
        return self.shown.classes

    @property
    def binary(self) -> bool:
        """Whether there are two classes."""
        return len(self.classes) == 2

    @property
    def overall(self) -> dict[str, Stratum]:
        """All shown rows by level; of validation, undecided, where there are no test rows."""
        strata = [s for s in self.assessment.strata if s.by == OVERALL]
        if strata:
            return {s.level: s for s in strata}
        return {IMAGE: Stratum(IMAGE, OVERALL, OVERALL, None, None, self.shown)}

    @property
    def first(self) -> Summary:
        """The figures that a reader wants first: of two classes at the operating point.

        Of more classes as they are, since temperature changes the order of rows between classes.
        """
        return self.overall[self.level].summary if self.binary else self.shown

    @property
    def area(self) -> Estimate:
        """The AUC of `first`: of two classes the positive one's, of more the macro AUC.

        Of two classes the mean over both is another figure where probabilities round to 1: rows
        tie there in one class, which the tiny probability of the other still tells apart.
        """
        return self.first.per_class[1].auc if self.binary else self.first.metrics["macro_auc"]

    @property
    def decided(self) -> pd.DataFrame:
        """The rows that `first` is of, before views are put together."""
        return calibrated(self.rows, self.temperature) if self.binary else self.rows

    @property
    def level(self) -> str:
        """At which a reader wants figures first: of studies where they are known, else images."""
        return STUDY if self.binary and STUDY in self.overall else IMAGE

    @property
    def rows(self) -> pd.DataFrame:
        """Rows of the shown split, by path: sums of floats depend on their order."""
        return self.table[self.table["split"] == self.shown.split].sort_values("path")

    @property
    def temperature(self) -> float:
        """By which logits are divided; 1 where nothing was calibrated, or only validation is."""
        decisions = self.assessment.decisions
        if decisions is None or self.assessment.test is None:
            return 1.0
        return float(decisions["temperature"])

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
        """The data set that the model was trained on; "" where it is not known."""
        return str((self.fit.get("data") or {}).get("name", ""))

    @property
    def elsewhere(self) -> bool:
        """Whether the test is of another data set than the model was trained on."""
        return bool(self.trained_on) and self.trained_on != self.data

    @property
    def drawn(self) -> bool:
        """Whether the images are phantoms of fracnet's own."""
        return is_drawn(self.data)
