"""What a comparison says: better, cannot be told, identical; of models and of configurations."""

import json

import numpy as np
import pytest
from helpers.run_folders import table_of

from fracnet.evaluation.comparison import Candidate, Comparison, Member, compare
from fracnet.evaluation.summary import summarize
from fracnet.utils.errors import UserError


def candidate(name: str, skill: float, seeds: range, count: int = 60) -> Candidate:
    members = (Member(f"{name}{seed}", table_of(skill, seed, count)) for seed in seeds)
    return Candidate(name, tuple(members))


def of_models(*skills: float, **options: object) -> Comparison:
    made = [candidate(f"m{i}_", skill, range(i, i + 1)) for i, skill in enumerate(skills)]
    return compare(made, "accuracy", resamples=300, **options)  # type: ignore[arg-type]


def test_standing_is_by_validation_and_its_figures_are_those_of_an_evaluation() -> None:
    for metric in ("accuracy", "macro_auc", "log_loss"):
        made = [candidate("a", 0.5, range(1)), candidate("b", 2.0, range(1, 2))]
        found = compare(made, metric, resamples=2000)
        assert [row.name for row in found.standings] == ["b", "a"]
        for row, run in zip(found.standings, made[::-1], strict=True):
            table = run.members[0].table
            test = summarize(table[table["split"] == "test"]).metrics[metric]
            assert (row.value, row.low, row.high) == (test.value, test.low, test.high)
            val = summarize(table[table["split"] == "val"]).metrics[metric]
            assert row.validation == pytest.approx(val.value)


def test_a_clear_difference_is_better_and_a_loss_turns_the_sign() -> None:
    found = of_models(2.5, 0.3)
    (row,) = found.models
    assert (row.name, row.reference) == ("m1_", "m0_")
    assert row.value < 0
    assert row.verdict == "worse"
    assert row.p is not None
    assert row.p < 0.01
    assert row.holm == row.p
    assert not found.configurations
    made = [candidate("a", 2.5, range(1)), candidate("b", 0.3, range(1, 2))]
    (loss,) = compare(made, "log_loss", resamples=300).models
    assert loss.value > 0
    assert loss.verdict == "worse"


def test_what_cannot_be_told_comes_with_the_number_of_patients() -> None:
    (row,) = of_models(1.0, 1.0, margin=0.02).models
    assert row.verdict == "undecided"
    assert row.needed is not None
    assert row.needed > 60
    assert row.detectable is not None
    assert row.detectable > 0.02
    (wide,) = of_models(1.0, 1.0, margin=0.9).models
    assert wide.within


def test_identical_predictions_are_said_to_be_so() -> None:
    table = table_of(1.0)
    made = [Candidate(name, (Member(name, table),)) for name in "ab"]
    (row,) = compare(made, "macro_auc", resamples=200).models
    assert (row.verdict, row.p, row.low, row.value) == ("identical", 1, None, 0)
    json.dumps(row.to_dict(), allow_nan=False)


def test_one_patient_gives_no_test() -> None:
    made = []
    for seed in range(2):
        table = table_of(1.0, seed)
        table["patient"] = "one"
        made.append(Candidate(str(seed), (Member(str(seed), table),)))
    (row,) = compare(made, "accuracy", resamples=200, margin=0.1).models
    assert (row.p, row.low, row.verdict, row.needed) == (None, None, None, None)
    assert row.note == "all rows are one patient"


def test_all_pairs_are_corrected_together_and_any_run_can_be_the_reference() -> None:
    found = of_models(1.0, 1.2, 1.4, pairs="all")
    assert len(found.models) == 3
    smallest = min(found.models, key=lambda row: row.p or 1)
    assert smallest.p is not None
    assert smallest.holm == pytest.approx(3 * smallest.p)
    chosen = of_models(1.0, 1.2, 1.4, reference="m1_1")
    assert [row.reference for row in chosen.models] == ["m1_", "m1_"]
    with pytest.raises(UserError, match="reference=m9 is none of the runs"):
        of_models(1.0, 1.2, reference="m9")


def test_five_seeds_speak_for_a_configuration_and_four_do_not() -> None:
    made = [candidate("a", 1.8, range(5)), candidate("b", 0.6, range(5, 10))]
    found = compare(made, "accuracy", resamples=300)
    (row,) = found.configurations
    assert (row.name, row.reference, row.runs, row.verdict) == ("b", "a", (5, 5), "worse")
    (model,) = found.models
    best = max(
        made[0].members,
        key=lambda m: summarize(m.table[m.table["split"] == "val"]).metrics["accuracy"].value,
    )
    assert model.runs[1] == best.name  # chosen by validation, not by the test
    test = [summarize(m.table[m.table["split"] == "test"]) for m in made[0].members]
    mean = np.mean([summary.metrics["accuracy"].value for summary in test])
    assert found.standings[0].value == pytest.approx(mean)
    four = compare([candidate("a", 1.8, range(4)), made[1]], "accuracy", resamples=300)
    assert not four.configurations
    assert len(four.models) == 1


def test_the_order_of_rows_and_runs_changes_nothing() -> None:
    made = [candidate("a", 0.5, range(1)), candidate("b", 2.0, range(1, 2))]
    mixed = [
        Candidate(c.name, tuple(Member(m.name, m.table.sample(frac=1)) for m in c.members))
        for c in made[::-1]
    ]
    for metric in ("macro_auc", "kappa"):
        one, two = (compare(m, metric, resamples=300).to_dict() for m in (made, mixed))
        assert one == two
