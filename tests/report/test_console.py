import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from helpers.predictions import UPPER_LIMB, UPPER_LIMB_COUNTS, make_table
from rich.console import Console

from fracnet.evaluation.baselines import majority
from fracnet.evaluation.summary import Summary, summarize
from fracnet.report.console import RESEARCH_ONLY, print_sentences, print_tables, verdict


def printed(
    model: Summary,
    width: int = 80,
    shortcut: Summary | None = None,
    majority: Summary | None = None,
    notes: Sequence[str] = (),
) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width)
    print_tables(console, model, shortcut=shortcut, majority=majority)
    print_sentences(console, model, shortcut=shortcut, notes=notes)
    return stream.getvalue()


def line(text: str, start: str) -> list[str]:
    """Words of the first line that starts with these words."""
    return next(row.split() for row in text.splitlines() if row.strip().startswith(start))


MODEL = summarize(make_table(UPPER_LIMB_COUNTS, 2.5))
WEAK = summarize(make_table(UPPER_LIMB_COUNTS, 0.5))


def test_the_overall_table_sets_the_model_beside_both_baselines() -> None:
    table = make_table(UPPER_LIMB_COUNTS, 2.5)
    base = summarize(majority(np.array([0, 1, 1, 2, 3, 4, 5]), table.iloc[:, :5], UPPER_LIMB))
    text = printed(MODEL, shortcut=WEAK, majority=base)
    ours, weak = MODEL.metrics["macro_auc"], WEAK.metrics["macro_auc"]
    assert line(text, "macro AUC")[2:] == [
        f"{ours.value:.3f}",
        f"{ours.low:.3f}-{ours.high:.3f}",
        f"{weak.value:.3f}",
        f"{weak.low:.3f}-{weak.high:.3f}",
        "0.500",
    ]
    assert line(text, "accuracy")[-1] == f"{22 / 83:.3f}"
    for title in ("balanced accuracy", "macro sensitivity", "macro specificity"):
        assert title in text


@pytest.mark.parametrize("width", [80, 120])
def test_it_is_plain_ascii_within_the_width(width: int) -> None:
    text = printed(MODEL, width, shortcut=WEAK, notes=["The license is [not] clear :warning:."])
    assert text.isascii()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= width
    assert "Note: The license is [not] clear :warning:." in text
    assert text.rstrip().endswith(RESEARCH_ONLY)


def test_each_class_has_its_count_and_too_few_stands_under_its_figures() -> None:
    text = printed(MODEL)
    row = MODEL.per_class[5]
    assert line(text, "wrist")[1:4] == [
        "6",
        f"{row.sensitivity.value:.3f}",
        f"{row.sensitivity.low:.3f}-{row.sensitivity.high:.3f}",
    ]
    after = text.splitlines()[next(i for i, r in enumerate(text.splitlines()) if "wrist" in r) + 1]
    assert after.split() == ["too", "few", "too", "few"]
    assert "too few: under 10 cases" in text


def test_undefined_figures_are_not_available_with_the_reason() -> None:
    text = printed(summarize(make_table((12, 0, 12), 60.0)))
    assert line(text, "fingers")[1:3] == ["0", "n/a"]
    assert "sensitivity of fingers, AUC of fingers: undefined: no cases." in text
    assert "no interval" in text
    assert "degenerate: the AUC is 1." in text
    assert "2 of 3 classes scored." in text.replace("\n", " ")
    assert "nan" not in text


def test_the_basis_names_n_the_unit_and_the_methods() -> None:
    text = " ".join(printed(summarize(make_table((60, 60), 1.0, views=3))).split())
    assert "n = 120 images in 40 clusters (patient); 95 % intervals by patient" in text
    assert "Wilson with effective n" in text
    assert "Obuchowski" in text
    assert "n = 83 images; 95 % intervals by image" in " ".join(printed(MODEL).split())


def test_the_further_figures_stand_in_a_table_of_their_own_with_their_methods() -> None:
    text = printed(MODEL, shortcut=WEAK)
    assert "further figures; Brier score from 0 (perfect) to 2" in text
    kappa = MODEL.metrics["kappa"]
    assert line(text, "Cohen's kappa")[2:4] == [
        f"{kappa.value:.3f}",
        f"{kappa.low:.3f}-{kappa.high:.3f}",
    ]
    for title in ("macro precision", "macro F1", "MCC", "macro AUC-PR", "log loss"):
        assert title in text
    flat = " ".join(text.split())
    assert "Calibration error: top-label, 15 equal-mass bins, debiased" in flat
    assert f"MCC: {MODEL.metrics['mcc'].method.removesuffix(' by image')}" in flat
    two = printed(summarize(make_table((30, 30), 1.0, classes=("normal", "abnormal"))))
    assert "Brier score from 0 (perfect) to 1" in two
    assert "test split, 60 images, abnormal above 0.5, 95 % intervals" in two


def test_the_verdict_follows_the_lower_bound() -> None:
    low = MODEL.metrics["accuracy"].low
    assert low is not None
    assert low > WEAK.metrics["accuracy"].value
    assert "does better than" in verdict(MODEL, WEAK)
    assert "not shown to do better than" in verdict(WEAK, MODEL)
    # A better value alone shows nothing.
    ours = replace(MODEL.metrics["accuracy"], value=0.9, low=0.8)
    for theirs, said in ((0.79, "does better"), (0.8, "not shown"), (0.85, "not shown")):
        model = replace(MODEL, metrics={"accuracy": ours})
        other = replace(WEAK, metrics={"accuracy": replace(ours, value=theirs)})
        assert said in verdict(model, other)


def test_long_names_and_large_counts_stay_whole() -> None:
    name = "supracondylar fracture of the humerus [displaced]"
    text = printed(summarize(make_table((1600, 1597), 1.0, classes=("none", name))))
    joined = "".join(row[:16].strip() for row in text.splitlines())
    for word in ("supracondylar", "fracture", "humerus", "[displaced]"):
        assert word in joined
    assert "1597" in text
    assert max(map(len, text.splitlines())) <= 80


def test_one_image_is_no_images() -> None:
    text = printed(summarize(make_table((1, 0), classes=("normal", "abnormal"))))
    assert "test split, 1 image, abnormal above 0.5" in text
    assert "n = 1 image; 95 % intervals by image" in text
    assert "calibration error: undefined: there is only one row." in text
    assert "come from one image" not in text
