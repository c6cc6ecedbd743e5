"""What a model may be used for, and what its figures do not say: for page and model card."""

from collections.abc import Sequence
from dataclasses import dataclass

from fracnet.report.run_content import RunContent
from fracnet.report.study_data import ABNORMAL
from fracnet.words import counted


@dataclass(frozen=True)
class Use:
    """Sentences: what it is for, what it is not for, and the limits of the figures."""

    intended: Sequence[str]
    not_intended: Sequence[str]
    limits: Sequence[str]


def limits_of_use(content: RunContent) -> Use:
    """What the files of the run allow to say, and no more."""
    classes = ", ".join(content.classes)
    intended = [
        f"Research on classifying radiographs as {classes}, and on the methods that do it.",
        "Comparison with other models on the same images.",
    ]
    not_intended = [
        "Diagnosis, triage or any other decision on a patient: it is no medical device, and no "
        "study of its use by people has been made.",
        "Images unlike those it was trained on: other body parts, other projections, photographs "
        "of screens.",
    ]
    return Use(intended, not_intended, _limits(content))


def _limits(content: RunContent) -> list[str]:
    shown = content.shown
    limits = []
    if content.drawn:
        limits.append("The images are phantoms: nothing is known of real radiographs.")
    limits.append(
        f"The figures hold for {counted(shown.n, 'image')} of {content.data}; other hospitals, "
        "machines and patients may give others."
    )
    # Where abnormal images are drawn, the data set's own note says what is drawn in them.
    if "abnormal" in content.classes and not content.drawn:
        limits.append(ABNORMAL)
    if "image" in shown.unit:
        limits.append(
            "Patients are not known for all images, which then count as independent: intervals "
            "may be too narrow, and copies of one patient in two splits cannot be ruled out."
        )
    if content.binary:
        limits.append(_chosen(content))
    if content.assessment.test is None:
        limits.append("There is no test: all figures are those of the rows that chose the model.")
    limits.append(
        "Labels are taken as true. Age, sex and machine are not known here, so neither is whether "
        "the model treats them alike."
    )
    return limits


def _chosen(content: RunContent) -> str:
    """What validation has chosen of threshold and temperature, if anything."""
    decisions = content.assessment.decisions or {}
    points = decisions.get("operating") or {}
    # A point without rates was not chosen: validation lacks a class.
    chosen = ["threshold"] if any(p["sensitivity"] is not None for p in points.values()) else []
    if decisions.get("calibrate") and not decisions.get("temperature_note"):
        chosen.append("temperature")
    positive, whole = content.classes[1], ""
    if "threshold" not in chosen:
        whole = f"The threshold is 0.5: validation has not chosen one for the share of {positive}."
    if chosen:
        verb, other = ("was", "another") if len(chosen) == 1 else ("were", "others")
        words = " and ".join(chosen)
        whole += (
            f" {words[0].upper()}{words[1:]} {verb} chosen on validation for the share of "
            f"{positive} there; another share calls for {other}."
        )
    return whole.strip()
