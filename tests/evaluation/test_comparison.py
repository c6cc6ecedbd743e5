"""What a comparison says: better, cannot be told, identical; of models and of configurations."""

import json

import numpy as np
import pytest
from helpers.run_folders import table_of

from fracnet.evaluation.comparison import Candidate, Comparison, Member, compare
from fracnet.evaluation.predictions import Predictions
from fracnet.evaluation.summary import summarize
from fracnet.utils.errors import UserError


def candidate(name: str, skill: float, seeds: range, count: int = 60) -> Candidate:
    members = (Member(f"{name}{seed}", Predictions(table_of(skill, seed, count))) for seed in seeds)
    return Candidate(name, tuple(members))


def of_models(*skills: float, **options: object) -> Comparison:
    candidates = [candidate(f"m{i}_", skill, range(i, i + 1)) for i, skill in enumerate(skills)]
    return compare(candidates, "accuracy", resamples=300, **options)  # type: ignore[arg-type]


def test_standing_is_by_validation_and_its_metrics_are_those_of_an_evaluation() -> None:
    for metric in ("accuracy", "macro_auc", "log_loss"):
        candidates = [candidate("a", 0.5, range(1)), candidate("b", 2.0, range(1, 2))]
        result = compare(candidates, metric, resamples=2000)
        assert [row.name for row in result.standings] == ["b", "a"]
        for row, run in zip(result.standings, candidates[::-1], strict=True):
            predictions = run.members[0].predictions
            test = summarize(predictions.split("test")).metrics[metric]
            assert (row.value, row.low, row.high) == (test.value, test.low, test.high)
            val = summarize(predictions.split("val")).metrics[metric]
            assert row.validation == pytest.approx(val.value)


def test_a_clear_difference_is_better_and_a_loss_turns_the_sign() -> None:
    result = of_models(2.5, 0.3)
    (row,) = result.models
    assert (row.name, row.reference) == ("m1_", "m0_")
    assert row.value < 0
    assert row.verdict == "worse"
    assert row.p is not None
    assert row.p < 0.01
    assert row.holm == row.p
    assert not result.configurations
    candidates = [candidate("a", 2.5, range(1)), candidate("b", 0.3, range(1, 2))]
    (loss,) = compare(candidates, "log_loss", resamples=300).models
    assert loss.value > 0
    assert loss.verdict == "worse"


def test_an_undecided_difference_comes_with_the_number_of_patients() -> None:
    (row,) = of_models(1.0, 1.0, margin=0.02).models
    assert row.verdict == "undecided"
    assert row.needed is not None
    assert row.needed > 60
    assert row.detectable is not None
    assert row.detectable > 0.02
    (wide,) = of_models(1.0, 1.0, margin=0.9).models
    assert wide.within


def test_identical_predictions_are_noted() -> None:
    table = table_of(1.0)
    candidates = [Candidate(name, (Member(name, Predictions(table)),)) for name in "ab"]
    (row,) = compare(candidates, "macro_auc", resamples=200).models
    assert (row.verdict, row.p, row.low, row.value) == ("identical", 1, None, 0)
    json.dumps(row.to_dict(), allow_nan=False)


def test_one_patient_gives_no_test() -> None:
    candidates = []
    for seed in range(2):
        table = table_of(1.0, seed)
        table["patient"] = "one of " + table["split"]
        candidates.append(Candidate(str(seed), (Member(str(seed), Predictions(table)),)))
    (row,) = compare(candidates, "accuracy", resamples=200, margin=0.1).models
    assert (row.p, row.low, row.verdict, row.needed) == (None, None, None, None)
    assert row.note == "all rows are one patient"


def test_all_pairs_are_corrected_together_and_any_run_can_be_the_reference() -> None:
    result = of_models(1.0, 1.2, 1.4, pairs="all")
    assert len(result.models) == 3
    smallest = min(result.models, key=lambda row: row.p or 1)
    assert smallest.p is not None
    assert smallest.holm == pytest.approx(3 * smallest.p)
    chosen = of_models(1.0, 1.2, 1.4, reference="m1_1")
    assert [row.reference for row in chosen.models] == ["m1_", "m1_"]
    with pytest.raises(UserError, match="reference=m9 is not one of the runs"):
        of_models(1.0, 1.2, reference="m9")


def test_five_seeds_speak_for_a_configuration_and_four_do_not() -> None:
    candidates = [candidate("a", 1.8, range(5)), candidate("b", 0.6, range(5, 10))]
    result = compare(candidates, "accuracy", resamples=300)
    (row,) = result.configurations
    assert (row.name, row.reference, row.runs, row.verdict) == ("b", "a", (5, 5), "worse")
    (model,) = result.models
    best = max(
        candidates[0].members,
        key=lambda m: summarize(m.predictions.split("val")).metrics["accuracy"].value,
    )
    assert model.runs[1] == best.name  # chosen by validation, not by the test
    test = [summarize(m.predictions.split("test")) for m in candidates[0].members]
    mean = np.mean([summary.metrics["accuracy"].value for summary in test])
    assert result.standings[0].value == pytest.approx(mean)
    four = compare([candidate("a", 1.8, range(4)), candidates[1]], "accuracy", resamples=300)
    assert not four.configurations
    assert len(four.models) == 1


def test_the_order_of_rows_and_runs_changes_nothing() -> None:
    candidates = [candidate("a", 0.5, range(1)), candidate("b", 2.0, range(1, 2))]
    mixed = [
        Candidate(
            c.name,
            tuple(
                Member(m.name, Predictions(m.predictions.table.sample(frac=1))) for m in c.members
            ),
        )
        for c in candidates[::-1]
    ]
    for metric in ("macro_auc", "kappa"):
        left, right = (compare(m, metric, resamples=300).to_dict() for m in (candidates, mixed))
        assert left == right
