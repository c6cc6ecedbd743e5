"""What a model may be used for, and what its figures do not say: for page and model card."""

from collections.abc import Sequence
from dataclasses import dataclass

from fracnet.report.run_content import RunContent
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
    if "abnormal" in content.classes:
        limits.append("Abnormal is what the data set calls so, which is not the same as fractured.")
    if "image" in shown.unit:
        limits.append(
            "Patients are not known for all images, which then count as independent: intervals "
            "may be too narrow, and copies of one patient in two splits cannot be ruled out."
        )
    if content.binary:
        limits.append(
            f"Threshold and temperature were chosen on validation for the share of "
            f"{content.classes[1]} there; another share calls for others."
        )
    if content.assessment.test is None:
        limits.append("There is no test: all figures are those of the rows that chose the model.")
    limits.append(
        "Labels are taken as true. Age, sex and machine are not known here, so neither is whether "
        "the model treats them alike."
    )
    return limits
