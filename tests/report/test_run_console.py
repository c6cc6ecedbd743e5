"""The closing tables of an evaluation: what they say, in 80 columns."""

import io

import numpy as np
import pytest
from helpers.predictions import UPPER_LIMB_COUNTS, make_table
from helpers.run_files import NOTE, two_class_table
from rich.console import Console

from fracnet.config.schema import Evaluation
from fracnet.evaluation.assessment import Assessment, assess
from fracnet.evaluation.decisions import decide
from fracnet.report.run_console import cut, print_assessment

TABLE = two_class_table()
VAL, TEST = TABLE[TABLE["split"] == "val"], TABLE[TABLE["split"] == "test"]
OPTIONS = Evaluation(resamples=100, by=["region", "view"])


def printed(found: Assessment) -> str:
    stream = io.StringIO()
    cited = [{"published": "Published accuracy: 0.890", "here": "on mura_like: 0.5"}]
    print_assessment(Console(file=stream, width=80), found, notes=[NOTE], cited=cited)
    return stream.getvalue()


@pytest.fixture(scope="module")
def two() -> str:
    return printed(assess(TABLE, OPTIONS, decide(VAL, OPTIONS), {"shortcut": TEST}))


def test_it_is_plain_ascii_within_80_columns(two: str) -> None:
    assert two.isascii()
    assert max(map(len, two.splitlines())) <= 80


def test_levels_stand_at_their_frozen_thresholds_and_regions_below(two: str) -> None:
    points = decide(VAL, OPTIONS)["operating_point"]
    lines = [line.split() for line in two.splitlines()]
    assert "abnormal above a threshold chosen on validation (youden), 95 % intervals" in two
    for level in ("image", "study", "patient"):
        row = next(line for line in lines if line[:1] == [level])
        assert row[1] == f"{points[level]['threshold']:.3f}"
    assert f"study level above {points['study']['threshold']:.3f}, by region" in two
    assert f"image level above {points['image']['threshold']:.3f}, by view" in two
    assert "By view: images only, since a study has several values of it." in two
    assert "as in MURA" in two
    assert "fracture" not in two


def test_temperature_tells_before_and_after(two: str) -> None:
    temperature = decide(VAL, OPTIONS)["temperature"]
    assert f"temperature {temperature:.3f}, fitted on {len(VAL)} validation images" in two
    assert "test before" in two
    one_class = VAL[VAL["label"] == "normal"]
    text = printed(assess(TEST, OPTIONS, decide(one_class, OPTIONS)))
    assert "Temperature scaling: not fitted: all validation images are of one class." in text
    assert "level): not chosen: validation has no positive case." in " ".join(text.split())


def test_the_order_ends_with_what_matters_most(two: str) -> None:
    parts = ("chosen on validation", "as in MURA", "temperature", "test split", "against the rest")
    parts += ("further figures", "shortcut baseline:", f"Note: {NOTE}", "Published accuracy")
    places = [two.index(part) for part in parts]
    assert places == sorted(places)


def test_without_validation_or_without_test_it_says_so() -> None:
    text = printed(assess(TEST, OPTIONS, None))
    assert "abnormal above 0.5, without validation to choose a threshold" in text
    assert "temperature" not in text
    flat = " ".join(printed(assess(VAL, OPTIONS, decide(VAL, OPTIONS))).split())
    assert "There are no test rows" in flat
    assert "so they are optimistic" in flat


def test_six_classes_have_no_thresholds() -> None:
    table = make_table(UPPER_LIMB_COUNTS, 2.0, views=2).assign(region=np.nan)
    table["study"] = table["label"] + table["patient"]
    val = make_table((9,) * 6, 2.0, split="val", seed=2)
    text = printed(assess(table, Evaluation(resamples=100), decide(val, Evaluation())))
    assert "likeliest class by level, 95 % intervals" in text
    assert "threshold" not in text
    assert "No figures by region: it is not known for any image." in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_threshold_is_not_rounded_to_nothing() -> None:
    assert [cut(t) for t in (0.4321, 0.00012, 0.9999, 0.0, 1.0, np.nextafter(0, -1))] == [
        *("0.432", "0.00012", ">0.999", "0", "1.000", "<0")
    ]


def test_a_long_name_of_a_group_breaks_no_number() -> None:
    name = "left wrist in a plaster cast, seen from the side by a portable device"
    rng = np.random.default_rng(0)
    table = TEST.assign(view=np.where(rng.random(len(TEST)) < 0.5, name, "other"))
    found = assess(table, OPTIONS, None)
    text = printed(found)
    assert max(map(len, text.splitlines())) <= 80
    of_name = next(s for s in found.strata if s.value == name).summary.per_class[1]
    for figure in (of_name.auc, of_name.sensitivity, of_name.specificity, of_name.precision):
        assert f"{figure.low:.3f}-{figure.high:.3f}" in text


def test_a_threshold_below_all_is_said_in_words() -> None:
    val = VAL.assign(prob_abnormal=0.0, prob_normal=1.0, logit_abnormal=-99.0, logit_normal=0.0)
    rule = {"sensitivity": 1.0}
    options = Evaluation(resamples=100, calibrate=False, operating_point=rule, by=["view"])
    text = printed(assess(TEST, options, decide(val, options)))
    assert "image level, everything positive, by view" in text
    assert "e-3" not in text
