"""The verdict claims what the test shows and no more: chance, shortcuts, leaks, few cases."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.predictions import make_table
from helpers.reports import content_of, six_class_content, two_class_content
from helpers.run_files import two_class_table, write_run

from fracnet.evaluation.comparison import BETTER, WORSE
from fracnet.evaluation.metric_selection import Metric
from fracnet.evaluation.predictions import Predictions, assemble
from fracnet.evaluation.summary import NOT_FROM_0, Estimate
from fracnet.report.model_card import model_card_text
from fracnet.report.run_charts import roc_figure
from fracnet.report.run_content import RunContent
from fracnet.report.run_tables import level_table, overall_table
from fracnet.report.verdict import (
    Verdict,
    calibration_statements,
    compare_with_baseline,
    majority_statements,
    paired_difference,
    run_verdict,
)


def verdict_of(content: RunContent) -> Verdict:
    return run_verdict(content)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> RunContent:
    """A clear difference between the classes, at 60 patients."""
    table = two_class_table(60, 60, shift=0.0, confident=3.0)
    return two_class_content(tmp_path_factory.mktemp("good") / "run", table)


def with_audit(content: RunContent, severity: str, split: str = "official") -> RunContent:
    audit = {"severity": severity, "verdict": f"It is a {severity}."}
    config = {**content.config, "data": {"split": split}}
    return replace(content, provenance={"data": {"audit": audit}}, config=config)


def test_a_good_model_beats_chance_and_shortcuts(good: RunContent) -> None:
    verdict = verdict_of(with_audit(good, "ok"))
    assert verdict.headline == (
        "The model separates abnormal from normal studies better than chance and better than the "
        "shortcut baseline."
    )
    area = good.overall["study"].summary.metrics["macro_auc"]
    assert f"AUC {area.value:.3f} ({area.low:.3f}-{area.high:.3f})" in verdict.sentences[0]
    assert "the difference is +" in verdict.sentences[0]


def test_a_leak_comes_before_any_metric(good: RunContent) -> None:
    verdict = verdict_of(with_audit(good, "leak"))
    assert verdict.severity == "leak"
    assert verdict.headline.startswith("These metrics are too good")
    assert verdict.sentences[0] == "Data audit: It is a leak."
    without = verdict_of(with_audit(good, "leak", "deduplicated"))
    assert without.severity != "leak"
    assert "left out here" in " ".join(without.sentences)


def test_a_missing_audit_is_stated_and_rules_out_no_fault_found(good: RunContent) -> None:
    assert "have not been audited" in " ".join(verdict_of(good).sentences)
    assert verdict_of(good).tag != "no fault found"
    other_content = replace(good, run_known=False)
    assert "The training data of this model are unknown" in " ".join(
        verdict_of(other_content).sentences
    )


def test_chance_level_is_not_a_success(tmp_path: Path) -> None:
    table = two_class_table(40, 40)
    logits = table[["logit_normal", "logit_abnormal"]].to_numpy()
    rows = table.drop(columns=[c for c in table if c.startswith(("logit", "prob"))])
    mixed = pd.concat(
        [
            assemble(part, ("normal", "abnormal"), logits[part.index][::-1])
            for _, part in rows.groupby("split", sort=False)
        ]
    ).reset_index(drop=True)
    verdict = verdict_of(two_class_content(tmp_path / "run", mixed))
    assert verdict.headline == "The model is not shown to do better than chance."
    assert verdict.severity == "warning"


def test_worse_than_chance_is_an_error(tmp_path: Path) -> None:
    table = two_class_table(60, 60, shift=0.0, confident=-3.0)
    verdict = verdict_of(two_class_content(tmp_path / "run", table))
    assert verdict.severity == "error"
    assert "worse than chance" in verdict.headline


@pytest.mark.parametrize(
    ("baseline", "headline"),
    [
        (
            "same",
            "The model is not shown to do better than a shortcut baseline that never sees anatomy.",
        ),
        ("none", "The model separates abnormal from normal studies better than chance."),
        ("truth", "A shortcut baseline that never sees anatomy does better than the model."),
    ],
)
def test_the_model_is_compared_with_shortcuts(
    good: RunContent, baseline: str, headline: str
) -> None:
    test = good.predictions.split("test").table
    case = (test["label"] == "abnormal") * 1.0
    perfect = test.assign(prob_abnormal=0.1 + 0.8 * case, prob_normal=0.9 - 0.8 * case)
    perfect = perfect.drop(columns=["logit_normal", "logit_abnormal"])
    tables = {"same": {"shortcut": test}, "none": {}, "truth": {"shortcut": perfect}}[baseline]
    baselines = {name: Predictions(table) for name, table in tables.items()}
    verdict = verdict_of(replace(good, baselines=baselines))
    assert verdict.headline == headline
    assert verdict.tag != "no fault found"


def test_of_two_equally_good_models_neither_is_called_better() -> None:
    """In 5 % of draws at most, up to chance: half of the two-sided errors are in its favor."""
    rng, better, draws = np.random.default_rng(0), 0, 400
    target = np.arange(80) % 2
    rows = pd.DataFrame({"path": [f"{i}" for i in range(80)], "split": "test"})
    rows = rows.assign(label=np.array(["normal", "abnormal"])[target])
    for _ in range(draws):
        shared = rng.normal(size=(80, 2))
        model, baseline = (
            Predictions(assemble(rows, ("normal", "abnormal"), scores))
            for scores in shared + rng.normal(size=(2, 80, 2)) + np.eye(2)[target]
        )
        difference = paired_difference(Metric("auc", 2, 1, "abnormal"), model, baseline)
        better += difference.verdict == BETTER
    assert better / draws <= 0.05


def test_without_a_test_split_performance_is_unknown(good: RunContent) -> None:
    assessment = replace(good.assessment, test=None, strata=())
    verdict = verdict_of(replace(good, assessment=assessment))
    assert verdict.headline == "It is unknown how well the model does on new images."
    assert "optimistic" in verdict.sentences[0]


def test_an_accuracy_no_better_than_a_constant_prediction_is_stated(tmp_path: Path) -> None:
    table = two_class_table(40, 40, shift=-9.0)  # all predicted normal at 0.5
    verdict = verdict_of(two_class_content(tmp_path / "run", table))
    (sentence,) = [sentence for sentence in verdict.sentences if "always predicting" in sentence]
    assert sentence.startswith(
        "The image-level accuracy (predicted abnormal above a probability of 0.5) is 0."
    )
    assert "always predicting normal" in sentence


def test_an_accuracy_is_compared_with_a_constant_prediction_by_pairs(good: RunContent) -> None:
    """The lower limit of the accuracy against a point says "better" too often."""
    test = good.predictions.split("test")
    normal = Predictions(
        test.table.drop(columns=["logit_normal", "logit_abnormal"]).assign(
            prob_normal=0.9, prob_abnormal=0.1
        )
    )
    comparison = compare_with_baseline(replace(good, baselines={"majority": normal}))
    difference = comparison.majority_difference
    assert difference is not None
    right = (test.table["prob_abnormal"] > 0.5) == (test.table["label"] == "abnormal")
    share = (test.table["label"] == "normal").mean()
    assert difference.value == pytest.approx(right.mean() - share)
    itself = compare_with_baseline(replace(good, baselines={"majority": test}))
    assert itself.majority_difference is not None
    assert itself.majority_difference.verdict not in (BETTER, WORSE)


def test_an_interval_that_the_test_does_not_confirm_comes_with_its_p(good: RunContent) -> None:
    comparison = compare_with_baseline(good)
    assert comparison.majority_difference is not None
    pair = replace(comparison.majority_difference, value=0.1, low=0.01, high=0.19, p=0.074)
    undecided = replace(comparison, majority_difference=replace(pair, verdict=None))
    (statement,) = majority_statements(good, undecided)
    assert "+0.100 (+0.010 to +0.190, but p = 0.074)." in statement.sentence


def test_few_cases_are_named(tmp_path: Path) -> None:
    verdict = verdict_of(six_class_content(tmp_path / "run"))
    assert "Fewer than 10 cases: wrist 8." in " ".join(verdict.sentences)
    assert "separates its 6 classes" in verdict.headline


@pytest.mark.parametrize(
    ("confident", "patients", "cases"),
    [
        (4.0, ["a", "b", "c"], "3 abnormal cases"),
        (-4.0, ["a", "b", "c"], "3 abnormal cases"),
        (4.0, ["a", "b"] * 3, "6 abnormal cases of 2 patients"),
    ],
)
def test_few_independent_cases_tell_nothing_about_chance(
    tmp_path: Path, confident: float, patients: list[str], cases: str
) -> None:
    table = two_class_table(40, 40, confident=confident)
    rare = (table["split"] == "test") & (table["label"] == "abnormal")
    studies = table[rare].sort_values("prob_abnormal", ascending=confident < 0)
    kept = studies.drop_duplicates("study").head(len(patients)).assign(patient=patients)
    table = pd.concat([table[~rare], kept], ignore_index=True)
    content = two_class_content(tmp_path / "run", table)
    area = content.auc
    assert area.low is not None
    assert area.high is not None
    assert not area.low <= 0.5 <= area.high, "its interval alone would claim it"
    verdict = verdict_of(content)
    assert (
        verdict.headline
        == f"{cases} are too few to tell whether the model does better than chance."
    )
    assert verdict.severity == "warning"


@pytest.mark.parametrize(
    ("separation", "seed", "headline"),
    [
        (0.0, 8, "2 forearm cases are too few to tell whether the model does better than chance."),
        (2.5, 1, "The model separates its 3 classes better than chance"),
    ],
)
def test_a_rare_class_of_several_decides_only_where_the_others_do_not_suffice(
    separation: float, seed: int, headline: str, tmp_path: Path
) -> None:
    val = make_table((60, 60, 12), separation, seed=99, split="val")
    test = make_table((60, 60, 2), separation, seed=seed)
    table = pd.concat([val, test], ignore_index=True).assign(region=None)
    content = content_of(write_run(tmp_path / "run", table))
    assert content.auc.low is not None
    assert content.auc.low > 0.5, "its interval alone would claim it"
    assert verdict_of(content).headline.startswith(headline)


def test_classes_without_cases_and_never_predicted_ones_are_not_claimed(tmp_path: Path) -> None:
    val, test = (
        make_table((30, 30, 30), 2.5, seed=n, split=s) for n, s in enumerate(("val", "test"))
    )
    test.loc[test["label"] == "forearm", "label"] = "fingers"
    score = [c for c in test if c.startswith(("prob_", "logit_"))]
    names = [c.removeprefix("prob_") for c in score if c.startswith("prob_")]
    logits = test[[f"logit_{name}" for name in names]].to_numpy(copy=True)
    logits[:, names.index("elbow")] = -1000
    table = pd.concat([val, assemble(test.drop(columns=score), names, logits)], ignore_index=True)
    verdict = verdict_of(content_of(write_run(tmp_path / "run", table.assign(region=None))))
    assert "separates 2 of its 3 classes" in verdict.headline
    assert "Never predicted: elbow (30 cases)." in verdict.sentences


def test_an_undefined_auc_is_not_a_failure(tmp_path: Path) -> None:
    table = two_class_table(40, 40)
    table = table[(table["split"] == "val") | (table["label"] == "normal")]
    verdict = verdict_of(two_class_content(tmp_path / "run", table.reset_index(drop=True)))
    assert verdict.headline == "These rows cannot show whether the model works."


def test_a_drop_at_the_threshold_is_stated_only_if_it_is_significant(good: RunContent) -> None:
    """Both intervals count: many validation rows show a drop, few do not."""

    def sentences_for(n: int) -> str:
        decisions: dict[str, Any] = json.loads(json.dumps(good.assessment.decisions))
        point = decisions["operating_point"]["study"]
        sensitivity = good.overall["study"].summary.per_class[1].sensitivity
        assert sensitivity.high is not None
        point |= {"sensitivity": min(1.0, sensitivity.high + 0.02), "n": 2 * n, "positives": n}
        changed = replace(good.assessment, decisions=decisions)
        return " ".join(verdict_of(replace(good, assessment=changed)).sentences)

    assert "The threshold does worse" in sentences_for(20_000)
    assert "The threshold does worse" not in sentences_for(12)


@pytest.mark.parametrize(
    ("rule", "confident", "message"),
    [
        ({"sensitivity": 1.0}, -3.0, "only by predicting everything as abnormal"),
        ({"specificity": 1.0}, -3.0, "only by predicting nothing as abnormal"),
        ({"sensitivity": 0.8}, 3.0, ""),
    ],
)
def test_a_degenerate_threshold_is_pointed_out(
    rule: dict[str, float], confident: float, message: str, tmp_path: Path
) -> None:
    options = {"resamples": 100, "by": [], "operating_point": rule, "calibrate": False}
    table = two_class_table(60, 60, shift=0.0, confident=confident)
    verdict = verdict_of(two_class_content(tmp_path / "run", table, evaluation=options))
    sentences = [line for line in verdict.sentences if "only by predicting" in line]
    assert len(sentences) == bool(message)
    assert message in " ".join(sentences)


def test_an_inconclusive_sanity_check_is_not_a_pass(good: RunContent) -> None:
    sanity = {"verdict": "inconclusive", "sentences": ["It is inconclusive."]}
    explained = {"sanity": sanity, "localization": None, "model_dependent": None}
    verdict = verdict_of(replace(good, explained=explained))
    message = "It is unclear whether the heatmaps depend on the weights."
    assert message in verdict.sentences
    assert (
        message not in verdict_of(replace(good, explained=explained | {"sanity": None})).sentences
    )


def test_a_failed_sanity_check_is_a_warning(good: RunContent) -> None:
    sanity = {"verdict": "failed", "sentences": ["They survive.", "More."]}
    verdict = verdict_of(replace(good, explained={"sanity": sanity, "localization": None}))
    assert "They survive." in verdict.sentences
    assert "More." not in verdict.sentences
    assert verdict.severity == "warning"


def test_the_audit_of_the_training_data_does_not_count_against_another_test(
    good: RunContent,
) -> None:
    content = replace(with_audit(good, "leak"), data="another")
    verdict = verdict_of(content)
    assert verdict.severity != "leak"
    assert "Trained on mura_like, tested on another" in " ".join(verdict.sentences)


def test_an_extreme_temperature_and_scaling_that_does_not_help_are_stated(good: RunContent) -> None:
    quiet = " ".join(verdict_of(good).sentences)
    assert "temperature" not in quiet.lower()
    assert good.assessment.decisions is not None
    zero = Estimate(0.0, 0.0, 0.02, "", 80, NOT_FROM_0)
    for low, severity in ((0.11, "warning"), (0.0, "hint")):
        before = {"before": {"calibration_error": zero}}
        after = {"after": {"calibration_error": Estimate(0.258, low, 0.4, "", 80)}}
        assessment = replace(
            good.assessment,
            calibration={"test": before | after},
            decisions=dict(good.assessment.decisions) | {"temperature": 711.0},
        )
        content = replace(good, assessment=assessment)
        text = " ".join(verdict_of(content).sentences)
        assert "The temperature of 711 is extreme" in text
        statement = next(s for s in calibration_statements(content) if "not help" in s.sentence)
        assert statement.severity == severity
        assert (
            "calibration error not distinguishable from 0 (0.000-0.020) before, 0.258 "
            f"({low:.3f}-0.400) after" in text
        )


@pytest.fixture(scope="module")
def saturated(tmp_path_factory: pytest.TempPathFactory) -> RunContent:
    """Of a network so confident that its probabilities round to 1."""
    table = two_class_table(shift=38.0, confident=4.0)
    options = {"resamples": 100, "by": [], "calibrate": False}
    folder = tmp_path_factory.mktemp("saturated") / "run"
    return two_class_content(folder, table, evaluation=options)


def test_verdict_card_table_and_curve_have_the_same_area(saturated: RunContent) -> None:
    summary = saturated.overall["study"].summary
    area = f"{summary.per_class[1].auc.value:.3f}"
    assert area == f"{summary.metrics['macro_auc'].value:.3f}", "logits tie nowhere"
    assert "Macro AUC is the mean" not in overall_table(saturated).note
    assert f"{saturated.auc.value:.3f}" == area
    assert f"AUC {area} (" in " ".join(run_verdict(saturated).sentences)
    assert f"AUC {area} (" in model_card_text(saturated)
    table = level_table(saturated)
    assert table is not None
    row = next(row for row in table.rows if row[0] == "study")
    assert str(row[3]).startswith(area)
    assert f"AUC {area} (" in roc_figure(saturated).charts[0].notes[0]
    comparison = compare_with_baseline(saturated)
    assert comparison.difference is not None
    assert comparison.baseline is not None
    gap = saturated.auc.value - comparison.baseline.value
    assert comparison.difference.value == pytest.approx(gap), "of the same metric"
