"""What validation decides: operating points, temperature, and the frozen file."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.predictions import UPPER_LIMB, draw_scores, make_table
from helpers.run_files import two_class_table
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.metrics import roc_curve

from fracnet.config.schema import Evaluation
from fracnet.evaluation.aggregation import to_level
from fracnet.evaluation.decisions import (
    DEFAULT_THRESHOLD,
    as_option,
    calibrate,
    choose_threshold,
    cut_of,
    decide,
    decide_classes,
    decide_rows,
    fit_temperature,
    least_loss_temperature,
    rows_digest,
    seal,
    temperature_gain,
    temperature_text,
    temperature_warning,
    verify_decisions,
)
from fracnet.evaluation.predictions import Predictions, assemble
from fracnet.utils.errors import UserError

TABLE = two_class_table()
VAL = TABLE[TABLE["split"] == "val"]
OPTIONS = Evaluation()


def test_calibration_comes_before_averaging_and_the_threshold() -> None:
    table = two_class_table(confident=4.0)
    val = Predictions(table[table["split"] == "val"])
    decisions = decide(val, OPTIONS)
    assert decisions["temperature"] > 1.2
    studies = to_level(calibrate(val, decisions["temperature"]), "study")
    score, case = studies.scores[:, 1], studies.targets == 1
    assert (
        decisions["operating_point"]["study"]["threshold"]
        == choose_threshold(score, case, {"youden": True}).threshold
    )
    raw = decide(val, Evaluation(calibrate=False))
    assert (raw["temperature"], raw["temperature_note"]) == (1.0, "not requested")
    assert (
        raw["operating_point"]["study"]["threshold"]
        != decisions["operating_point"]["study"]["threshold"]
    )
    assert set(decisions["operating_point"]) == {"image", "study", "patient"}
    assert len({point["threshold"] for point in decisions["operating_point"].values()}) > 1


def test_the_rule_and_the_views_make_a_difference() -> None:
    youden = decide(Predictions(VAL), OPTIONS)["operating_point"]
    for rule in ({"sensitivity": 0.95}, {"specificity": 0.95}, {"cost_ratio": 20}):
        requested = decide(Predictions(VAL), Evaluation.model_validate({"operating_point": rule}))[
            "operating_point"
        ]
        assert requested["study"]["threshold"] != youden["study"]["threshold"]
    highest = decide(Predictions(VAL), Evaluation(views="max"))["operating_point"]
    assert highest["image"] == youden["image"]
    assert highest["study"]["threshold"] > youden["study"]["threshold"]


def test_more_classes_have_no_threshold() -> None:
    decisions = decide(Predictions(draw(300, 2.5)), OPTIONS)
    assert decisions["operating_point"] is None
    assert decisions["temperature"] != 1
    with pytest.raises(UserError, match="views=max"):
        decide(Predictions(make_table((9, 9, 9), split="val")), Evaluation(views="max"))


def test_decisions_do_not_depend_on_the_order_of_rows() -> None:
    shuffled = decide(Predictions(VAL.sample(frac=1, random_state=5)), OPTIONS)
    assert json.dumps(shuffled) == json.dumps(decide(Predictions(VAL), OPTIONS))


def test_decisions_use_no_test_row() -> None:
    with pytest.raises(AssertionError, match="only validation decides"):
        decide(Predictions(TABLE), OPTIONS)


def test_intact_decisions_pass() -> None:
    stored = json.loads(json.dumps(decide(Predictions(VAL), OPTIONS)))
    verify_decisions(stored, Predictions(VAL), OPTIONS, "decisions.json")
    verify_decisions(
        stored, Predictions(VAL), Evaluation(by=["view"], resamples=100), "decisions.json"
    )


def lowered(decisions: dict[str, Any]) -> dict[str, Any]:
    decisions["operating_point"]["study"]["threshold"] -= 0.01
    return decisions


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lowered, "changed after it was written"),
        (lambda decisions: decisions | {"note": "mine"}, "changed after it was written"),
        (lambda decisions: {"temperature": 1.0}, "no decisions with a hash"),
        (lambda decisions: [], "no decisions with a hash"),
        (lambda decisions: seal(decisions | {"views": "max"}), "made with views=max"),
        (
            lambda decisions: seal(decisions | {"rule": {"sensitivity": 0.9}}),
            "rule={sensitivity: 0.9}",
        ),
    ],
)
def test_changed_decisions_are_rejected(change: Any, part: str) -> None:
    with pytest.raises(UserError, match=r"run/decisions\.json") as error:
        verify_decisions(
            change(decide(Predictions(VAL), OPTIONS)),
            Predictions(VAL),
            OPTIONS,
            "run/decisions.json",
        )
    assert part in str(error.value)


@pytest.mark.parametrize("column", ["label", "prob_normal", "logit_abnormal", "study", "path"])
def test_decisions_of_other_rows_are_rejected(column: str) -> None:
    other = VAL.copy()
    held = other[column].iloc[0]
    changed = np.nextafter(held, 2) if isinstance(held, float) else f"{held}x"
    other[column] = [changed, *other[column].iloc[1:]]
    with pytest.raises(UserError, match="other validation rows"):
        verify_decisions(
            decide(Predictions(VAL), OPTIONS), Predictions.trusted(other), OPTIONS, "decisions.json"
        )
    assert rows_digest(Predictions(VAL.sample(frac=1, random_state=1))) == rows_digest(
        Predictions(VAL)
    )


def test_rules_are_stored_as_typed() -> None:
    assert as_option({"youden": True}) == "youden"
    assert as_option({"sensitivity": 0.9}) == "{sensitivity: 0.9}"
    assert (as_option(True), as_option("mean")) == ("true", "mean")


RULES: list[dict[str, Any]] = [
    {"youden": True},
    {"sensitivity": 0.9},
    {"specificity": 0.8},
    {"cost_ratio": 5.0},
]


def rates(score: np.ndarray, case: np.ndarray, threshold: float) -> tuple[float, float]:
    positive = score > threshold
    return float(positive[case].mean()), float((~positive[~case]).mean())


def loss(rule: dict[str, Any], sensitivity: float, specificity: float, case: np.ndarray) -> float:
    """What a rule wants little of; infinite where it is not met."""
    ((name, required),) = rule.items()
    if name == "youden":
        return -sensitivity - specificity
    if name == "sensitivity":
        return -specificity if sensitivity >= required - 1e-12 else np.inf
    if name == "specificity":
        return -sensitivity if specificity >= required - 1e-12 else np.inf
    return required * (1 - sensitivity) * case.sum() + (1 - specificity) * (~case).sum()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: next(iter(rule)))
@pytest.mark.parametrize("seed", range(6))
def test_no_other_threshold_is_better(rule: dict[str, Any], seed: int) -> None:
    rng = np.random.default_rng(seed)
    case = rng.random(60) < 0.4
    score = np.round(1 / (1 + np.exp(-rng.normal(size=60) - case)), 2 if seed % 2 else 12)
    point = choose_threshold(score, case, rule)
    achieved = rates(score, case, point.log_odds)
    assert (point.sensitivity, point.specificity) == pytest.approx(achieved)
    everything = np.concatenate([[-1.0, 2.0], score, score - 1e-9, score + 1e-9])
    best = min(loss(rule, *rates(score, case, t), case) for t in everything)
    assert loss(rule, *achieved, case) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(4))
def test_youdens_point_matches_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    case = rng.random(80) < 0.5
    score = rng.random(80) * 0.6 + 0.3 * case
    false, true, _ = roc_curve(case, score, drop_intermediate=False)
    point = choose_threshold(score, case, {"youden": True})
    assert point.sensitivity is not None
    assert point.specificity is not None
    assert point.sensitivity + point.specificity - 1 == pytest.approx((true - false).max())


def test_thresholds_lie_halfway_between_scores() -> None:
    score = np.array([0.1, 0.2, 0.4, 0.6, 0.8])
    case = np.array([False, False, True, False, True])
    assert choose_threshold(score, case, {"youden": True}).log_odds == pytest.approx(0.3)
    assert choose_threshold(score, case, {"specificity": 1.0}).log_odds == pytest.approx(0.7)
    assert choose_threshold(score, case, {"cost_ratio": 0.1}).log_odds == pytest.approx(0.7)
    assert choose_threshold(score, case, {"cost_ratio": 10.0}).log_odds == pytest.approx(0.3)


def test_a_score_equal_to_the_threshold_is_negative() -> None:
    score = np.array([[0, 0.5], [0, np.nextafter(0.5, 1)]])
    assert decide_classes(np.zeros((2, 2)), 0.5, score).tolist() == [0, 1]


def test_ties_go_to_the_most_sensitive_point() -> None:
    # Both 0.15 and 0.35 give sensitivity + specificity = 1.5.
    score, case = np.array([0.1, 0.2, 0.3, 0.4]), np.array([False, True, False, True])
    point = choose_threshold(score, case, {"youden": True})
    assert (point.sensitivity, point.specificity) == (1.0, 0.5)
    assert point.log_odds == pytest.approx(0.15)


def test_a_requested_share_of_whole_rows_is_met_despite_rounding() -> None:
    case = np.array([True] * 10 + [False] * 10)
    score = np.concatenate([np.linspace(0.1, 1.0, 10), np.linspace(0.05, 0.5, 10)])
    assert choose_threshold(score, case, {"sensitivity": 0.7}).sensitivity == 0.7
    assert choose_threshold(score, case, {"sensitivity": 0.9}).sensitivity == 0.9


def test_a_target_that_only_a_trivial_rule_reaches_is_noted() -> None:
    score, case = np.array([0.1, 0.9, 0.8, 0.7]), np.array([True, True, False, False])
    everything = choose_threshold(score, case, {"sensitivity": 1.0})
    assert (everything.sensitivity, everything.specificity) == (1.0, 0.0)
    assert "predicting positive for every case" in everything.note
    assert rates(score, case, everything.log_odds) == (1.0, 0.0)
    backwards = choose_threshold(np.array([0.1, 0.2, 0.8, 1.0]), case, {"specificity": 1.0})
    assert "predicting negative for every case" in backwards.note
    assert backwards.specificity == 1.0


def test_scores_of_zero_and_one_and_neighboring_doubles_are_distinguished() -> None:
    case = np.array([True, False])
    low = choose_threshold(np.array([0.0, 1.0]), case, {"sensitivity": 1.0})
    assert rates(np.array([0.0, 1.0]), case, low.log_odds) == (1.0, 0.0)
    near = np.array([np.nextafter(0.3, 1), 0.3])
    assert rates(near, case, choose_threshold(near, case, {"youden": True}).log_odds) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("case", "missing"), [([True, True], "negative"), ([False] * 2, "positive")]
)
def test_a_single_class_gives_no_threshold(case: list[bool], missing: str) -> None:
    point = choose_threshold(np.array([0.2, 0.7]), np.array(case), {"youden": True})
    assert point.threshold == DEFAULT_THRESHOLD
    assert point.sensitivity is None
    assert f"no {missing} case" in point.note


def test_few_cases_are_noted() -> None:
    score, case = np.linspace(0, 1, 40), np.arange(40) > 33
    assert (
        "6 positive and 34 negative cases: too few" in choose_threshold(score, case, RULES[0]).note
    )
    assert choose_threshold(score, np.arange(40) > 20, RULES[0]).note == ""


@pytest.mark.parametrize("scale", [60.0, 3000.0])
def test_probabilities_that_round_to_0_or_1_still_have_a_threshold(scale: float) -> None:
    """The same decisions as with logits that no probability rounds."""
    moderate = Predictions(VAL).logits + np.array([0.0, 2.0])
    options = Evaluation.model_validate(
        {"calibrate": False, "operating_point": {"specificity": 0.9}}
    )
    rows = VAL.drop(columns=[c for c in VAL if str(c).startswith(("prob_", "logit_"))])
    small, large = (
        Predictions(assemble(rows, ("normal", "abnormal"), factor * moderate))
        for factor in (1.0, scale)
    )
    assert (large.probabilities[:, 1] == 1).sum() > 20
    chosen = decide(large, options)
    point = chosen["operating_point"]["image"]
    expected = decide(small, options)["operating_point"]["image"]
    assert point["log_odds"] == pytest.approx(scale * expected["log_odds"])
    assert point["threshold"] == 1.0
    assert "in log-odds, where probabilities round to 1" in point["note"]
    for level, views in (("image", "mean"), ("study", "mean"), ("study", "max")):
        options = options.model_copy(update={"views": views})
        decisions = json.loads(json.dumps(decide(large, options)))
        units = to_level(large, level, views)
        positive = decide_rows(units, cut_of(decisions, level)) == 1
        case, point = units.targets == 1, decisions["operating_point"][level]
        assert positive[case].mean() == point["sensitivity"] > 0
        assert (~positive[~case]).mean() == point["specificity"]
        assert 0.9 <= point["specificity"] < 1


def draw(n: int, true: float, seed: int = 0) -> pd.DataFrame:
    """Labels drawn from the model's own probabilities at temperature `true`."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, 6)) * 4
    noise = rng.gumbel(size=scores.shape)
    target = np.argmax(scores / true + noise, axis=1)
    rows = pd.DataFrame({"path": [f"{i}" for i in range(n)], "split": "val"})
    return assemble(rows.assign(label=np.array(UPPER_LIMB)[target]), UPPER_LIMB, scores)


def log_loss(table: pd.DataFrame, temperature: float) -> float:
    scores = log_softmax(Predictions(table).logits / temperature, axis=1)
    return float(-scores[np.arange(len(table)), Predictions(table).targets].mean())


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_the_temperature_of_simulated_labels_is_recovered(true: float) -> None:
    val = Predictions(draw(20_000, true))
    temperature, note = fit_temperature(val)
    assert temperature == pytest.approx(true, rel=0.05)
    assert bool(note) == (true == 1.0)
    assert least_loss_temperature(val.logits, val.targets)[0] == pytest.approx(true, rel=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_the_temperature_minimizes_the_log_loss(seed: int) -> None:
    table = make_table((20, 30, 25), 1.0, seed=seed, split="val")
    best = minimize_scalar(
        lambda log: log_loss(table, float(np.exp(log))), bounds=(-4, 4), method="bounded"
    )
    val = Predictions(table)
    temperature, _ = least_loss_temperature(val.logits, val.targets)
    assert log_loss(table, temperature) <= best.fun + 1e-12
    assert temperature == pytest.approx(np.exp(best.x), rel=1e-3)


def test_scaling_keeps_the_predicted_class_and_a_temperature_of_one_changes_nothing() -> None:
    table = make_table((20, 30, 25), 1.0)
    for temperature in (0.3, 4.0):
        calibrated = calibrate(Predictions(table), temperature).probabilities
        assert (calibrated.argmax(axis=1) == Predictions(table).probabilities.argmax(axis=1)).all()
        assert calibrated.sum(axis=1) == pytest.approx(1)
    predictions = Predictions(table)
    assert calibrate(predictions, 1.0) is predictions


def test_log_probabilities_replace_missing_logits() -> None:
    table = make_table((20, 30, 25), 1.0, split="val")
    bare = table.drop(columns=[c for c in table if c.startswith("logit_")])
    without, full = (
        least_loss_temperature(val.logits, val.targets)[0]
        for val in map(Predictions, (bare, table))
    )
    assert without == pytest.approx(full, rel=1e-9)
    calibrated = calibrate(Predictions(bare), 1.7).probabilities
    assert calibrated == pytest.approx(calibrate(Predictions(table), 1.7).probabilities)
    zero = bare.assign(prob_elbow=0.0, prob_fingers=1.0, prob_forearm=0.0)
    assert np.isfinite(Predictions(zero).logits).all()


def test_an_undefined_temperature_is_one_with_a_note() -> None:
    right = make_table((10, 10), 60.0, split="val")
    one_class = make_table((10, 0), 1.0, split="val")
    rng = np.random.default_rng(0)
    target = np.repeat([0, 1], 20)
    backwards = assemble(
        one_class.iloc[:1]
        .loc[[0] * 40, ["path", "split"]]
        .assign(label=np.array(UPPER_LIMB)[target], path=[f"{i}.png" for i in range(40)]),
        UPPER_LIMB[:2],
        -draw_scores(rng, target, 2, 3.0),
    )
    for table, why in ((right, "right"), (one_class, "one class"), (backwards, "do not rise with")):
        temperature, note = fit_temperature(Predictions(table))
        assert temperature == 1
        assert why in note


def test_a_temperature_without_a_cross_validated_gain_is_not_applied() -> None:
    identity = 0
    for seed in range(20):
        temperature, note = fit_temperature(Predictions(make_table((30, 30), 1.0, seed=seed)))
        identity += temperature == 1
        assert (temperature == 1) == ("no gain in log loss" in note)
    assert identity >= 16  # scores of unit variance, 1 apart, are calibrated as they are
    table = make_table((60, 60, 60), 1.0)
    rows = table.drop(columns=[c for c in table if str(c).startswith(("prob_", "logit_"))])
    logits = 6 * Predictions(table).logits
    confident = Predictions(assemble(rows, UPPER_LIMB[:3], logits))
    gain, error = temperature_gain(confident)
    assert gain > 3 * error > 0
    temperature, note = fit_temperature(confident)
    assert (temperature > 4, note) == (True, "")
    repeated = rows.assign(patient=[f"p{i // 20}" for i in range(len(rows))])
    clustered = Predictions(assemble(repeated, UPPER_LIMB[:3], logits))
    assert temperature_gain(clustered)[1] != error
    alone = Predictions(assemble(rows.assign(patient="p"), UPPER_LIMB[:3], logits))
    assert fit_temperature(alone)[1].startswith("not applied")


def test_an_extreme_temperature_is_named() -> None:
    assert not any(temperature_warning(t) for t in (0.25, 1.0, 4.0))
    assert "temperature of 1.27e-05 is extreme" in temperature_warning(1.27e-5)


def test_a_temperature_has_one_text_which_is_never_zero() -> None:
    texts = {1.27e-5: "1.27e-05", 0.0138: "0.014", 1.4382: "1.438", 711.3: "711", 4094.4: "4094"}
    assert {t: temperature_text(t) for t in texts} == texts
    assert "711 is extreme" in temperature_warning(711.2)
    assert "far too cautious" in temperature_warning(0.1)


def test_validation_of_single_folds_decides_nothing_for_their_mean() -> None:
    decisions = decide(Predictions(VAL), OPTIONS, out_of_fold=True)
    assert decisions["temperature"] == 1
    assert "single models" in decisions["temperature_note"]
    for point in decisions["operating_point"].values():
        assert (point["threshold"], point["sensitivity"]) == (0.5, None)
        assert "single models" in point["note"]
