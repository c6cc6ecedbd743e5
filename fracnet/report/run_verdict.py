"""The verdict on a run in words: what is shown, by which figure, and what stands against it.

One function decides. Each rule looks at one thing; the gravest gives the headline.
"""

from dataclasses import dataclass

from fracnet.report import run_rules as rules
from fracnet.report.run_against import Against
from fracnet.report.run_content import RunContent
from fracnet.report.run_maps import of_maps
from fracnet.report.study_data import SEVERITIES

TAGS = {
    "ok": "no fault found",
    "hint": "worth knowing",
    "warning": "with care",
    "leak": "leak",
    "error": "fault",
}


@dataclass(frozen=True)
class Verdict:
    """The worst severity, the headline, and the sentences behind it, in the order of reading."""

    severity: str
    headline: str
    sentences: tuple[str, ...]

    @property
    def tag(self) -> str:
        """The severity in a reader's words."""
        return TAGS[self.severity]


def verdict(content: RunContent, found: Against) -> Verdict:
    """What the run shows.

    A leak or fault of the data comes before any figure, then figures that stand on no test, then
    chance, then shortcuts. What only limits a good result is said, and takes "no fault found" away.
    """
    said = [
        *rules.without_test(content),
        *rules.of_ability(content, found),
        *rules.of_threshold(content),
        *rules.of_majority(content),
        *rules.of_few(content),
        *rules.of_calibration(content),
        *of_maps(content),
        *rules.of_data(content),
    ]
    worst = max((one.severity for one in said), key=SEVERITIES.index)
    heads = sorted(
        (one for one in said if one.headline), key=lambda one: -SEVERITIES.index(one.severity)
    )
    # First what the headline rests on.
    ordered = sorted(said, key=lambda one: one is not heads[0])
    return Verdict(worst, heads[0].headline, tuple(one.sentence for one in ordered))
